import itertools
import math

import pytest
import torch
from torch import nn

from format_world import draw, drawn_with, trained
from personae.errors import ArtifactError, UnsupportedError
from personae.formats.format import export_file, format_of, import_file
from personae.formats.safe_pickle import save_pickle
from personae.formats.tensor_file import zeros
from personae.models.families.z_image import ZImage
from personae.techniques.hypernetwork import Hypernetwork

ACTIVATIONS = {"relu": nn.ReLU, "swish": nn.Hardswish, "sigmoid": nn.Sigmoid, "linear": None}


def a1111_network(width: int, content: dict) -> nn.Sequential:
    """The layers of a file in the order of the specification, built anew from its options."""
    structure, dropout = content["layer_structure"], content["dropout_structure"]
    layers, last = [], len(structure) - 2
    for i in range(len(structure) - 1):
        out = int(width * structure[i + 1])
        layers.append(nn.Linear(int(width * structure[i]), out))
        act = ACTIVATIONS[content["activation_func"]]
        if act and (i < last or content["activate_output"]):
            layers.append(act())
        if content["is_layer_norm"]:
            layers.append(nn.LayerNorm(out))
        if dropout[i + 1] > 0:
            layers.append(nn.Dropout(dropout[i + 1]))
    return nn.Sequential(*layers).eval()


OPTIONS = [
    {
        "activation": activation,
        "layer_norm": norm,
        "activate_output": output,
        "layer_structure": structure,
        "dropout_structure": dropout,
    }
    for activation, norm, output, (structure, dropout) in itertools.product(
        ACTIVATIONS,
        (False, True),
        (False, True),
        (
            ([1, 2, 1], None),
            ([1, 2, 1], [0, 0.3, 0]),
            ([1, 0.5, 1.5, 1], [0, 0.3, 0.3, 0]),
        ),
    )
]


def test_every_option_set_has_the_layers_of_a1111_and_computes_the_same(bases, tmp_path):
    base, context = bases["sd1"], draw(2, 5, 24)
    for options in OPTIONS:
        artifact = trained("hypernetwork", base, self_attention=False, **options)
        path = export_file(artifact, "a1111_hypernetwork", tmp_path / "net", base)
        content = torch.load(path, weights_only=True)
        keys, _ = content[24]
        network = a1111_network(24, content)
        network.load_state_dict({k.removeprefix("linear."): v for k, v in keys.items()})
        (technique,) = artifact.build(base)
        ours = technique.networks["24/k"](context)
        assert torch.equal(network(context), ours), options
        back = import_file(path, base)
        assert set(back.tensors) == set(artifact.tensors)
        assert all(torch.equal(back.tensors[k], v) for k, v in artifact.tensors.items()), options
        assert back.card.techniques[0].config["dropout_structure"] == options["dropout_structure"]


def test_the_inference_copy_computes_the_same_without_dropout(bases, tmp_path):
    base, context = bases["sd1"], draw(2, 5, 24)
    for options in OPTIONS:
        artifact = trained("hypernetwork", base, self_attention=False, **options)
        path = tmp_path / "copy.pt"
        unlike = options["layer_norm"] and options["activation"] != "linear"
        if unlike and not options["activate_output"]:
            with pytest.raises(UnsupportedError, match="a1111_hypernetwork"):
                export_file(artifact, "comfy_hypernetwork", path, base)
            continue
        export_file(artifact, "comfy_hypernetwork", path, base)
        content = torch.load(path, weights_only=True)
        assert not content["use_dropout"]
        network = a1111_network(24, content)
        assert not any(isinstance(layer, nn.Dropout) for layer in network)
        network.load_state_dict({k.removeprefix("linear."): v for k, v in content[24][0].items()})
        (technique,) = artifact.build(base)
        ours = technique.networks["24/k"](context)
        assert torch.equal(network(context), ours), options
        (copy,) = import_file(path, base).build(base)
        assert torch.equal(copy.networks["24/k"](context), ours)


def test_the_safetensors_twin_is_lossless_both_ways(bases, tmp_path):
    base = bases["sd1"]
    artifact = trained("hypernetwork", base, layer_norm=True, dropout_structure=[0, 0.2, 0])
    twin = export_file(artifact, "hypernetwork", tmp_path / "twin", base)
    assert format_of(twin).name == "hypernetwork"
    middle = import_file(twin, base)
    assert middle.card.character.phrase == artifact.card.character.phrase
    path = export_file(middle, "a1111_hypernetwork", tmp_path / "net", base)
    back = import_file(path, base)
    assert set(back.tensors) == set(artifact.tensors)
    assert all(torch.equal(back.tensors[key], value) for key, value in artifact.tensors.items())
    assert back.card.techniques == middle.card.techniques


def linear_pair(width: int, scale: float = 0.1) -> tuple[dict, dict]:
    states = [
        {
            "linear.0.weight": draw(2 * width, width, seed=seed) * scale,
            "linear.0.bias": draw(2 * width, seed=seed) * scale,
            "linear.1.weight": draw(width, 2 * width, seed=seed) * scale,
            "linear.1.bias": draw(width, seed=seed) * scale,
        }
        for seed in (1, 2)
    ]
    return states[0], states[1]


def test_older_names_and_missing_options_are_read_as_a1111_does(bases, tmp_path):
    legacy = tuple(
        {key.replace("linear.0", "linear1").replace("linear.1", "linear2"): value}
        for state in linear_pair(24)
        for key, value in state.items()
    )
    keys = {k: v for part in legacy[:4] for k, v in part.items()}
    values = {k: v for part in legacy[4:] for k, v in part.items()}
    path = save_pickle({24: [keys, values]}, tmp_path / "old.pt")
    artifact = import_file(path, bases["sd1"])
    config = artifact.card.techniques[0].config
    assert config["layer_structure"] == [1, 2, 1]
    assert config["activation"] == "linear"
    assert config["activate_output"]
    assert torch.equal(
        artifact.tensors["hypernetwork.networks.24.v.1.weight"],
        linear_pair(24)[1]["linear.1.weight"],
    )


def test_self_attention_and_cross_attention_are_chosen_by_width(bases, pipes, plain, tmp_path):
    base = bases["sd1"]
    drawn = {}
    for width in (24, 32):
        path = save_pickle({width: linear_pair(width, 0.3)}, tmp_path / f"w{width}.pt")
        artifact = import_file(path, base)
        drawn[width] = drawn_with(artifact, pipes["sd1"], base)
        assert (drawn[width] - plain["sd1"]).abs().max() > 1e-4
        (technique,) = artifact.build(base)
        changed = {
            name
            for name in technique.networks
            if technique.networks[name](draw(1, int(name.split("/")[0]))).any()
        }
        assert changed == {f"{width}/k", f"{width}/v"}
    assert not torch.equal(drawn[24], drawn[32])


def test_no_strength_is_the_base_and_two_chain(bases, tmp_path):
    base = bases["sd1"]
    artifacts = [
        import_file(save_pickle({24: linear_pair(24, s)}, tmp_path / f"{s}.pt"), base)
        for s in (0.1, 0.2)
    ]
    first, second = (artifact.build(base)[0] for artifact in artifacts)
    layer = next(m for n, m in base.denoiser.named_modules() if n.endswith("attn2.to_k"))
    context = draw(1, 5, 24)
    bare = layer(context)
    first.inject(), second.inject()
    once = context + first.networks["24/k"](context)
    wanted = layer.weight @ (once + second.networks["24/k"](once)).transpose(1, 2)
    torch.testing.assert_close(layer(context).transpose(1, 2), wanted, rtol=0, atol=1e-5)
    first.strength = second.strength = 0
    assert torch.equal(layer(context), bare)
    first.eject(), second.eject()


def test_widths_the_base_lacks_are_left_out_and_said(bases, tmp_path):
    content = {24: linear_pair(24), 640: linear_pair(640)}
    artifact = import_file(save_pickle(content, tmp_path / "two.pt"), bases["sd1"])
    assert "640" in artifact.card.notes["left out"]
    with pytest.raises(ArtifactError, match="another kind of base"):
        import_file(save_pickle({640: linear_pair(640)}, tmp_path / "xl.pt"), bases["sd1"])


def test_networks_made_up_for_lacking_widths_are_bounded(tmp_path):
    wanted = {"networks.1280.k.0.weight": torch.empty(81_920, 81_920, device="meta")}
    with pytest.raises(ArtifactError, match=r"net.pt: .*6,710,886,400 numbers; at most"):
        zeros(wanted, tmp_path / "net.pt")


def test_a_base_of_a_family_that_a1111_does_not_know_is_refused(tmp_path):
    base = ZImage.tiny()[0]
    width = min(
        layer.in_features for _, layer in Hypernetwork(Hypernetwork.Config(), base, None).layers
    )
    path = save_pickle({width: linear_pair(width)}, tmp_path / "sd.pt")
    with pytest.raises(ArtifactError, match=r"sd\.pt: .*z_image, another kind of base"):
        import_file(path, base)


def changed(**options) -> dict:
    return {24: linear_pair(24), "layer_structure": [1, 2, 1], **options}


BAD = {
    "half a pair": {24: (linear_pair(24)[0],)},
    "no layers": {24: ({"other.weight": draw(3)}, {})},
    "a missing key": {24: ({"linear.0.weight": draw(48, 24)}, linear_pair(24)[1])},
    "another structure": changed(layer_structure=[1, 4, 1]),
    "a huge structure": changed(layer_structure=[1, 1e12, 1]),
    "a structure of text": changed(layer_structure=["1", "2"]),
    "a structure without ends": changed(layer_structure=[2, 2, 1]),
    "an unknown activation": changed(activation_func="os.system"),
    "an odd activation": changed(activation_func=[1]),
    "a negative width": {-24: linear_pair(24)},
    "a huge width": {10**9: linear_pair(24)},
    "integers": {24: tuple({k: v.long() for k, v in s.items()} for s in linear_pair(24))},
    "not finite": {24: tuple({k: v * math.nan for k, v in s.items()} for s in linear_pair(24))},
    "drops of another length": changed(dropout_structure=[0, 0.3, 0.3, 0]),
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
def test_a_malformed_hypernetwork_is_refused_in_one_line(content, bases, tmp_path):
    path = save_pickle(content, tmp_path / "bad.pt")
    with pytest.raises(ArtifactError, match=r"bad\.pt") as caught:
        import_file(path, bases["sd1"])
    assert "\n" not in str(caught.value)


def test_string_widths_are_no_hypernetwork(bases, tmp_path):
    path = save_pickle({"24": linear_pair(24)}, tmp_path / "text.pt")
    with pytest.raises(ArtifactError, match="none of the formats"):
        import_file(path, bases["sd1"])
