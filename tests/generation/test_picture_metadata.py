import random
import re
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from personae.errors import UsageError
from personae.generation.infotext import (
    SAMPLERS,
    Settings,
    from_infotext,
    from_invokeai,
    to_infotext,
    to_invokeai,
)
from personae.generation.picture import CHUNK, Picture
from personae.generation.picture_metadata import (
    A1111,
    INVOKEAI,
    new_path,
    read_recipe,
    read_settings,
    read_texts,
    save_picture,
    shot_like,
)
from personae.generation.recipe import MemberRecord, Recipe, RecipeRow
from personae.generation.sampler import Shot
from personae.generation.settings import Sampling
from personae.models.samplers import DIFFUSION_SAMPLERS, FLOW_SAMPLERS

# The pairs of the last line, as A1111's documentation of its text describes them.
PAIRS = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')


def picture(
    prompt: str = "{mira} on a beach, sunny", negative: str = "rain: heavy, dark"
) -> Picture:
    recipe = Recipe(
        version="0.1.0",
        base="toon",
        fingerprint="0123456789abcdef",
        precision="float32",
        cast={"mira": MemberRecord(file="mira.safetensors", content_hash="ab" * 32)},
        sampling=Sampling(
            sampler="dpm++2m", steps=20, guidance_scale=5.5, negative_prompt=negative
        ),
        batch=[RecipeRow(prompt=prompt, seed=7)],
    )
    return Picture(Image.new("RGB", (64, 48), (200, 30, 30)), recipe)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
@pytest.mark.parametrize("prompt", ["{mira} on a beach", "花の中の{mira}, Ünïcode 🙂", "a\nb"])
def test_every_reader_finds_its_own_text_in_every_kind_of_file(suffix, prompt, tmp_path):
    path = save_picture(picture(prompt), tmp_path / f"mira{suffix}")
    texts = read_texts(path)
    for found in (
        from_infotext(texts[A1111]),
        from_invokeai(texts[INVOKEAI]),
        read_settings(path),
    ):
        assert found.prompt == prompt
        assert found.negative_prompt == "rain: heavy, dark"
        assert (found.seed, found.steps, found.guidance_scale) == (7, 20, 5.5)
        assert (found.width, found.height, found.sampler) == (64, 48, "dpm++2m")
    assert Recipe.model_validate_json(texts["personae"]) == picture(prompt).recipe


def test_a_png_still_holds_the_recipe_that_draws_it_again(tmp_path):
    path = save_picture(picture(), tmp_path / "mira.png")
    opened = Picture.open(path)
    assert opened.recipe == picture().recipe
    assert opened.image.tobytes() == picture().image.tobytes()


def test_the_text_is_what_a1111_and_comfyui_parse():
    text = to_infotext(Settings("a cat", seed=1, steps=20, sampler="dpm++2m", width=8, height=8))
    lines = text.split("\n")
    assert lines[1] == "Negative prompt: "  # ComfyUI needs it, and `\nSteps:` after it
    assert lines[2].startswith("Steps: ")
    assert dict(PAIRS.findall(lines[2])) == {
        "Steps": "20", "Sampler": "DPM++ 2M", "Seed": "1", "Size": "8x8"
    }  # fmt: skip


def test_text_written_by_a1111_is_read():
    text = (
        "a <lora:mira:0.8> cat,\nsecond line\nNegative prompt: bad, worse\n"
        "Steps: 30, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 123, "
        'Size: 512x768, Model hash: 0123456789, Model: v1-5, Lora hashes: "mira: 0123456789ab", '
        "Version: v1.9.4"
    )
    found = from_infotext(text)
    assert found.prompt == "a <lora:mira:0.8> cat,\nsecond line"
    assert found.negative_prompt == "bad, worse"
    assert (found.width, found.height, found.model) == (512, 768, "v1-5")
    assert found.sampler == found.sampling()["sampler"] == "dpm++2m_karras"
    assert found.extra["Lora hashes"] == "mira: 0123456789ab"
    assert Sampling.parse(found.sampling()).steps == 30


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("Euler a", "euler_a"),
        ("DPM++ 2M", "dpm++2m"),
        ("DPM++ 2M Karras", "dpm++2m_karras"),
        ("DPM++ 2M SDE", "dpm++2m_sde"),
        ("DPM++ 2M SDE, Schedule type: Karras", "dpm++2m_sde_karras"),
        ("DPM++ 2M SDE Karras, Schedule type: Karras", "dpm++2m_sde_karras"),
        ("Euler a, Schedule type: Automatic", "euler_a"),
    ],
)
def test_samplers_of_a1111_are_drawn_with_ours(theirs, ours):
    text = f"a cat\nSteps: 30, Sampler: {theirs}, CFG scale: 7, Seed: 1, Size: 64x64"
    assert from_infotext(text).sampling()["sampler"] == ours


@pytest.mark.parametrize("theirs", ["DPM++ SDE", "Heun", "Euler a, Schedule type: Karras"])
def test_a_sampler_that_is_not_ours_is_kept_by_its_name_and_not_drawn_with(theirs):
    found = from_infotext(f"a cat\nSteps: 30, Sampler: {theirs}, CFG scale: 7, Seed: 1")
    assert found.sampler == theirs.replace(", Schedule type:", "")
    assert "sampler" not in found.sampling()


@pytest.mark.parametrize("sampler", sorted({*DIFFUSION_SAMPLERS, *FLOW_SAMPLERS}))
def test_every_sampler_has_a_name_in_other_tools_and_is_read_back(sampler):
    written = Settings("a cat", seed=1, steps=20, sampler=sampler, width=8, height=8)
    assert sampler in SAMPLERS
    assert from_infotext(to_infotext(written)) == written
    assert from_invokeai(to_invokeai(written)) == written


def test_invokeai_model_names_are_read():
    text = '{"positive_prompt": "a", "seed": 4, "scheduler": "euler", "model": {"name": "m"}}'
    found = from_invokeai(text)
    assert (found.seed, found.sampler, found.model) == (4, "euler", "m")


printable = st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=60)


@settings(max_examples=60, deadline=None)
@given(prompt=printable, negative=printable, seed=st.integers(0, 2**63))
def test_what_is_written_is_read_back_whatever_the_words(prompt, negative, seed):
    prompt, negative = " ".join(prompt.split()), " ".join(negative.split())
    written = Settings(
        prompt=prompt.replace("Negative prompt:", ""),
        negative_prompt=negative,
        seed=seed,
        steps=3,
        guidance_scale=2.0,
        width=8,
        height=16,
        sampler="ddim",
    )
    assert from_infotext(to_infotext(written)) == written
    assert from_invokeai(to_invokeai(written)) == written


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=300))
def test_no_text_breaks_the_readers(text):
    for reader in (from_infotext, from_invokeai):
        found = reader(text)
        assert found is None or isinstance(found.prompt, str)


def test_pictures_without_settings_and_files_that_are_none_are_refused(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "bare.png")
    with pytest.raises(UsageError, match="holds no settings"):
        read_settings(tmp_path / "bare.png")
    info = PngInfo()
    info.add_text("parameters", "just words")
    info.add_text("personae", "{broken")
    Image.new("RGB", (8, 8)).save(tmp_path / "odd.png", pnginfo=info)
    with pytest.raises(UsageError, match="holds no settings"):
        read_settings(tmp_path / "odd.png")
    (tmp_path / "text.png").write_bytes(b"no picture")
    with pytest.raises(UsageError, match="not a readable picture"):
        read_settings(tmp_path / "text.png")
    with pytest.raises(UsageError, match="no such file"):
        read_settings(tmp_path / "absent.png")
    with pytest.raises(UsageError, match=r"\.webp"):
        save_picture(picture(), tmp_path / "mira.gif")


def long_batch(rows: int, words: Callable[[int], str]) -> Picture:
    one = picture()
    batch = [RecipeRow(prompt=words(row), seed=row) for row in range(rows)]
    return Picture(one.image, one.recipe.model_copy(update={"batch": batch}))


def test_a_jpeg_holds_the_recipe_of_a_batch_of_long_prompts(tmp_path):
    wanted = long_batch(24, lambda row: f"{{mira}} {row} " + "by the sea, ä" * 125)
    path = save_picture(wanted, tmp_path / "a.jpg")
    assert read_recipe(path) == wanted.recipe
    assert read_settings(path).prompt == wanted.recipe.prompt


def test_a_picture_is_written_though_its_recipe_has_no_room(tmp_path, caplog):
    noise = random.Random(0)
    wanted = long_batch(60, lambda row: "".join(chr(noise.randrange(33, 900)) for _ in range(1600)))
    path = save_picture(wanted, tmp_path / "a.jpg")
    assert "its recipe is too long for a JPEG" in caplog.text
    assert read_recipe(path) is None
    assert read_settings(path).prompt == wanted.recipe.prompt


def test_braces_of_another_tool_are_braces_and_those_of_ours_are_members(tmp_path):
    theirs = from_infotext("{a|b} girl\nNegative prompt: {x}\nSteps: 2, Sampler: Euler, Seed: 1")
    assert theirs.as_prompt == "{{a|b}} girl"
    assert theirs.sampling()["negative_prompt"] == "{{x}}"
    path = save_picture(picture("{mira} at sea", "{mira}"), tmp_path / "a.png")
    ours = from_infotext(read_texts(path)[A1111])
    assert ours.as_prompt == "{mira} at sea"
    assert ours.sampling()["negative_prompt"] == "{mira}"


def test_a_picture_of_another_tool_gives_a_shot_and_how_it_was_sampled(tmp_path):
    said = PngInfo()
    said.add_text(A1111, "a {x} girl\nNegative prompt: rain\nSteps: 2, Sampler: Euler, Seed: 77")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", pnginfo=said)
    shot, sampling = shot_like(tmp_path / "a.png")
    assert shot == Shot("a {{x}} girl", 77)
    assert sampling == {"steps": 2, "sampler": "euler", "negative_prompt": "rain"}


def test_a_new_picture_is_called_after_its_prompt_and_seed(tmp_path):
    recipe = picture("{mira} on a beach, sunny").recipe
    first = new_path(recipe, tmp_path)
    assert first == tmp_path / "mira-on-a-beach-sunny-7.png"
    first.touch()
    assert new_path(recipe, tmp_path).name == "mira-on-a-beach-sunny-7-2.png"
    assert new_path(picture("!?").recipe, tmp_path, ".webp").name == "picture-7.webp"


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"batch": "' + "x" * 5000 + '"}', '{"row": 5, "batch": []}', "nonsense"],
)
def test_a_damaged_recipe_is_never_printed(text, tmp_path):
    info = PngInfo()
    info.add_itxt(CHUNK, text)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", pnginfo=info)
    with pytest.raises(UsageError, match="its recipe is damaged") as caught:
        read_recipe(tmp_path / "a.png")
    assert len(str(caught.value)) < 300 + len(str(tmp_path))


@pytest.mark.parametrize("text", ["a" * 60_000, "a " * 30_000, "a," + " " * 60_000 + "b"])
def test_a_long_line_is_read_in_a_time_of_its_length(text):
    """Minutes, where a name or the room before it may be as long as the line."""
    assert from_infotext(text) is None
    read = from_infotext(f"a cat\n{'a' * 200}: 1, Steps: 20, Seed: 1, Size: 64x64")
    assert max(map(len, read.extra)) <= 64


def test_a_text_longer_than_any_is_no_settings():
    text = "a cat\nSteps: 20, Sampler: Euler, Seed: 1, Size: 64x64"
    assert from_infotext(text) is not None
    assert from_infotext("a" * 2**16 + text) is None
