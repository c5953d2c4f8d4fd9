"""What A1111 and ComfyUI make of hypernetwork files, by formulas written anew from their rules."""

import inspect
import itertools

import pytest
import torch
from torch import nn

from format_world import draw, trained
from personae.errors import ArtifactError, UnsupportedError
from personae.formats.format import export_file, import_file
from personae.formats.safe_pickle import save_pickle

WIDTH = 24
CONTEXT = draw(2, 5, WIDTH)
# Two names of A1111's own, and every class of torch's file of activations in lower case.
OFFERED = {"linear": nn.Identity, "swish": nn.Hardswish} | {
    name.lower(): kind
    for name, kind in inspect.getmembers(nn.modules.activation, inspect.isclass)
    if kind.__module__ == nn.modules.activation.__name__
}
REFUSED = {
    "glu": "halves its input",
    "logsoftmax": "mixes the pictures of a batch",
    "multiheadattention": "cannot make",
    "softmax": "mixes the pictures of a batch",
    "softmax2d": "mixes the pictures of a batch",
    "softmin": "mixes the pictures of a batch",
    "threshold": "cannot make",
}


def test_a1111_offers_these_names_and_no_others():
    """Pins torch's list, so that a name added there is noticed here."""
    assert len(OFFERED) == 31
    assert set(REFUSED) < set(OFFERED)


@pytest.mark.parametrize("activation", sorted(set(OFFERED) - set(REFUSED)))
@pytest.mark.parametrize("output", [False, True])
def test_every_activation_of_a1111_is_imported_and_computes_the_same(
    activation, output, bases, tmp_path
):
    act = [] if activation == "linear" else [OFFERED[activation]()]
    layers = [nn.Linear(WIDTH, 2 * WIDTH), *act, nn.Linear(2 * WIDTH, WIDTH)]
    network = nn.Sequential(*layers, *(a for a in act if output)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(draw(*parameter.shape) * 0.4)
    state = {f"linear.{name}": value for name, value in network.state_dict().items()}
    widths = {WIDTH: (state, state)}
    options = {"layer_structure": [1, 2, 1], "activation_func": activation}
    path = save_pickle({**widths, **options, "activate_output": output}, tmp_path / "net.pt")
    artifact = import_file(path, bases["sd1"])
    (technique,) = artifact.build(bases["sd1"])
    technique.eval()
    for part in "kv":
        assert torch.equal(technique.networks[f"{WIDTH}/{part}"](CONTEXT), network(CONTEXT))
    again = export_file(artifact, "a1111_hypernetwork", tmp_path / "again", bases["sd1"])
    back = torch.load(again, weights_only=True)
    assert back["activation_func"] == activation
    assert {k: v.tolist() for k, v in back[WIDTH][0].items()} == {
        k: v.tolist() for k, v in state.items()
    }


@pytest.mark.parametrize("activation", REFUSED)
def test_an_activation_no_picture_can_depend_on_is_refused_in_words(activation, bases, tmp_path):
    state = {"linear.0.weight": draw(48, 24), "linear.0.bias": draw(48)}
    content = {24: (state, state), "layer_structure": [1, 2, 1], "activation_func": activation}
    path = save_pickle(content, tmp_path / "net.pt")
    with pytest.raises(ArtifactError, match=f"'{activation}'.*{REFUSED[activation]}") as caught:
        import_file(path, bases["sd1"])
    assert str(path) in str(caught.value)


def test_an_output_that_is_never_zero_cannot_leave_other_widths_alone(bases, tmp_path):
    state = {f"linear.{n}.{p}": v for n in (0, 2) for p, v in _layer(n).items()}
    content = {32: (state, state), "layer_structure": [1, 2, 1], "activate_output": True}
    path = save_pickle(content | {"activation_func": "softplus"}, tmp_path / "net.pt")
    with pytest.raises(ArtifactError, match="with softplus at the end"):
        import_file(path, bases["sd1"])


def _layer(number: int) -> dict:
    shape = (64, 32) if number == 0 else (32, 64)
    return {"weight": draw(*shape), "bias": draw(shape[0])}


def as_comfyui_reads_it(content: dict) -> nn.Sequential:
    """The networks of ComfyUI 0.3.64: weights in the order of the file, in training mode.

    It activates after a Linear unless that is the last entry of the file and the output is not
    activated; where layer norms follow, the last Linear is not the last entry.
    """
    state, layers = content[WIDTH][0], []
    stems = [name.removesuffix(".weight") for name in state if name.endswith(".weight")]
    for stem in stems:
        weight, bias = state[f"{stem}.weight"], state[f"{stem}.bias"]
        norm = weight.dim() == 1
        layer = nn.LayerNorm(len(weight)) if norm else nn.Linear(*weight.shape[::-1])
        layer.load_state_dict({"weight": weight, "bias": bias})
        layers.append(layer)
        last = stem == stems[-1]
        known = content["activation_func"] != "linear"
        if not norm and known and (not last or content["activate_output"]):
            layers.append(OFFERED[content["activation_func"]]())
        after_block = norm == content["is_layer_norm"]
        if after_block and content["use_dropout"] and not last:
            layers.append(nn.Dropout(0.3))
    return nn.Sequential(*layers)


SETS = list(
    itertools.product(
        ("linear", "relu", "swish", "sigmoid"),
        (False, True),
        (False, True),
        (False, True),
        ([1, 2, 1], [1, 0.5, 1.5, 1]),
    )
)


def settings_of(activation, norm, output, dropout, structure) -> dict:
    drops = [0.0, *[0.3] * (len(structure) - 2), 0.0]
    return {
        "activation": activation,
        "layer_norm": norm,
        "activate_output": output,
        "dropout_structure": drops if dropout else None,
        "layer_structure": structure,
    }


def test_comfyui_computes_ours_on_64_option_sets_but_for_twelve_that_are_known(bases, tmp_path):
    base, unlike = bases["sd1"], []
    for options in SETS:
        artifact = trained("hypernetwork", base, self_attention=False, **settings_of(*options))
        (technique,) = artifact.build(base)
        ours = technique.eval().networks[f"{WIDTH}/k"](CONTEXT)
        path = export_file(artifact, "a1111_hypernetwork", tmp_path / "train", base)
        theirs = as_comfyui_reads_it(torch.load(path, weights_only=True)).eval()(CONTEXT)
        if (theirs - ours).abs().max() > 1e-5:
            unlike.append(options)
            with pytest.raises(UnsupportedError, match="something else"):
                export_file(artifact, "comfy_hypernetwork", tmp_path / "copy", base)
            continue
        path = export_file(artifact, "comfy_hypernetwork", tmp_path / "copy", base)
        # not in eval mode: ComfyUI leaves its modules in training mode while it draws
        theirs = as_comfyui_reads_it(torch.load(path, weights_only=True))(CONTEXT)
        assert (theirs - ours).abs().max() < 1e-5, options
    assert len(SETS) == 64
    assert len(unlike) == 12
    assert all(name != "linear" and norm and not output for name, norm, output, *_ in unlike)


@pytest.mark.parametrize("activation", ["gelu", "prelu", "hardswish"])
def test_a_copy_for_comfyui_has_an_activation_it_knows(activation, bases, tmp_path):
    artifact = trained("hypernetwork", bases["sd1"], activation=activation)
    path = tmp_path / "copy.pt"
    if activation == "hardswish":
        export_file(artifact, "comfy_hypernetwork", path, bases["sd1"])
        assert torch.load(path, weights_only=True)["activation_func"] == "swish"
        return
    with pytest.raises(UnsupportedError, match="does not know the activation"):
        export_file(artifact, "comfy_hypernetwork", path, bases["sd1"])
    assert not path.exists()
