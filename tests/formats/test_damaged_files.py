"""Whatever a file holds, its reader ends in an artifact or in one line of refusal."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from format_world import draw, trained
from personae.artifacts.artifact import Artifact
from personae.errors import ArtifactError
from personae.formats.format import export_file, import_file
from personae.formats.layout import layout_of
from personae.formats.lora.names import kohya_name
from personae.formats.safe_pickle import save_pickle

MADE = {
    "kohya": ("lora", {"rank": 1}),
    "diffusers_lora": ("lora", {"rank": 1}),
    "embedding": ("textual_inversion", {"initializer_words": "cat"}),
    "a1111_embedding": ("textual_inversion", {"initializer_words": "cat"}),
    "a1111_hypernetwork": ("hypernetwork", {}),
    "hypernetwork": ("hypernetwork", {}),
}

often = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def whole(bases, tmp_path_factory) -> dict:
    """A good file of each format."""
    folder, base = tmp_path_factory.mktemp("whole"), bases["sd1"]
    return {
        name: export_file(trained(technique, base, **options), name, folder / name, base)
        for name, (technique, options) in MADE.items()
    }


def ends_well(path, base) -> None:
    try:
        artifact = import_file(path, base)
    except ArtifactError as error:
        text = str(error)
        if "\n" in text or str(path) not in text:
            raise AssertionError(f"not one line that names the file: {text!r}") from error
    else:
        assert isinstance(artifact, Artifact)
        assert all(torch.isfinite(value).all() for value in artifact.tensors.values())


@pytest.mark.parametrize("name", MADE)
@often
@given(data=st.data())
def test_damaged_bytes(name, data, whole, bases, tmp_path):
    source = whole[name]
    content = bytearray(source.read_bytes())
    # headers come first in safetensors and last in a zip, so that both ends are hit often
    near = st.integers(0, min(2000, len(content) - 1))
    places = near | near.map(lambda i: len(content) - 1 - i) | st.integers(0, len(content) - 1)
    for place in data.draw(st.lists(places, min_size=1, max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.none() | places)
    path = tmp_path / f"damaged{source.suffix}"
    path.write_bytes(content[:cut])
    ends_well(path, bases["sd1"])


SUFFIXES = (
    "lora_down.weight", "lora_up.weight", "lora_mid.weight", "alpha", "dora_scale", "diff",
    "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "lokr_w1", "lokr_w2",
    "lokr_w1_a", "lokr_w1_b", "lokr_w2_a", "lokr_w2_b", "lokr_t2", "oft_blocks",
)  # fmt: skip
shapes = st.lists(st.sampled_from([0, 1, 2, 16, 24, 32, 48]), max_size=4).map(tuple)
values = st.sampled_from([0.0, 0.5, -3.0, 6e4, float("nan"), float("inf")])
dtypes = st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.int8])


@often
@given(data=st.data())
def test_lora_parts_in_any_mixture(data, bases, tmp_path):
    base = bases["sd1"]
    layers = [kohya_name(layer, base, layout_of(base)) for layer in base.layers()]
    names = st.builds("{}.{}".format, st.sampled_from(layers[:40:13]), st.sampled_from(SUFFIXES))
    tensors = {
        name: torch.full(data.draw(shapes), data.draw(values)).to(data.draw(dtypes))
        for name in data.draw(st.lists(names, min_size=1, max_size=6, unique=True))
    }
    save_file(tensors, tmp_path / "mixture.safetensors")
    ends_well(tmp_path / "mixture.safetensors", base)


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats()
    | st.text(max_size=8)
    | st.just(draw(2, 24)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
layer_names = st.sampled_from(["linear.0.weight", "linear.0.bias", "linear1.weight", "linear.9"])
states = st.dictionaries(layer_names, st.just(draw(24, 24)) | plain, max_size=3)
option_names = st.sampled_from(
    ["layer_structure", "activation_func", "is_layer_norm", "dropout_structure", "use_dropout",
     "weight_initialization", "activate_output", "string_to_param", "name"]
)  # fmt: skip
files = st.builds(
    lambda networks, options: {**networks, **options},
    st.dictionaries(st.sampled_from([24, 32, -1, 10**10]), st.tuples(states, states) | plain),
    st.dictionaries(option_names, plain, max_size=4),
)


@often
@given(content=files | plain)
def test_pickles_of_any_plain_values(content, bases, tmp_path):
    for suffix in (".pt", ".bin"):
        ends_well(save_pickle(content, tmp_path / f"values{suffix}"), bases["sd1"])


@often
@given(content=st.binary(max_size=200))
def test_bytes_that_are_nothing(content, bases, tmp_path):
    for suffix in (".pt", ".bin", ".safetensors", ".ckpt", ".txt"):
        path = tmp_path / f"bytes{suffix}"
        path.write_bytes(content)
        ends_well(path, bases["sd1"])


@pytest.mark.parametrize("text", ["{", "[]", '{"peft_type": "LORA"}', '{"peft_type": "IA3"}'])
def test_damaged_settings_of_peft(text, bases, tmp_path):
    base = bases["sd1"]
    folder = export_file(trained("lora", base, rank=1), "peft", tmp_path / "peft", base)
    (folder / "adapter_config.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"PEFT|cannot be read"):
        import_file(folder, base)
