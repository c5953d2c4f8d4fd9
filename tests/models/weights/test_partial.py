"""What a base lacks is named before anything runs, and halves are as good as wholes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from personae.errors import BaseError
from personae.formats.format import export_file
from personae.generation.generate import draw
from personae.generation.sampler import Shot
from personae.generation.settings import Sampling
from personae.models.load import load_base
from personae.models.toys import tiny_stable_diffusion
from tiny_world import artifact_of, make, stir

PARTS = ("model.diffusion_model.", "cond_stage_model.", "first_stage_model.")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bases") / "tiny"
    tiny_stable_diffusion(1).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def single(folder: Path) -> Path:
    base = load_base(folder, device="cpu", precision="fp32")
    artifact = artifact_of(stir(make("dreambooth", base)), base)
    return export_file(artifact, "checkpoint_fp32", folder.with_name("whole"), base)


def without(single: Path, folder: Path, names: tuple[str, ...]) -> Path:
    tensors = {n: v for n, v in load_file(single).items() if not n.startswith(names)}
    path = folder.with_name("tiny.safetensors")  # its configuration is the folder of that name
    save_file(tensors, path)
    return path


def test_a_whole_file_loads(single: Path, folder: Path) -> None:
    assert load_base(without(single, folder, ("nothing",)), device="cpu", precision="fp32")


@pytest.mark.parametrize(
    ("part", "said"), zip(PARTS[1:], ("text encoder", "autoencoder"), strict=True)
)
def test_a_part_that_is_missing_is_named(part: str, said: str, single: Path, folder: Path) -> None:
    with pytest.raises(BaseError, match=rf"holds no {said} \({part}\*\)"):
        load_base(without(single, folder, (part,)), device="cpu", precision="fp32")


@pytest.mark.parametrize("part", PARTS)
def test_one_weight_that_is_missing_is_refused_in_a_line(
    part: str, single: Path, folder: Path
) -> None:
    names = [n for n in load_file(single) if n.startswith(part) and n.endswith("weight")]
    with pytest.raises(BaseError, match="is not whole") as caught:
        load_base(without(single, folder, (names[len(names) // 2],)), device="cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("unloaded", [False, True])
def test_a_folder_of_fp16_variants_alone_loads(
    unloaded: bool, folder: Path, tmp_path: Path
) -> None:
    tiny_stable_diffusion(1).to(torch.float16).save_pretrained(tmp_path / "half", variant="fp16")
    assert list((tmp_path / "half").glob("*/*.fp16.safetensors"))
    base = load_base(tmp_path / "half", device="cpu", denoiser_unloaded=unloaded)
    assert base.fingerprint != ""
    assert draw(base, [Shot("the can")], Sampling(steps=1))


def test_weights_that_are_not_finite_draw_no_black_picture(folder: Path) -> None:
    base = load_base(folder, device="cpu", precision="fp32")
    next(base.denoiser.parameters()).data.fill_(float("nan"))
    with pytest.raises(BaseError, match="drew values that are not finite"):
        draw(base, [Shot("the can")], Sampling(steps=1))
