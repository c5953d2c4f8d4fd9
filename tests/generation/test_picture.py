"""Pictures keep their recipe, and only pictures of ours have one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from personae.errors import UsageError
from personae.generation.picture import CHUNK, Picture
from personae.generation.recipe import MemberRecord, Recipe, RecipeRow
from personae.generation.settings import Sampling

RECIPE = Recipe(
    version="0.1.0",
    base="toon",
    fingerprint="0123456789abcdef",
    precision="float32",
    cast={
        "mira": MemberRecord(file="mira.safetensors", content_hash="ab" * 32, strength="0:1,1:0")
    },
    sampling=Sampling(sampler="euler", steps=7, negative_prompt="blurré ✦"),
    batch=[
        RecipeRow(prompt="{mira} am Strand, größer ✦", seed=3),
        RecipeRow(prompt="the man", seed=2**31),
    ],
    row=1,
)


def painted() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 6, 3), dtype=np.uint8))


def test_a_recipe_is_kept_word_for_word_and_the_pixels_bit_for_bit(tmp_path: Path) -> None:
    path = Picture(painted(), RECIPE).save(tmp_path / "deep" / "picture.jpg")
    assert path.name == "picture.png"
    again = Picture.open(path)
    assert again.recipe == RECIPE
    assert (again.recipe.prompt, again.recipe.seed) == ("the man", 2**31)
    assert again.image.tobytes() == painted().tobytes()


def test_a_picture_without_a_recipe_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plain.png"
    painted().save(path)
    with pytest.raises(UsageError, match="holds no recipe; only PNGs drawn by personae"):
        Picture.open(path)


@pytest.mark.parametrize("text", ["{", "[]", '{"version": 1}', "null"])
def test_a_damaged_recipe_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    path, info = tmp_path / "picture.png", PngInfo()
    info.add_itxt(CHUNK, text)
    painted().save(path, pnginfo=info)
    with pytest.raises(UsageError, match="its recipe is damaged") as error:
        Picture.open(path)
    assert "\n" not in str(error.value)


def test_a_row_that_is_not_in_the_batch_is_refused(tmp_path: Path) -> None:
    path, info = tmp_path / "picture.png", PngInfo()
    info.add_itxt(CHUNK, RECIPE.model_copy(update={"row": 2}).model_dump_json())
    painted().save(path, pnginfo=info)
    with pytest.raises(UsageError, match="its recipe is damaged"):
        Picture.open(path)


def test_what_is_no_picture_is_refused(tmp_path: Path) -> None:
    path = Picture(painted(), RECIPE).save(tmp_path / "picture.png")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UsageError, match="is not a readable picture"):
        Picture.open(path)
    path.write_bytes(b"no picture")
    with pytest.raises(UsageError, match="is not a readable picture"):
        Picture.open(path)
    with pytest.raises(UsageError, match="no such file"):
        Picture.open(tmp_path / "missing.png")


@pytest.mark.parametrize(
    "values",
    [{"steps": 0}, {"steps": 1001}, {"guidance_scale": 0.5}, {"width": 0}, {"smapler": "ddim"}],
)
def test_sampling_out_of_range_is_refused(values: dict) -> None:
    with pytest.raises(UsageError, match="sampling: "):
        Sampling.parse(values, where="sampling")
