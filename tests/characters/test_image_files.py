"""Good pixels are read whatever metadata other programs and phones put beside them."""

import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from personae.characters.image_files import exif_orientation, load_picture
from personae.errors import CharacterError

SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 99: 3}


def painting(size: tuple[int, int] = (48, 40)) -> Image.Image:
    cells = np.random.default_rng(1).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(cells).resize(size, Image.Resampling.NEAREST)


def exif_block(order: str, entries: list[tuple[int, int, int, bytes]]) -> bytes:
    """Return EXIF of one directory; an entry is its tag, type, count and 4 bytes of value."""
    mark = b"II" if order == "<" else b"MM"
    head = mark + struct.pack(f"{order}HIH", 42, 8, len(entries))
    body = b"".join(struct.pack(f"{order}HHI", *entry[:3]) + entry[3] for entry in entries)
    return b"Exif\0\0" + head + body + struct.pack(f"{order}I", 0) + bytes(16)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("kind", "code"), [(3, "H2x"), (4, "I"), (1, "B3x"), (8, "h2x")])
def test_the_orientation_is_read_in_every_whole_numbered_type(
    order: str, kind: int, code: str
) -> None:
    entry = (0x0112, kind, 1, struct.pack(order + code, 6))
    assert exif_orientation(exif_block(order, [(0x010F, 2, 4, b"abc\0"), entry])) == 6
    assert exif_orientation(exif_block(order, [(0x010F, 2, 4, b"abc\0")])) is None
    assert exif_orientation(b"") is None
    assert exif_orientation(b"Exif\0\0II") is None


def test_a_rotated_picture_is_turned_whatever_types_its_other_entries_have(tmp_path: Path) -> None:
    expected = np.asarray(painting().rotate(-90, expand=True), dtype=int)
    rng = random.Random(7)
    tags = (0x010F, 0x011A, 0x0128, 0x0132, 0x0213, 0x829A, 0x8769, 0x8825, 0x9286, 0xC4A5)
    for _ in range(120):
        order = rng.choice("<>")
        orientation = (0x0112, 3, 1, struct.pack(f"{order}H2x", 6))
        odd = [
            (tag, rng.choice(list(SIZES)), rng.choice((0, 1, 1, 2, 9)), rng.randbytes(4))
            for tag in rng.sample(tags, 3)
        ]
        entries = sorted([orientation, *odd], key=lambda entry: entry[0])
        path = tmp_path / "phone.jpg"
        painting().save(path, exif=exif_block(order, entries), quality=100, subsampling=0)
        image = load_picture(path)
        assert image.size == (40, 48), entries
        assert np.abs(np.asarray(image, dtype=int) - expected).mean() < 8


@pytest.mark.parametrize("ending", ["png", "webp", "jfif", "jpe"])
def test_each_format_is_turned(tmp_path: Path, ending: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    kind = {"png": "PNG", "webp": "WEBP"}.get(ending, "JPEG")
    painting().save(tmp_path / f"a.{ending}", kind, exif=exif)
    assert load_picture(tmp_path / f"a.{ending}").size == (40, 48)


@pytest.mark.parametrize("compressed", [True, False])
def test_a_png_with_megabytes_of_text_is_its_pixels(tmp_path: Path, compressed: bool) -> None:
    texts = PngImagePlugin.PngInfo()
    texts.add_text("workflow", "node " * 500_000, zip=compressed)
    painting().save(tmp_path / "comfy.png", pnginfo=texts)
    assert load_picture(tmp_path / "comfy.png").tobytes() == painting().tobytes()


def test_text_behind_the_pixels_is_passed_over_too(tmp_path: Path) -> None:
    painting().save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    data = b"workflow\0\0" + zlib.compress(b"node " * 500_000)
    chunk = b"zTXt" + data
    chunk = struct.pack(">I", len(data)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "a.png").write_bytes(content[:-12] + chunk + content[-12:])
    assert load_picture(tmp_path / "a.png").tobytes() == painting().tobytes()


def test_a_git_lfs_pointer_is_told_as_such(tmp_path: Path) -> None:
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 3819\n"
    (tmp_path / "a.png").write_text(pointer)
    with pytest.raises(CharacterError, match=r"is no picture: it is a Git LFS pointer to a file"):
        load_picture(tmp_path / "a.png")
