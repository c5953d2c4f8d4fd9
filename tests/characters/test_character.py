"""Opening a character: the split, the fingerprint, the captions, and everything that is refused."""

import os
import random
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from personae.characters import captions
from personae.characters.character import UNKNOWN_CLASS, Character
from personae.characters.image_files import BACKDROP, MAX_PIXELS, load_picture
from personae.characters.reference import Reference
from personae.characters.scaffold import init_character
from personae.errors import CharacterError, UsageError


def painting(seed: int, size: tuple[int, int] = (48, 40)) -> Image.Image:
    cells = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(cells).resize(size, Image.Resampling.NEAREST)


def folder_of(path: Path, count: int, captions: bool = True) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        painting(number).save(path / f"{number:02}.png")
        if captions:
            (path / f"{number:02}.txt").write_text(f"a girl in place {number}", encoding="utf-8")
    return path


# The split


@pytest.mark.parametrize(
    ("count", "held"), [(1, 0), (4, 0), (5, 1), (7, 1), (8, 2), (10, 2), (20, 4)]
)
def test_a_fifth_is_held_out_from_five_pictures_on(tmp_path: Path, count: int, held: int) -> None:
    character = Character.open(folder_of(tmp_path / "mira", count))
    assert (len(character.references), len(character.held_out)) == (count - held, held)
    assert not {r.path for r in character.references} & {r.path for r in character.held_out}


def test_the_split_depends_on_the_pictures_and_not_on_their_names(tmp_path: Path) -> None:
    first = Character.open(folder_of(tmp_path / "a", 10))
    names = [f"{n:02}.png" for n in range(10)]
    shuffled = random.Random(1).sample(names, 10)
    (tmp_path / "b").mkdir()
    for old, new in zip(names, shuffled, strict=True):
        shutil.copy(tmp_path / "a" / old, tmp_path / "b" / new)
    second = Character.open(tmp_path / "b")
    assert {r.path.read_bytes() for r in first.held_out} == {
        r.path.read_bytes() for r in second.held_out
    }


def test_a_picture_with_a_twin_is_not_held_out(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "mira", 8)
    for held in Character.open(folder).held_out:
        held.image().resize((96, 80)).save(folder / f"twin of {held.path.stem}.png")
    again = Character.open(folder)
    twins = {path.name[-6:] for path in folder.glob("twin*")}
    assert again.held_out
    assert not {r.path.name[-6:] for r in again.held_out} & twins


def test_the_share_held_out_can_be_chosen_within_bounds(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "mira", 4)
    assert len(Character.open(folder, hold_out=0.5).held_out) == 2
    assert len(Character.open(folder, hold_out=0.01).held_out) == 1
    assert Character.open(folder_of(tmp_path / "ten", 10), hold_out=0).held_out == ()
    with pytest.raises(UsageError, match=r"hold_out is 0.9; it must be in \[0, 0.5\]"):
        Character.open(folder, hold_out=0.9)


def test_held_out_pictures_can_be_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "mira", 4)
    (folder / "character.toml").write_text('held_out = ["02.png"]')
    assert [r.path.name for r in Character.open(folder).held_out] == ["02.png"]
    (folder / "character.toml").write_text('held_out = ["2.png"]')
    with pytest.raises(CharacterError, match=r"'2.png'.*no picture.*Did you mean '02.png'"):
        Character.open(folder)
    (folder / "character.toml").write_text('held_out = ["00.png", "01.png", "02.png", "03.png"]')
    with pytest.raises(CharacterError, match="all 4 pictures are held out"):
        Character.open(folder)


# The fingerprint


def test_the_fingerprint_ignores_names_and_held_out_pictures(tmp_path: Path) -> None:
    first = Character.open(folder_of(tmp_path / "a", 6))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    for path in sorted((tmp_path / "b").iterdir()):
        path.rename(path.with_name(f"x{path.name}"))
    held = first.held_out[0].path.with_suffix(".txt").name
    (tmp_path / "b" / f"x{held}").write_text("another caption of the held-out picture")
    assert Character.open(tmp_path / "b").fingerprint == first.fingerprint


@pytest.mark.parametrize("change", ["picture", "caption", "mask", "repeats", "fewer"])
def test_the_fingerprint_changes_with_the_training_set(tmp_path: Path, change: str) -> None:
    folder = folder_of(tmp_path / "set" / "2_mira", 4)
    before = Character.open(folder.parent).fingerprint
    match change:
        case "picture":
            painting(77).save(folder / "00.png")
        case "caption":
            (folder / "00.txt").write_text("other words")
        case "mask":
            Image.new("L", (48, 40), 255).save(folder / "00_mask.png")
        case "repeats":
            folder.rename(folder.with_name("3_mira"))
        case "fewer":
            (folder / "00.png").unlink()
    assert Character.open(folder.parent).fingerprint != before


# Captions


@pytest.mark.parametrize(
    ("caption", "named"),
    [
        ("{mira} on a beach", "sks girl on a beach"),
        ("{character} and {name}", "sks girl and sks girl"),
        ("[trigger], smiling [name]", "sks girl, smiling sks girl"),
        ("Mira girl waving", "sks girl waving"),
        ("the girl mira waving", "the sks girl waving"),
        ("mira's hat", "sks girl's hat"),
        ("miracle of admira", "sks girl, miracle of admira"),
        ("the red <hero> runs", "the red sks girl runs"),
        ("on a beach", "sks girl, on a beach"),
        (None, "a picture of sks girl"),
    ],
)
def test_captions_name_the_character_by_the_phrase(caption: str | None, named: str) -> None:
    pattern = captions.mention("mira", "girl", "<hero>")
    assert captions.rename(caption, pattern, "sks girl") == named


def test_a_phrase_that_the_caption_holds_already_is_not_repeated() -> None:
    pattern = captions.mention("mira", "girl", None)
    assert captions.rename("a girl on a beach", pattern, "girl") == "a girl on a beach"
    assert captions.rename("girlish", pattern, "girl") == "girl, girlish"


def test_a_phrase_is_put_in_as_it_is() -> None:
    pattern = captions.mention("mira", None, None)
    assert captions.rename("mira runs", pattern, r"\1 <m> \g<0>") == r"\1 <m> \g<0> runs"


def test_captions_follow_the_references(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "mira", 2)
    (folder / "01.txt").unlink()
    character = Character.open(folder)
    assert character.captions("<m>") == ("<m>, a girl in place 0", "a picture of <m>")
    assert character.caption(character.references[1], "<n>") == "a picture of <n>"


def test_txt_goes_before_caption_and_a_byte_order_mark_is_dropped(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "mira", 1)
    (folder / "00.caption").write_text("the other")
    (folder / "00.txt").write_text("the one é", encoding="utf-8-sig")
    assert Character.open(folder).references[0].caption == "the one é"


# character.toml


def test_the_file_goes_before_what_the_folder_says(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "3 Mira-Lou", 2)
    assert Character.open(folder).name == "mira_lou"
    assert Character.open(folder).class_noun == UNKNOWN_CLASS
    (folder / "character.toml").write_text(
        'name = "juno"\nclass_noun = "robot"\nphrase = "zwx robot"\n'
        'asymmetric = true\nlicence = "CC0"\n'
    )
    character = Character.open(folder)
    assert (character.name, character.class_noun, character.phrase) == (
        "juno",
        "robot",
        "zwx robot",
    )
    assert (character.asymmetric, character.licence) == (True, "CC0")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('clas_noun = "girl"', "unknown key 'clas_noun'. Did you mean 'class_noun'"),
        ("flip = true", "unknown key 'flip'"),
        ('name = "two words"', "'name' is 'two words'.*one word"),
        ("asymmetric = 'perhaps'", "'asymmetric' is 'perhaps'"),
        ("name = ", "is not valid TOML"),
    ],
)
def test_a_wrong_character_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    folder = folder_of(tmp_path / "mira", 1)
    (folder / "character.toml").write_text(text)
    with pytest.raises(CharacterError, match=message) as caught:
        Character.open(folder)
    assert "character.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_init_writes_a_file_that_opens_to_the_same_character(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "Mira", 4)
    path = init_character(folder)
    assert path == folder / "character.toml"
    character = Character.open(folder)
    assert (character.name, character.class_noun) == ("mira", "girl")
    with pytest.raises(CharacterError, match="exists already"):
        init_character(folder)
    init_character(folder, "juno", "robot", force=True)
    assert Character.open(folder).name == "juno"
    assert Character.open(folder).class_noun == "robot"


def test_init_leaves_an_unclear_class_noun_to_be_filled_in(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "mira", 4, captions=False)
    (folder / "00.txt").write_text("a girl with a cat")
    (folder / "01.txt").write_text("a cat with a girl")
    assert "# class_noun" in init_character(folder).read_text()
    with pytest.raises(UsageError, match="name is 'two words'"):
        init_character(folder, "two words", force=True)


def test_init_takes_the_words_of_token_folders(tmp_path: Path) -> None:
    folder_of(tmp_path / "set" / "4_mira girl", 2, captions=False)
    init_character(tmp_path / "set")
    character = Character.open(tmp_path / "set")
    assert (character.name, character.class_noun, character.phrase) == ("mira", "girl", "mira girl")


# Decoding


def test_a_picture_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    painting(1).save(tmp_path / "a.jpg", exif=exif, quality=100, subsampling=0)
    image = Reference(tmp_path / "a.jpg", None).image()
    assert image.size == (40, 48)
    expected = np.asarray(painting(1).rotate(-90, expand=True), dtype=int)
    assert np.abs(np.asarray(image, dtype=int) - expected).mean() < 8


def test_transparent_pixels_show_the_backdrop_and_are_the_mask(tmp_path: Path) -> None:
    picture = painting(1).convert("RGBA")
    alpha = Image.new("L", picture.size, 0)
    alpha.paste(255, (10, 10, 30, 30))
    picture.putalpha(alpha)
    picture.save(tmp_path / "a.png")
    reference = Reference(tmp_path / "a.png", None)
    assert reference.image().mode == "RGB"
    assert reference.image().getpixel((0, 0)) == BACKDROP
    assert reference.image().getpixel((20, 20)) == painting(1).getpixel((20, 20))
    assert reference.mask_image().tobytes() == alpha.tobytes()


def test_a_palette_with_a_transparent_colour_has_a_mask(tmp_path: Path) -> None:
    picture = Image.new("P", (20, 20), 1)
    picture.putpalette([255, 0, 0, 0, 0, 255])
    picture.paste(0, (0, 0, 10, 20))
    picture.save(tmp_path / "a.png", transparency=0)
    reference = Reference(tmp_path / "a.png", None)
    assert reference.image().getpixel((0, 0)) == BACKDROP
    assert reference.image().getpixel((15, 0)) == (0, 0, 255)
    assert reference.mask_image().getextrema() == (0, 255)


def test_sixteen_bit_greys_are_scaled_and_not_clipped(tmp_path: Path) -> None:
    ramp = np.tile(np.linspace(0, 65535, 32).astype(np.uint16), (16, 1))
    Image.fromarray(ramp).save(tmp_path / "a.png")
    values = np.asarray(Reference(tmp_path / "a.png", None).image())[0, :, 0]
    assert values[0] == 0
    assert values[-1] == 255
    assert np.abs(values - np.linspace(0, 255, 32)).max() <= 1


def test_cmyk_becomes_the_colours_it_stands_for(tmp_path: Path) -> None:
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
    red = Reference(tmp_path / "a.jpg", None).image()
    assert red.mode == "RGB"
    assert np.abs(np.array(red.getpixel((8, 8))) - (255, 0, 0)).max() <= 3


def test_a_colour_profile_is_honoured(tmp_path: Path) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    # The same profile with the primaries of red and green exchanged, under another title.
    exchanged = srgb.replace(b"rXYZ", b"????").replace(b"gXYZ", b"rXYZ").replace(b"????", b"gXYZ")
    exchanged = exchanged.replace("sRGB".encode("utf-16-be"), "xRGB".encode("utf-16-be"))
    for name, profile in (("a", exchanged), ("b", srgb), ("c", b"rubbish")):
        picture = Image.new("RGB", (8, 8), (120, 60, 200))
        picture.save(tmp_path / f"{name}.png", icc_profile=profile)
    assert np.allclose(load_picture(tmp_path / "a.png").getpixel((0, 0)), (60, 120, 200), atol=2)
    assert load_picture(tmp_path / "b.png").getpixel((0, 0)) == (120, 60, 200)
    assert load_picture(tmp_path / "c.png").getpixel((0, 0)) == (120, 60, 200)


@pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg", "webp", "bmp", "PNG"])
def test_each_common_format_is_read(tmp_path: Path, suffix: str) -> None:
    painting(3).save(tmp_path / f"a.{suffix}")
    assert Character.open(tmp_path).references[0].image().size == (48, 40)


# Masks


@pytest.mark.parametrize("name", ["00-masklabel.png", "00_mask.png", "masks/00.png"])
def test_masks_are_found_and_are_no_pictures(tmp_path: Path, name: str) -> None:
    folder = folder_of(tmp_path / "mira", 2)
    (folder / name).parent.mkdir(exist_ok=True)
    mask = Image.new("L", (96, 80), 0)
    mask.paste(255, (0, 0, 48, 80))
    mask.save(folder / name)
    character = Character.open(folder)
    assert [r.mask for r in character.references] == [folder / name, None]
    found = character.references[0].mask_image()
    assert (found.mode, found.size) == ("L", (48, 40))
    assert (found.getpixel((0, 0)), found.getpixel((47, 0))) == (255, 0)
    assert character.references[1].mask_image() is None


def test_masks_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "mira", 1)
    Image.new("L", (40, 40), 255).save(folder / "00_mask.png")
    with pytest.raises(CharacterError, match="the mask is 40x40, its picture 48x40"):
        Character.open(folder)
    Image.new("L", (48, 40), 0).save(folder / "00_mask.png")
    with pytest.raises(CharacterError, match="black everywhere"):
        Character.open(folder)
    Image.new("L", (48, 40), 255).save(folder / "00-masklabel.png")
    with pytest.raises(CharacterError, match="has two masks"):
        Character.open(folder)


def test_a_picture_whose_name_merely_ends_in_mask_is_a_picture(tmp_path: Path) -> None:
    painting(1).save(tmp_path / "hero_mask.png")
    assert len(Character.open(tmp_path).references) == 1


# What is refused


def truncated(path: Path) -> None:
    painting(1, (200, 200)).save(path, "JPEG", quality=95)
    path.write_bytes(path.read_bytes()[:-2000])


def animated(path: Path) -> None:
    frames = [painting(seed) for seed in range(3)]
    frames[0].save(path, "WEBP", save_all=True, append_images=frames[1:])


def claim_size(path: Path, side: int) -> None:
    """Write a PNG whose header says it is `side` pixels wide and high."""
    painting(1).save(path, "PNG")
    header = b"IHDR" + struct.pack(">II", side, side) + path.read_bytes()[24:29]
    checked = header + struct.pack(">I", zlib.crc32(header))
    path.write_bytes(path.read_bytes()[:12] + checked + path.read_bytes()[33:])


def bomb(path: Path) -> None:
    claim_size(path, 20_000)


def half_bomb(path: Path) -> None:
    claim_size(path, 10_000)


def invisible(path: Path) -> None:
    Image.new("RGBA", (10, 10), (255, 0, 0, 0)).save(path, "PNG")


def other_format(path: Path) -> None:
    painting(1).save(path, "TIFF")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (truncated, "is damaged"),
        (animated, r"is animated \(3 frames\)"),
        (bomb, "more than 89 million pixels"),
        (half_bomb, "more than 89 million pixels"),
        (invisible, "transparent everywhere"),
        (other_format, "is not a PNG, JPEG, WebP or BMP"),
        (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\nrubbish" * 9), "damaged"),
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.write_text("<svg/>"), "is not a PNG"),
    ],
)
def test_an_unusable_picture_is_refused_by_name(tmp_path: Path, spoil, message: str) -> None:
    folder = folder_of(tmp_path / "mira", 3)
    spoil(folder / "01.png")
    with pytest.raises(CharacterError, match=message) as caught:
        Character.open(folder)
    assert str(folder / "01.png") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "00.png" not in str(caught.value)


def test_all_unusable_files_are_listed_in_one_line(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "mira", 4)
    truncated(folder / "01.png")
    (folder / "02.txt").write_bytes(b"\xff\xfe\x00bad")
    with pytest.raises(CharacterError, match="2 files cannot be used") as caught:
        Character.open(folder)
    assert "01.png" in str(caught.value)
    assert "02.txt" in str(caught.value)


def test_a_picture_just_within_the_limit_is_not_a_bomb() -> None:
    assert 9_000 * 9_900 < MAX_PIXELS < 10_000 * 10_000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the caption is empty"),
        (b" \n\t", "the caption is empty"),
        ("ein Mädchen".encode("latin-1"), r"is not UTF-8 text \(byte 5\)"),
        (b"word " * 20_000, "holds 100000 bytes, which is no caption"),
        (b"word " * 3_000, "the caption has 15000 characters"),
        (b"a\0b", "zero bytes"),
    ],
)
def test_an_unusable_caption_is_refused_by_name(
    tmp_path: Path, content: bytes, message: str
) -> None:
    folder = folder_of(tmp_path / "mira", 2)
    (folder / "01.txt").write_bytes(content)
    with pytest.raises(CharacterError, match=message) as caught:
        Character.open(folder)
    assert str(folder / "01.txt") in str(caught.value)


def test_no_pictures_no_folder_and_a_picture_instead_of_a_folder(tmp_path: Path) -> None:
    with pytest.raises(CharacterError, match="holds no pictures; put 5 to 20"):
        Character.open(tmp_path)
    with pytest.raises(CharacterError, match="does not exist"):
        Character.open(tmp_path / "gone")
    painting(1).save(tmp_path / "a.png")
    with pytest.raises(CharacterError, match=r"a\.png: is in no known layout"):
        Character.open(tmp_path / "a.png")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a second user")
@pytest.mark.parametrize("mode", [0o000, 0o444])  # 0o444 lets its names be listed, and no more
def test_a_folder_without_permission_is_refused(tmp_path: Path, mode: int) -> None:
    folder = folder_of(tmp_path / "mira", 1)
    folder.chmod(mode)
    child = os.fork()
    if child == 0:
        # root may read everything, so the attempt is made as the user "nobody"
        code = 3
        try:
            os.chdir(tmp_path)
            if os.geteuid() == 0:
                os.setuid(65534)
            Character.open("mira")
        except CharacterError as error:
            code = 0 if "may not be read" in str(error) else 2
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    folder.chmod(0o700)
    assert os.waitstatus_to_exitcode(status) == 0


def test_hidden_files_are_not_pictures(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "mira", 1)
    (folder / "._00.png").write_bytes(b"a resource fork")
    assert len(Character.open(folder).references) == 1


def test_a_phone_picture_with_a_second_image_inside_is_one_still(tmp_path: Path) -> None:
    painting(1).save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[painting(2)])
    assert Character.open(tmp_path).references[0].image().size == (48, 40)


def test_damage_anywhere_in_a_file_is_read_over_or_refused_in_one_line(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    whole = []
    for suffix in ("png", "jpg", "webp", "bmp"):
        painting(1).save(tmp_path / f"whole.{suffix}", exif=exif)
        whole.append((tmp_path / f"whole.{suffix}").read_bytes())
    rng = random.Random(0)
    messages = []
    for _ in range(400):
        content = bytearray(rng.choice(whole))
        for _ in range(rng.choice((1, 5, 20))):
            content[rng.randrange(len(content))] = rng.randrange(256)
        (tmp_path / "a.png").write_bytes(content[: rng.randrange(len(content) // 2, 2**20)])
        try:
            Reference(tmp_path / "a.png", None).image()
        except CharacterError as error:
            messages.append(str(error))
    assert len(messages) > 100
    assert all("a.png: " in message and "\n" not in message for message in messages)
