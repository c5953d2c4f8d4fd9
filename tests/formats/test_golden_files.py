"""Files as other tools write them, fixed in `golden/` by `golden/make.py`.

What is read from each is known in advance; what is written again has the form of the golden file.
"""

import hashlib
import json
import math
import shutil
import zipfile
import zlib
from pathlib import Path

import pytest
import torch

from personae.artifacts.low_rank import updates_of
from personae.errors import ArtifactError
from personae.formats.format import export_file, format_of, import_file

GOLDEN = Path(__file__).parent / "golden"
BLOCK = "down_blocks.0.attentions.0.transformer_blocks.0"
ATTENTION = {
    *(f"{BLOCK}.{each}.{part}" for each in ("attn1", "attn2") for part in ("to_q", "to_k", "to_v")),
    *(f"{BLOCK}.{each}.to_out.0" for each in ("attn1", "attn2")),
    "mid_block.attentions.0.transformer_blocks.0.attn2.to_k",
    "up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_v",
}
REST = {
    "down_blocks.0.attentions.0.proj_in",
    "down_blocks.0.attentions.0.proj_out",
    f"{BLOCK}.ff.net.0.proj",
    f"{BLOCK}.ff.net.2",
    "down_blocks.0.resnets.0.conv1",
    "down_blocks.0.resnets.0.time_emb_proj",
    "down_blocks.0.downsamplers.0.conv",
}
TEXT_ATTENTION = {f"encoder.layers.0.self_attn.{part}_proj" for part in ("q", "k", "v", "out")}
TEXT = {*TEXT_ATTENTION, "encoder.layers.0.mlp.fc1", "encoder.layers.0.mlp.fc2"}

# What readers act on in the metadata of a LoRA, and of an embedding.
OF_A_LORA = {
    "ss_base_model_version", "ss_v2", "ss_output_name", "ss_network_module", "ss_network_dim",
    "modelspec.sai_model_spec", "modelspec.architecture", "modelspec.implementation",
    "modelspec.title", "modelspec.prediction_type",
}  # fmt: skip
OF_AN_EMBEDDING = {
    "modelspec.sai_model_spec", "modelspec.architecture", "modelspec.implementation",
}  # fmt: skip
OF_A_HYPERNETWORK = {
    "layer_structure": [1, 0.5, 0.5, 1],
    "activation_func": "relu",
    "is_layer_norm": True,
    "weight_initialization": "XavierNormal",
    "activate_output": True,
    "use_dropout": True,
    "dropout_structure": [0, 0.3, 0.3, 0],
    "last_layer_dropout": True,
    "name": "hypernetwork",
}


def numbers(name: str, *shape: int) -> torch.Tensor:
    """The values of the golden files."""
    start = zlib.crc32(name.encode())
    return ((torch.arange(math.prod(shape)) + start) % 17 - 8).reshape(shape) / 32


def product(weight, down: str, up: str, rank: int, scale: float) -> torch.Tensor:
    """The change of a weight by two golden tensors of these names."""
    first = numbers(down, rank, *weight.shape[1:]).flatten(1)
    second = numbers(up, len(weight), rank)
    return (second @ first).reshape(weight.shape) * scale


def weight_of(base, layer: str) -> torch.Tensor:
    network, name = layer.split(".", 1)
    return base.networks[network].get_submodule(name).weight


def assert_changes(artifact, expected: dict[str, torch.Tensor], tolerance: float = 1e-6) -> None:
    found = updates_of(artifact)
    assert set(found) == set(expected)
    for layer, delta in expected.items():
        torch.testing.assert_close(
            found[layer].delta(), delta, rtol=0, atol=tolerance, msg=f"{layer} differs"
        )


def outline(path: Path) -> tuple[dict, dict[str, str]]:
    """Return ({tensor: (format, shape)}, metadata), from the bytes of the header."""
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    metadata = header.pop("__metadata__", {})
    return {name: (each["dtype"], each["shape"]) for name, each in header.items()}, metadata


def pickled(path: Path) -> tuple[set[str], dict]:
    """Return (names of the members, content with (format, shape) in place of tensors)."""

    def shown(value):
        if isinstance(value, torch.Tensor):
            return value.dtype, tuple(value.shape)
        if isinstance(value, dict):
            return {name: shown(each) for name, each in value.items()}
        return tuple(map(shown, value)) if isinstance(value, tuple) else value

    with zipfile.ZipFile(path) as archive:
        return set(archive.namelist()), shown(torch.load(path, weights_only=True))


def read_and_write(base, name: str, file: str, folder: Path):
    """Return (golden file, what is read from it, what is written of that)."""
    golden = GOLDEN / file
    assert format_of(golden).name == name
    artifact = import_file(golden, base)
    return golden, artifact, export_file(artifact, name, folder / file, base)


def test_a_lora_of_kohyas_scripts(bases, tmp_path):
    base, expected = bases["sd1"], {}
    golden, artifact, written = read_and_write(base, "kohya", "kohya_lora.safetensors", tmp_path)
    for layer in {f"denoiser.{name}" for name in ATTENTION | REST}:
        stem = f"lora_unet_{layer.removeprefix('denoiser.').replace('.', '_')}"
        expected[layer] = f"{stem}.lora_down.weight", f"{stem}.lora_up.weight"
    for name in TEXT:
        stem = f"lora_te_text_model_{name.replace('.', '_')}"
        expected[f"text_encoder.{name}"] = f"{stem}.lora_down.weight", f"{stem}.lora_up.weight"
    changes = {k: product(weight_of(base, k), *names, 2, 0.5) for k, names in expected.items()}
    assert_changes(artifact, changes)
    assert artifact.card.character.phrase == "mira cat"

    (theirs, said), (ours, says) = outline(golden), outline(written)
    # kohya casts alphas too; readers take their number, whatever the format
    theirs |= {name: ("F32", []) for name in theirs if name.endswith(".alpha")}
    assert ours == theirs
    assert {key: says[key] for key in OF_A_LORA} == {key: said[key] for key in OF_A_LORA}
    assert float(says["ss_network_alpha"]) == float(said["ss_network_alpha"])
    sizes, known = (json.loads(each["ss_network_args"]) for each in (says, said))
    assert {key: float(value) for key, value in sizes.items()} == {
        key: float(value) for key, value in known.items()
    }
    assert all(isinstance(tags, dict) for tags in json.loads(says["ss_tag_frequency"]).values())
    for path, metadata in ((golden, said), (written, says)):
        content = path.read_bytes()
        data = content[8 + int.from_bytes(content[:8], "little") :]
        assert metadata["sshs_model_hash"] == hashlib.sha256(data).hexdigest()
        assert metadata["modelspec.hash_sha256"] == f"0x{metadata['sshs_model_hash']}"


def test_a_lora_of_diffusers_with_its_alpha_in_the_metadata(bases, tmp_path):
    base, file = bases["sd1"], "pytorch_lora_weights.safetensors"
    golden, artifact, written = read_and_write(base, "diffusers_lora", file, tmp_path)
    stems = {f"denoiser.{name}": f"unet.{name}" for name in ATTENTION}
    stems |= {f"text_encoder.{name}": f"text_encoder.text_model.{name}" for name in TEXT_ATTENTION}
    names = {k: (f"{stem}.lora_A.weight", f"{stem}.lora_B.weight") for k, stem in stems.items()}
    assert_changes(artifact, {k: product(weight_of(base, k), *n, 2, 2.0) for k, n in names.items()})
    (theirs, _), (ours, says) = outline(golden), outline(written)
    assert ours == theirs
    assert says["format"] == "pt"
    assert "lora_adapter_metadata" not in says  # the scale is in lora_B already


def test_a_folder_of_peft_with_a_rank_for_one_kind_of_layer(bases, tmp_path):
    base = bases["sd1"]
    golden, artifact, written = read_and_write(base, "peft", "peft_lora", tmp_path)
    expected = {}
    for name in ATTENTION:
        rank, scale = (4, 0.25) if name.endswith("attn2.to_k") else (2, 2.0)
        stem, layer = f"base_model.model.{name}", f"denoiser.{name}"
        halves = f"{stem}.lora_A.weight", f"{stem}.lora_B.weight"
        expected[layer] = product(weight_of(base, layer), *halves, rank, scale)
    assert_changes(artifact, expected)
    tensors = "adapter_model.safetensors"
    assert outline(written / tensors)[0] == outline(golden / tensors)[0]
    theirs, ours = (
        json.loads((folder / "adapter_config.json").read_text()) for folder in (golden, written)
    )
    assert set(ours) == set(theirs) - {"modules_to_save"}
    assert ours["peft_type"] == theirs["peft_type"]
    assert set(ours["target_modules"]) == ATTENTION
    ranks = {name: ours["rank_pattern"].get(name, ours["r"]) for name in ATTENTION}
    assert ranks == {name: 4 if name.endswith("attn2.to_k") else 2 for name in ATTENTION}


def test_a_rank_of_peft_under_an_expression_is_refused_and_not_run(bases, tmp_path):
    folder = shutil.copytree(GOLDEN / "peft_lora", tmp_path / "peft_lora")
    settings = json.loads((folder / "adapter_config.json").read_text())
    settings["alpha_pattern"] = {"(a+)+$": 1}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(ArtifactError, match="alpha_pattern has the expression") as caught:
        import_file(folder, bases["sd1"])
    assert str(folder) in str(caught.value)


def test_a_rank_of_peft_under_a_whole_name_is_of_that_layer_alone(bases, tmp_path):
    base = bases["sd1"]
    folder = shutil.copytree(GOLDEN / "peft_lora", tmp_path / "peft_lora")
    settings = json.loads((folder / "adapter_config.json").read_text())
    only = f"{BLOCK}.attn1.to_q"
    settings["alpha_pattern"] = {f"^{only}": 6, "^attn1.to_v": 6, "attn2.to_k": 1}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    before = updates_of(import_file(GOLDEN / "peft_lora", base))
    after = updates_of(import_file(folder, base))
    for layer, update in after.items():
        factor = 1.5 if layer == f"denoiser.{only}" else 1.0
        torch.testing.assert_close(update.delta(), before[layer].delta() * factor)


LINEAR, CONVOLUTION = f"{BLOCK}.attn2.to_k", "down_blocks.0.resnets.0.conv1"


def part(layer: str, name: str, *shape: int) -> torch.Tensor:
    return numbers(f"lora_unet_{layer.replace('.', '_')}.{name}", *shape)


def test_a_loha_of_lycoris(bases):
    linear, kernel = 0.5, 0.5  # alpha 1, rank 2
    for i in "12":
        linear = linear * (
            part(LINEAR, f"hada_w{i}_a", 16, 2) @ part(LINEAR, f"hada_w{i}_b", 2, 24)
        )
        kernel = kernel * torch.einsum(
            "ijkl,io,jn->onkl",
            part(CONVOLUTION, f"hada_t{i}", 2, 2, 3, 3),
            part(CONVOLUTION, f"hada_w{i}_a", 2, 16),
            part(CONVOLUTION, f"hada_w{i}_b", 2, 16),
        )
    artifact = import_file(GOLDEN / "loha.safetensors", bases["sd1"])
    expected = {f"denoiser.{LINEAR}": linear, f"denoiser.{CONVOLUTION}": kernel}
    assert_changes(artifact, expected, 1e-5)


def test_a_lokr_of_lycoris(bases):
    right = part(LINEAR, "lokr_w2_a", 4, 2) @ part(LINEAR, "lokr_w2_b", 2, 6)
    left = part(LINEAR, "lokr_w1", 4, 4)
    linear = torch.einsum("ab,cd->acbd", left, right).reshape(16, 24) * 0.5
    left = part(CONVOLUTION, "lokr_w1", 4, 4)
    right = part(CONVOLUTION, "lokr_w2", 4, 4, 3, 3)
    # both factors are whole, so that alpha plays no part
    kernel = torch.einsum("ab,cdkl->acbdkl", left, right).reshape(16, 16, 3, 3)
    artifact = import_file(GOLDEN / "lokr.safetensors", bases["sd1"])
    expected = {f"denoiser.{LINEAR}": linear, f"denoiser.{CONVOLUTION}": kernel}
    assert_changes(artifact, expected, 1e-5)


def test_a_hypernetwork_of_a1111_with_every_option(bases, tmp_path):
    golden, artifact, written = read_and_write(
        bases["sd1"], "a1111_hypernetwork", "hypernetwork.pt", tmp_path
    )
    assert len(artifact.tensors) == 24
    for name, value in artifact.tensors.items():
        _, _, width, side, number, half = name.split(".")
        wanted = numbers(f"{width}.{side}.linear.{number}.{half}", *value.shape)
        assert torch.equal(value.float(), wanted), name
    (their_members, theirs), (our_members, ours) = pickled(golden), pickled(written)
    assert our_members == their_members
    assert set(ours) == set(theirs)
    assert ours[24] == theirs[24]
    assert [list(state) for state in ours[24]] == [list(state) for state in theirs[24]]
    assert {key: ours[key] for key in OF_A_HYPERNETWORK} == OF_A_HYPERNETWORK


def test_a_hypernetwork_from_before_there_were_options(bases):
    artifact = import_file(GOLDEN / "hypernetwork_legacy.pt", bases["sd1"])
    assert len(artifact.tensors) == 8
    for name, value in artifact.tensors.items():
        _, _, width, side, number, half = name.split(".")
        wanted = numbers(f"{width}.{side}.linear{int(number) + 1}.{half}", *value.shape)
        assert torch.equal(value.float(), wanted), name
    config = artifact.card.techniques[0].config
    assert (config["layer_structure"], config["activation"]) == ([1, 2, 1], "linear")


@pytest.mark.parametrize(
    ("name", "file", "key", "placeholder"),
    [
        ("a1111_embedding", "embedding.pt", "*", "<embedding>"),
        ("embedding", "embedding.safetensors", "emb_params", "<embedding>"),
        ("diffusers_embedding", "learned_embeds.safetensors", "<mira>", "<mira>"),
    ],
)
def test_an_embedding(name, file, key, placeholder, bases, tmp_path):
    golden, artifact, written = read_and_write(bases["sd1"], name, file, tmp_path)
    vectors = artifact.tensors["textual_inversion.vectors.0"]
    assert torch.equal(vectors, numbers(key, 2, 24))
    assert artifact.card.techniques[0].config["placeholder"] == placeholder
    if file.endswith(".pt"):
        (their_members, theirs), (our_members, ours) = pickled(golden), pickled(written)
        assert our_members == their_members
        assert {k: type(v) for k, v in ours.items()} == {k: type(v) for k, v in theirs.items()}
        for same in ("string_to_token", "string_to_param"):
            assert ours[same] == theirs[same]
        return
    (theirs, said), (ours, says) = outline(golden), outline(written)
    assert ours == theirs
    acted_on = set(said) & {*OF_AN_EMBEDDING, "format"}
    assert {key: says.get(key) for key in acted_on} == {key: said[key] for key in acted_on}
