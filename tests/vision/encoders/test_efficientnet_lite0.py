"""EfficientNet-Lite0: its features are those of the network, and its file is read with care."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from personae.errors import EncoderError
from personae.vision.encoders.efficientnet_lite0 import EfficientNetLite0, _shapes
from personae.vision.load import load_encoder


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    """Return random weights of the right shapes."""
    generator = torch.Generator().manual_seed(0)
    return {name: torch.rand(shape, generator=generator) for name, shape in _shapes()}


@pytest.fixture(scope="module")
def file(tensors: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "mine.pth"
    torch.save(tensors, path)
    return path


def test_it_has_the_layers_of_the_published_network():
    sizes = [int(np.prod(shape)) for name, shape in _shapes() if "running" not in name]
    assert sum(sizes) + 1280 * 1000 + 1000 == 4_652_008  # of the 4.7 M that are published


def test_pictures_of_any_size_become_unit_rows(file: Path):
    encoder = load_encoder(f"efficientnet_lite0:{file}", device="cpu")
    pictures = [Image.new("RGB", size, (200, 90, 30)) for size in ((40, 40), (60, 40), (8, 300))]
    rows, layouts = encoder.embed_images(pictures), encoder.embed_layout(pictures[:1])
    assert rows.shape == (3, 1280)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(layouts, axis=1), 1, rtol=1e-4)
    assert encoder.embed_images([]).shape[0] == 0
    assert encoder.weights == "mine"


def test_the_installed_weights_give_the_features_of_the_network_they_were_made_for():
    if not EfficientNetLite0.installed():
        pytest.skip("its package is not installed; make sets it up")
    y, x = np.mgrid[:224, :224]
    picture = Image.fromarray(np.stack([x, y, x * y // 224], axis=-1).astype(np.uint8))
    (row,) = load_encoder("efficientnet_lite0", device="cpu").embed_images([picture])
    # The four greatest, by efficientnet-lite-pytorch 0.1.0 with the same weights.
    assert np.argsort(-row)[:4].tolist() == [1006, 897, 113, 689]
    np.testing.assert_allclose(
        np.sort(row)[-1:-5:-1], [0.30080, 0.29382, 0.28381, 0.25136], rtol=1e-4
    )


@pytest.mark.parametrize("fault", ["missing", "shape", "nan", "code", "text", "list"])
def test_a_file_of_anything_else_is_refused_in_one_line(
    fault: str, tensors: dict[str, torch.Tensor], tmp_path: Path
):
    path, changed = tmp_path / "bad.pth", dict(tensors)
    match fault:
        case "missing":
            del changed["_conv_head.weight"]
        case "shape":
            changed["_bn0.bias"] = torch.zeros(31)
        case "nan":
            changed["_bn0.bias"] = torch.full((32,), torch.nan)
        case "list":
            changed = [1, 2]
    torch.save(changed, path)
    if fault == "code":
        path.write_bytes(pickle.dumps(pytest.fail))
    if fault == "text":
        path.write_text("no weights")
    with pytest.raises(EncoderError) as error:
        load_encoder(f"efficientnet_lite0:{path}", device="cpu")
    assert "bad.pth" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_said():
    with pytest.raises(EncoderError, match="could not be loaded"):
        load_encoder("efficientnet_lite0:/nowhere/mine.pth", device="cpu")
