"""`personae export`, `import`, `merge`, `resize`, `extract`, `pack` and `unpack`."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from personae.artifacts.artifact import Artifact
from personae.cli.app import run
from personae.formats.format import formats
from personae.models.load import load_base
from tiny_world import artifact_of, make, paint, stir

Told = Callable[..., list[dict[str, Any]]]


def test_an_exported_lora_is_imported_with_the_same_values(
    artifact: Path, base_folder: Path, here: Path, told: Told
) -> None:
    (exported,) = told("export", artifact, "--to", "kohya", "--out", here / "mira.safetensors")
    assert exported["path"] == str(here / "mira.safetensors")
    assert "ComfyUI" in exported["readers"]
    (imported,) = told("import", exported["path"], "--base", base_folder, "--class-noun", "cat")
    assert imported["format"] == "kohya"
    back = Artifact.load(imported["path"])
    assert Path(imported["path"]).name == "mira.lora.safetensors"
    assert back.card.character.class_noun == "cat"
    before = Artifact.load(artifact)
    assert all(torch.equal(back.tensors[name], value) for name, value in before.tensors.items())


def test_an_export_ends_with_who_reads_it(
    artifact: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(here / "mira")
    assert run(["export", str(artifact), "--to", "diffusers_lora", "--out", out]) == 0
    *_, read_by, not_by = capsys.readouterr().out.splitlines()
    assert "read by: diffusers" in read_by
    assert "not by: A1111" in not_by


def test_formats_are_listed_for_an_artifact_or_all(artifact: Path, told: Told) -> None:
    assert {line["name"] for line in told("export")} == set(formats())
    able = {line["name"] for line in told("export", artifact)}
    assert {"kohya", "checkpoint"} <= able
    assert not able & {"hypernetwork", "original_lora"}


def test_nothing_is_overwritten(artifact: Path, here: Path, refused: Callable[..., str]) -> None:
    (here / "mira.safetensors").write_text("mine")
    line = refused("export", artifact, "--to", "kohya", "--out", here / "mira.safetensors")
    assert "is there already" in line
    assert (here / "mira.safetensors").read_text() == "mine"


def test_wrong_names_and_files_are_refused(
    artifact: Path, here: Path, refused: Callable[..., str]
) -> None:
    assert "Did you mean 'kohya'" in refused("export", artifact, "--to", "kohyo")
    assert "cannot carry lora" in refused("export", artifact, "--to", "embedding")
    (here / "odd.safetensors").write_text("odd")
    assert "no whole safetensors" in refused("import", here / "odd.safetensors", code=1)
    assert "--weights" in refused("merge", artifact, artifact, "--weights", "1,x")
    assert "--rank" in refused("resize", artifact)
    assert "no such file" in refused("unpack", here / "absent.persona")


def test_loras_are_merged_and_resized(artifact: Path, here: Path, told: Told) -> None:
    (merged,) = told("merge", artifact, artifact, "--weights", "0.5,0.5")
    assert Artifact.load(merged["path"]).card.techniques[0].config["rank"] == 4
    (resized,) = told("resize", merged["path"], "--rank", 2)
    assert Artifact.load(resized["path"]).card.techniques[0].config["rank"] == 2
    assert float(resized["card"]["notes"]["kept energy"]) > 0.99


def test_a_lora_is_extracted_from_dreambooth(base_folder: Path, here: Path, told: Told) -> None:
    base = load_base(base_folder, device="cpu", precision="fp32")
    tuned = artifact_of(stir(make("dreambooth", base)), base).save(here / "tuned.safetensors")
    (extracted,) = told("extract", tuned, "--rank", 4)
    assert Artifact.load(extracted["path"]).technique == "lora"
    assert 0 < float(extracted["card"]["notes"]["kept energy"]) < 1


def test_a_character_is_packed_and_unpacked(artifact: Path, here: Path, told: Told) -> None:
    pictures = paint(here / "mira")
    (packed,) = told(
        "pack", here / "mira.persona", "--cast", f"mira={artifact}", "--strength", "mira=0.7",
        "--character", pictures, "--licence", "CC0",
    )  # fmt: skip
    (unpacked,) = told("unpack", packed["path"], "--out", here / "out")
    assert unpacked["manifest"]["licence"] == "CC0"
    (member,) = unpacked["manifest"]["artifacts"]
    assert member["strength"] == "0.7"
    assert Artifact.load(here / "out" / member["file"]).technique == "lora"


def test_words_and_a_picture_lie_beside_an_exported_lora(
    artifact: Path, here: Path, told: Told, refused: Callable[..., str]
) -> None:
    Image.new("RGB", (900, 300), (9, 9, 9)).save(here / "shown.jpg")
    out = here / "mira.safetensors"
    told("export", artifact, "--to", "kohya", "--out", out, "--preview", here / "shown.jpg")
    words = json.loads((here / "mira.json").read_text())
    assert words["activation text"] == Artifact.load(artifact).card.character.phrase
    assert (words["sd version"], words["preferred weight"]) == ("SD1", 1.0)
    with Image.open(here / "mira.preview.png") as picture:
        assert (picture.format, picture.size) == ("PNG", (512, 171))
    again = here / "mira"
    out.unlink()
    assert "mira.json: is there already" in refused(
        "export", artifact, "--to", "kohya", "--out", again
    )
    wanted = (
        "export",
        artifact,
        "--to",
        "peft",
        "--out",
        here / "p",
        "--preview",
        here / "shown.jpg",
    )
    assert "no place for a preview" in refused(*wanted)
    wanted = (
        "export",
        artifact,
        "--to",
        "kohya",
        "--out",
        here / "q",
        "--preview",
        here / "no.png",
    )
    assert "no such file" in refused(*wanted)
    assert not (here / "q.safetensors").exists()


class Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("ran",))


def bad_files(folder: Path, good: Path) -> dict[str, str]:
    """Write what nobody should be able to import; {file name: reason}."""
    torch.save({"string_to_param": {"*": Code()}}, folder / "code.pt")
    with zipfile.ZipFile(folder / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10_000_000))
    with zipfile.ZipFile(folder / "out.pt", "w") as archive:
        archive.writestr("../evil.pkl", b"x")
    layer = "lora_unet_mid_block_attentions_0_proj_in"
    parts = {"lora_down.weight": torch.ones(1, 5), "lora_up.weight": torch.ones(48, 1)}
    odd = {
        "shape": {f"{layer}.{name}": value for name, value in parts.items()},
        "nan": {f"{layer}.diff": torch.full((48, 48), float("nan"))},
        "half": {f"{layer}.lora_up.weight": torch.ones(48, 1)},
        "family": {"lora_unet_input_blocks_4_1_proj_in.alpha": torch.ones(())},
    }
    for name, tensors in odd.items():
        save_file(tensors, folder / f"{name}.safetensors")
    (folder / "cut.safetensors").write_bytes(good.read_bytes()[:-40])
    (folder / "suffix.xyz").write_bytes(good.read_bytes())
    return {
        "code.pt": "could run code",
        "bomb.pt": "compressed",
        "out.pt": "outside the archive",
        "shape.safetensors": "do not fit",
        "nan.safetensors": "not finite",
        "half.safetensors": "do not fit",
        "family.safetensors": "no layer of base",
        "cut.safetensors": "no whole safetensors",
        "suffix.xyz": "none of the formats",
    }


def test_bad_files_are_refused_in_one_line_and_nothing_is_written(
    artifact: Path, base_folder: Path, here: Path, told: Told, refused: Callable[..., str]
) -> None:
    (exported,) = told("export", artifact, "--to", "kohya", "--out", here / "good.safetensors")
    reasons = bad_files(here, Path(exported["path"]))
    before = sorted(here.rglob("*"))
    for name, reason in reasons.items():
        line = refused("import", here / name, "--base", base_folder, code=1)
        assert name in line
        assert reason in line
    assert sorted(here.rglob("*")) == before
