"""The artifact file: what is read is what was written, and nothing else is taken for it."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from personae.artifacts.artifact import Artifact
from personae.artifacts.card import CharacterRecord, content_hash, read_card
from personae.errors import ArtifactError, PersonaeError
from personae.generation.cast import Cast
from personae.models.family import Family
from tiny_world import artifact_of, bases, make, phrase, prediction, stir


@pytest.fixture
def written(sd1: Family, tmp_path: Path) -> Path:
    technique = stir(make("lora", sd1, rank=2, targets="cross_attention"))
    return artifact_of(technique, sd1).save(tmp_path / "mira.lora.safetensors")


def rewrite(path: Path, tensors: dict[str, torch.Tensor] | None = None, **card: Any) -> None:
    """Write the file again with other tensors or other fields of its card, and the hash of it."""
    with safe_open(path, "pt") as file:
        values = json.loads(file.metadata()["personae"])
    kept = tensors or load_file(path)
    text = json.dumps({**values, **card})
    seal = hashlib.sha256(text.encode()).hexdigest()
    save_file(kept, path, {"personae": text, "personae_sha256": seal})


def refusal(path: Path) -> str:
    with pytest.raises(ArtifactError) as error:
        Artifact.load(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
    return str(error.value)


def test_what_is_read_is_what_was_written(sd1: Family, tmp_path: Path) -> None:
    made = [stir(make("textual_inversion", sd1)), stir(make("lora", sd1, rank=2))]
    artifact = artifact_of(made, sd1)
    loaded = Artifact.load(artifact.save(tmp_path / "mira.safetensors"))
    assert loaded.card == artifact.card
    assert loaded.technique == "textual_inversion+lora"
    assert loaded.tensors.keys() == artifact.tensors.keys()
    for name, tensor in artifact.tensors.items():
        assert torch.equal(loaded.tensors[name], tensor)
    assert read_card(tmp_path / "mira.safetensors") == artifact.card


def test_techniques_trained_together_are_restored_together(sd1: Family, tmp_path: Path) -> None:
    made = [stir(make("textual_inversion", sd1)), stir(make("lora", sd1))]
    prompts = [f"a {phrase(made[0])}", "the man"]
    for technique in made:
        technique.round_as_stored()
        technique.inject()
    wanted = prediction(sd1, prompts)
    path = artifact_of(made, sd1).save(tmp_path / "mira.safetensors")
    for technique in made:
        technique.eject()
    rebuilt = [technique.inject() for technique in Artifact.load(path).build(sd1)]
    try:
        assert torch.equal(prediction(sd1, prompts), wanted)
    finally:
        for technique in rebuilt:
            technique.eject()


def test_a_file_is_called_after_character_and_techniques(sd1: Family) -> None:
    artifact = artifact_of(make("lora", sd1, rank=2), sd1)
    assert artifact.file_name("mira") == "mira.lora.safetensors"
    assert "/" not in artifact.file_name("../mira")


def test_tensors_are_named_by_technique_and_layer(sd1: Family) -> None:
    names = {
        "lora": "lora.updates.denoiser.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.up",
        "hypernetwork": "hypernetwork.networks.24.k.0.weight",
        "textual_inversion": "textual_inversion.vectors.0",
        "dreambooth": "dreambooth.deltas.denoiser.conv_in.weight",
    }
    for name, tensor in names.items():
        assert tensor in artifact_of(make(name, sd1), sd1).tensors


def test_the_hash_covers_names_shapes_formats_and_bytes() -> None:
    plain = {"a": torch.zeros(2, 3), "b": torch.ones(2)}
    others = [
        {"a": torch.zeros(2, 3), "c": torch.ones(2)},
        {"a": torch.zeros(3, 2), "b": torch.ones(2)},
        {"a": torch.zeros(2, 3).half(), "b": torch.ones(2)},
        {"a": torch.zeros(2, 3), "b": torch.tensor([1.0, 1.0000001])},
    ]
    hashes = {content_hash(tensors) for tensors in [plain, *others]}
    assert len(hashes) == 5
    assert content_hash(dict(reversed(plain.items()))) == content_hash(plain)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "mira.safetensors")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
def test_a_truncated_file_is_refused(written: Path, share: float) -> None:
    data = written.read_bytes()
    written.write_bytes(data[: int(len(data) * share)])
    assert "is no whole safetensors file" in refusal(written)


def test_a_tampered_file_is_refused(written: Path) -> None:
    data = bytearray(written.read_bytes())
    data[-3] ^= 0x10
    written.write_bytes(data)
    assert "sha256 differs" in refusal(written)


def test_a_file_with_another_tensor_in_it_is_refused(written: Path) -> None:
    rewrite(written, load_file(written) | {"lora.extra": torch.zeros(1)})
    assert "sha256 differs" in refusal(written)


def edit_card(path: Path, before: str, after: str) -> None:
    """Change the text of the card and nothing else, as with an editor."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    assert before in metadata["personae"]
    metadata["personae"] = metadata["personae"].replace(before, after)
    save_file(load_file(path), path, metadata)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"alpha":null', '"alpha":64'),
        ('"phrase":"mira cat"', '"phrase":"cat"'),
        ('"rank_stabilised":false', '"rank_stabilised":true'),
        ('"name":"mira"', '"name":"mara"'),
        ('"format_version":2', '"format_version":1'),
    ],
)
def test_an_edited_card_is_refused(written: Path, before: str, after: str) -> None:
    edit_card(written, before, after)
    assert "its card is not the one it was saved with (sha256 differs)" in refusal(written)
    with pytest.raises(ArtifactError, match="sha256 differs"):
        read_card(written)


def test_a_card_without_its_hash_is_refused(written: Path) -> None:
    with safe_open(written, "pt") as file:
        card = file.metadata()["personae"]
    save_file(load_file(written), written, {"personae": card})
    assert "sha256 differs" in refusal(written)


def test_a_file_of_the_format_without_that_hash_still_opens(written: Path, tmp_path: Path) -> None:
    card = Artifact.load(written).card.model_copy(update={"format_version": 1})
    assert read_card(written).sealed
    save_file(load_file(written), written, {"personae": card.model_dump_json()})
    old = Artifact.load(written)
    assert not old.card.sealed
    assert read_card(old.save(tmp_path / "new.safetensors")).sealed


def test_a_technique_listed_twice_is_refused(written: Path) -> None:
    record = Artifact.load(written).card.techniques[0].model_dump()
    rewrite(written, techniques=[record, record])
    assert "a technique is listed twice" in refusal(written)


def test_what_decides_a_picture_has_a_hash_that_times_and_names_do_not_change(
    written: Path,
) -> None:
    card = Artifact.load(written).card
    renamed = card.model_copy(update={"notes": {"a": "b"}, "metrics": {"likeness": 0.5}})
    assert renamed.drawing_hash == card.drawing_hash
    other = card.character.model_copy(update={"phrase": "cat"})
    assert card.model_copy(update={"character": other}).drawing_hash != card.drawing_hash


def test_a_file_of_a_newer_format_asks_for_an_update(written: Path) -> None:
    rewrite(written, format_version=3, something_new=True)
    assert "has format version 3, this personae reads up to 2; update personae" in refusal(written)


def test_a_file_of_another_program_is_pointed_to_import(tmp_path: Path) -> None:
    path = tmp_path / "kohya.safetensors"
    save_file({"lora_unet_x.lora_down.weight": torch.zeros(2, 2)}, path)
    assert "was not made by personae; bring it in with `personae import`" in refusal(path)


@pytest.mark.parametrize("card", ["", "{", "[]", "3", "null", '{"format_version": "2"}', "{}"])
def test_a_damaged_card_is_refused(tmp_path: Path, card: str) -> None:
    path = tmp_path / "mira.safetensors"
    save_file({"lora.x": torch.zeros(1)}, path, {"personae": card})
    assert "its card is damaged" in refusal(path)


def test_a_card_with_an_unknown_key_is_refused_by_the_key(written: Path) -> None:
    rewrite(written, training={"stepz": 3})
    assert "its card is damaged (unknown key 'training.stepz'. Did you mean" in refusal(written)


def test_a_file_of_another_kind_is_pointed_to_import(tmp_path: Path) -> None:
    path = tmp_path / "mira.pt"
    torch.save({"x": torch.zeros(1)}, path)
    assert "is no .safetensors file" in refusal(path)


def test_a_misfit_in_a_cast_is_told_with_its_file(written: Path) -> None:
    cast = Cast.load({"mira": written})
    with pytest.raises(ArtifactError) as error, cast.on(bases()["tiny-sd2"]):
        pytest.fail("the cast was let in")
    assert str(error.value).startswith(f"{written}: this lora of 'mira' was made for")


def test_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return (Path.touch, (tmp_path / "trace",))

    path = tmp_path / "mira.safetensors"
    path.write_bytes(pickle.dumps(Payload()))
    refusal(path)
    assert not (tmp_path / "trace").exists()


def test_an_artifact_of_another_base_is_refused_with_both_names(written: Path) -> None:
    with pytest.raises(ArtifactError) as error:
        Artifact.load(written).build(bases()["tiny-sd2"])
    words = str(error.value)
    assert "\n" not in words
    assert "lora of 'mira' was made for base 'tiny-sd1'" in words
    assert "the loaded base is 'tiny-sd2'" in words
    assert "load that base, or train anew" in words


def test_a_base_of_the_same_shape_but_other_weights_is_refused(written: Path) -> None:
    other = type(bases()["tiny-sd1"]).tiny(seed=1)[0]
    with pytest.raises(ArtifactError, match="was made for base 'tiny-sd1'"):
        Artifact.load(written).build(other)


def edited(path: Path, tensors: dict[str, torch.Tensor], **card: Any) -> Artifact:
    rewrite(path, tensors, content_hash=content_hash(tensors), **card)
    return Artifact.load(path)


def test_settings_beyond_the_tensors_are_refused_before_anything_is_made(
    written: Path, sd1: Family
) -> None:
    tensors = load_file(written)
    for name, config in (
        ("lora", {"rank": 16384, "targets": "cross_attention"}),
        ("hypernetwork", {"layer_structure": [1] * 100_000}),
    ):
        card = edited(written, tensors, techniques=[{"name": name, "config": config}])
        with pytest.raises(ArtifactError) as error:
            card.build(sd1)
        assert "edited" in str(error.value)
        assert "\n" not in str(error.value)


def test_tensors_that_do_not_fit_the_settings_are_refused(written: Path, sd1: Family) -> None:
    tensors = load_file(written)
    name = sorted(tensors)[0]
    missing = {key: value for key, value in tensors.items() if key != name}
    with pytest.raises(ArtifactError, match=f"tensor '{name}' is missing for these lora settings"):
        edited(written, missing).build(sd1)
    with pytest.raises(ArtifactError, match=r"tensor 'lora\.extra' is unexpected"):
        edited(written, tensors | {"lora.extra": torch.zeros(1)}).build(sd1)
    with pytest.raises(ArtifactError, match=rf"'{name}' has shape .*; expected \(2, 24\)"):
        edited(written, tensors | {name: tensors[name][:1].contiguous()}).build(sd1)


def test_tensors_of_no_technique_on_the_card_are_refused(written: Path, sd1: Family) -> None:
    tensors = load_file(written) | {"dreambooth.deltas.x": torch.zeros(1)}
    with pytest.raises(ArtifactError, match=r"'dreambooth\.deltas\.x' is unexpected"):
        edited(written, tensors).build(sd1)


def test_an_unknown_technique_or_setting_on_the_card_is_refused(written: Path, sd1: Family) -> None:
    tensors = load_file(written)
    techniques = [{"name": "lorra", "config": {}}]
    with pytest.raises(ArtifactError, match=r"'lorra' is not one of .*Did you mean 'lora'"):
        edited(written, tensors, techniques=techniques).build(sd1)
    techniques = [{"name": "lora", "config": {"rang": 2}}]
    with pytest.raises(ArtifactError, match=r"card of lora: unknown key 'rang'.*update personae"):
        edited(written, tensors, techniques=techniques).build(sd1)


def test_values_that_are_not_finite_are_never_written(sd1: Family, tmp_path: Path) -> None:
    technique = make("lora", sd1, rank=2)
    with torch.no_grad():
        next(technique.parameters())[0, 0] = float("inf")
    path = tmp_path / "mira.safetensors"
    with pytest.raises(ArtifactError, match="is not finite; the training broke"):
        artifact_of(technique, sd1).save(path)
    assert not path.exists()


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda t: t.fill_(float("nan")), "is not finite"),
        (lambda t: t.fill_(float("-inf")), "is not finite"),
        (lambda t: t.long(), "holds int64; expected floating values"),
        (lambda t: t.bool(), "holds bool; expected floating values"),
        (lambda t: t.to(torch.complex64), "holds complex64; expected floating values"),
        (lambda t: t.to(torch.float8_e4m3fn), "holds float8_e4m3fn; expected floating values of"),
    ],
)
def test_what_is_never_written_is_never_read(
    written: Path, spoil: Callable[[torch.Tensor], torch.Tensor], told: str
) -> None:
    tensors = load_file(written)
    name = next(iter(tensors))
    tensors[name] = spoil(tensors[name])
    rewrite(written, tensors, content_hash=content_hash(tensors))
    assert f"tensor '{name}' {told}" in refusal(written)


@pytest.mark.parametrize("alpha", ["1e308", "Infinity", "NaN", "0", "-1"])
def test_settings_out_of_range_are_refused(written: Path, sd1: Family, alpha: str) -> None:
    rewrite(written, techniques=[{"name": "lora", "config": {"rank": 2, "alpha": float(alpha)}}])
    with pytest.raises(ArtifactError, match=r"card of lora: 'alpha' is .*; input should be"):
        Artifact.load(written).build(sd1)


def test_a_failed_save_leaves_the_earlier_file(written: Path, sd1: Family) -> None:
    before = written.read_bytes()
    blocked = written / "below-a-file" / "x.safetensors"
    with pytest.raises(PersonaeError, match="cannot be written"):
        artifact_of(make("lora", sd1), sd1).save(blocked)
    assert written.read_bytes() == before


def test_a_card_says_what_it_is_without_reading_tensors(written: Path) -> None:
    card = read_card(written)
    assert [record.name for record in card.techniques] == ["lora"]
    assert card.techniques[0].config["rank"] == 2
    assert card.character == CharacterRecord(name="mira", class_noun="cat", phrase="mira cat")
