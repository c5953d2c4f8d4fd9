import base64
import json
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from format_world import draw
from personae.errors import ArtifactError
from personae.formats.embeddings import a1111_picture
from personae.formats.format import format_of, import_file

VECTORS = draw(2, 24)


def content(name: str = "mira", values=VECTORS) -> bytes:
    table = {"*": {"TORCHTENSOR": values.tolist()}}
    return json.dumps({"string_to_param": table, "name": name, "step": 3}).encode()


def shown() -> Image.Image:
    return Image.new("RGB", (40, 32), (90, 120, 200))


def with_text(path, data: bytes):
    info = PngInfo()
    info.add_text("sd-ti-embedding", base64.b64encode(data).decode())
    shown().save(path, pnginfo=info)
    return path


def noise(count: int) -> np.ndarray:
    state, numbers = 0, []
    for _ in range(count):
        state = (1664525 * state + 1013904223) % 2**32
        numbers.append(state % 255)
    return np.array(numbers, np.uint8)


def with_strips(path, data: bytes, height: int = 32):
    """A picture between two strips: bits of the data below, a pattern that is not read above."""
    packed = np.frombuffer(zlib.compress(data, 9), np.uint8)
    packed = np.resize(packed, -(-len(packed) // (3 * height)) * 3 * height)
    mask, strips = noise(len(packed)) & 0x0F, []
    for half in (packed & 0x0F, packed >> 4):
        # A1111 draws dots there, which never reach the low bits; 0x10 keeps a pixel from black
        strips.append(((half ^ mask) | 0x10).reshape(height, -1, 3))
    column = np.zeros((height, 1, 3), np.uint8)
    middle = np.asarray(shown().resize((40, height)))
    whole = np.concatenate([strips[0], column, middle, column, strips[1]], axis=1)
    Image.fromarray(whole).save(path)
    return path


def test_the_first_numbers_of_the_mask_are_those_that_a1111_lists():
    assert noise(8).tolist() == [253, 242, 127, 44, 157, 27, 239, 133]


@pytest.mark.parametrize("make", [with_text, with_strips])
def test_an_embedding_in_a_picture_is_read_with_its_name(make, bases, tmp_path):
    path = make(tmp_path / "step-500.png", content())
    assert format_of(path).name == "a1111_embedding"
    artifact = import_file(path, bases["sd1"])
    assert torch.equal(artifact.tensors["textual_inversion.vectors.0"], VECTORS)
    assert artifact.card.character.phrase == "<mira>"
    assert artifact.card.notes["imported from"].startswith("step-500.png")


@pytest.mark.parametrize("make", [with_text, with_strips])
@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b"[]",
        b"[" * 100_000,
        b'{"string_to_param": 3}',
        b'{"string_to_param": {"*": {"TORCHTENSOR": ["a"]}}}',
        b'{"string_to_param": {"*": {"TORCHTENSOR": [[1, 2], [3]]}}}',
        b'{"string_to_param": {"*": [1]}}',
    ],
)
def test_damaged_content_is_no_embedding(make, data, bases, tmp_path):
    path = make(tmp_path / "odd.png", data)
    with pytest.raises(ArtifactError, match=r"odd\.png: is none of the formats"):
        import_file(path, bases["sd1"])


def test_values_that_do_not_fit_are_refused(bases, tmp_path):
    for name, values, reason in (
        ("nan", VECTORS * float("nan"), "not finite"),
        ("wide", draw(2, 9), "another kind of base"),
    ):
        path = with_text(tmp_path / f"{name}.png", content(values=values))
        with pytest.raises(ArtifactError, match=reason):
            import_file(path, bases["sd1"])


def test_pictures_without_embeddings_and_previews_are_refused(bases, tmp_path):
    shown().save(tmp_path / "plain.png")
    with_text(tmp_path / "mira.preview.png", content())
    for name in ("plain.png", "mira.preview.png"):
        with pytest.raises(ArtifactError, match="none of the formats"):
            import_file(tmp_path / name, bases["sd1"])


def test_a_picture_beyond_the_bound_is_not_decoded(monkeypatch, tmp_path):
    path = with_strips(tmp_path / "mira.png", content())
    assert a1111_picture.embedding_in(path) is not None
    monkeypatch.setattr(a1111_picture, "MOST_PIXELS", 1000)
    assert a1111_picture.embedding_in(path) is None
