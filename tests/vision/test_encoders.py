"""Encoders: loading, refusing, and agreeing with the models they are made of."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
    ResNetConfig,
    ResNetModel,
    ViTConfig,
    ViTImageProcessorPil,
    ViTModel,
)

from colour_world import CharacterColour, picture
from personae.core.registry import discover
from personae.errors import EncoderError, UnsupportedError, UsageError
from personae.models.toys import tiny_tokenizer
from personae.vision.cached_encoder import CachedEncoder
from personae.vision.encoder import Encoder
from personae.vision.load import load_encoder
from personae.vision.transformers_encoder import LAYERS, centre_square

SIDE = 32


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write tiny models of the real classes, random weights, as the shipped folders are."""
    root = tmp_path_factory.mktemp("weights")
    transformer = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 6,
        "num_attention_heads": 2,
    }
    text = {"vocab_size": 521, "bos_token_id": 519, "eos_token_id": 520, "pad_token_id": 520}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        models = {
            "clip": CLIPModel(
                CLIPConfig(
                    text_config=transformer | text,
                    vision_config=transformer | {"image_size": SIDE, "patch_size": 8},
                    projection_dim=12,
                )
            ),
            "resnet": ResNetModel(
                ResNetConfig(
                    embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"
                )
            ),
            "dinov2": Dinov2Model(
                Dinov2Config(
                    hidden_size=16,
                    num_hidden_layers=2,
                    num_attention_heads=2,
                    image_size=SIDE,
                    patch_size=8,
                )
            ),
            "vit": ViTModel(
                ViTConfig(**transformer, image_size=SIDE, patch_size=8), add_pooling_layer=False
            ),
        }
    size = {"height": SIDE, "width": SIDE}
    clip_processor = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=size)
    for name, model in models.items():
        model.save_pretrained(root / name)
        processor = clip_processor if name == "clip" else ViTImageProcessorPil(size=size)
        processor.save_pretrained(root / name)
    tiny_tokenizer().save_pretrained(root / "clip")
    return {name: root / name for name in models}


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    random = np.random.default_rng(0)
    sizes = [(40, 40, 3), (60, 40, 3), (32, 48, 3)]
    return [Image.fromarray(random.integers(0, 256, size, dtype=np.uint8)) for size in sizes]


PAIRS = [
    ("toon_identity", "resnet"),
    ("toon_clip", "clip"),
    ("clip", "clip"),
    ("dinov2", "dinov2"),
    ("dino", "vit"),
]


@pytest.mark.parametrize(("name", "folder"), PAIRS)
def test_pictures_become_unit_rows_that_do_not_depend_on_the_batch(name, folder, folders, images):
    encoder = load_encoder(f"{name}:{folders[folder]}", device="cpu")
    rows = encoder.embed_images(images * 7)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(rows[-3:], encoder.embed_images(images), atol=1e-5)
    assert encoder.weights == folders[folder].name
    assert encoder.embed_images([]).shape[0] == 0


def test_clip_rows_are_those_of_the_model_itself(folders, images):
    encoder = load_encoder(f"clip:{folders['clip']}", kind="image_text", device="cpu")
    model = CLIPModel.from_pretrained(folders["clip"]).eval()
    texts = ["the cat", "and the can and the cat"]
    ids = tiny_tokenizer()(texts, padding="max_length", return_tensors="pt")
    processor = CLIPImageProcessorPil.from_pretrained(folders["clip"])
    pixels = processor(images=images[:1], return_tensors="pt")
    with torch.inference_mode():
        expected = model(**ids, **pixels)
    np.testing.assert_allclose(encoder.embed_texts(texts), expected.text_embeds, atol=1e-5)
    np.testing.assert_allclose(encoder.embed_images(images[:1]), expected.image_embeds, atol=1e-5)


def test_a_text_longer_than_the_encoder_reads_is_cut(folders):
    encoder = load_encoder(f"clip:{folders['clip']}", device="cpu")
    long, longer = ("the cat " * 100, "the cat " * 200)
    rows = encoder.embed_texts([long, longer])
    np.testing.assert_array_equal(rows[0], rows[1])


def test_toon_identity_is_the_pooled_output(folders, images):
    encoder = load_encoder(f"toon_identity:{folders['resnet']}", device="cpu")
    model = ResNetModel.from_pretrained(folders["resnet"]).eval()
    processor = ViTImageProcessorPil.from_pretrained(folders["resnet"])
    pixels = processor(images=images[:1], return_tensors="pt")
    with torch.inference_mode():
        pooled = model(**pixels).pooler_output.flatten(1).numpy()
    expected = pooled / np.linalg.norm(pooled)
    np.testing.assert_allclose(encoder.embed_images(images[:1]), expected, atol=1e-5)


def test_layout_distance_is_lpips_with_unit_weights_over_five_layers(folders, images):
    encoder = load_encoder(f"clip:{folders['clip']}", device="cpu")
    rows = encoder.embed_layout(images)
    model = CLIPModel.from_pretrained(folders["clip"]).eval().vision_model
    squares = [centre_square(image) for image in images]
    processor = CLIPImageProcessorPil.from_pretrained(folders["clip"])
    pixels = processor(images=squares, return_tensors="pt").pixel_values
    with torch.inference_mode():
        states = model(pixels, output_hidden_states=True).hidden_states
    chosen = [states[i] for i in (0, 2, 3, 4, 6)]  # 7 states, evenly: 0, 1.5, 3, 4.5, 6
    lpips = 0.0
    for state in chosen:
        unit = state / state.norm(dim=2, keepdim=True)
        lpips += float((unit[0] - unit[1]).square().sum(dim=1).mean())
    assert np.square(rows[0] - rows[1]).sum() == pytest.approx(lpips / LAYERS, rel=1e-4)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, rtol=1e-5)


def test_layout_of_maps_sees_where_things_are(folders):
    encoder = load_encoder(f"toon_identity:{folders['resnet']}", device="cpu")
    left, right = picture("red", "green", "blue"), picture("red", "blue", "green")
    pooled, placed = encoder.embed_images([left, right]), encoder.embed_layout([left, right])
    assert placed[0] @ placed[1] < pooled[0] @ pooled[1]


def test_a_picture_that_is_not_square_is_cropped_around_its_centre():
    wide = Image.new("RGBA", (10, 4), (255, 0, 0, 255))
    wide.paste((0, 0, 255, 255), (3, 0, 7, 4))
    assert centre_square(wide).tobytes() == Image.new("RGB", (4, 4), (0, 0, 255)).tobytes()


def test_half_precision_weights_are_computed_in_full(folders, images, tmp_path):
    model = ResNetModel.from_pretrained(folders["resnet"]).half()
    model.save_pretrained(tmp_path)
    ViTImageProcessorPil.from_pretrained(folders["resnet"]).save_pretrained(tmp_path)
    rows = load_encoder(f"toon_identity:{tmp_path}", device="cpu").embed_images(images)
    full = load_encoder(f"toon_identity:{folders['resnet']}", device="cpu").embed_images(images)
    np.testing.assert_allclose(rows, full, atol=1e-2)


def test_missing_weights_offline_are_said_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(EncoderError, match=r"dinov2.*not on this machine.*connect once") as error:
        load_encoder("facebook/dinov2-small")
    assert "\n" not in str(error.value)


def test_a_folder_that_is_not_there_is_named():
    with pytest.raises(EncoderError, match="there is no folder '/nowhere/clip'"):
        load_encoder("clip:/nowhere/clip")


def test_damaged_weights_are_said_in_one_line(folders, tmp_path):
    for file in folders["resnet"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"not a tensor in sight")
    with pytest.raises(EncoderError, match=r"toon_identity.*could not be loaded") as error:
        load_encoder(f"toon_identity:{tmp_path}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "library"), [("arcface", "insightface"), ("ccip", "dghs-imgutils")]
)
def test_an_encoder_without_its_library_says_what_to_install(name, library, monkeypatch):
    for module in ("insightface", "insightface.app", "imgutils"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(EncoderError, match=f"pip install {library}"):
        load_encoder(name)


def test_an_unknown_encoder_is_refused_with_the_nearest_name():
    with pytest.raises(UsageError, match="Did you mean 'toon_clip'"):
        load_encoder("toon_klip")


def test_an_encoder_that_reads_no_text_cannot_measure_agreement(folders):
    with pytest.raises(UsageError, match="reads no text"):
        load_encoder(f"dinov2:{folders['dinov2']}", kind="image_text")
    with pytest.raises(UnsupportedError, match="reads no text"):
        load_encoder(f"dinov2:{folders['dinov2']}", device="cpu").embed_texts(["a cat"])


def test_hub_ids_find_their_encoder():
    owners = {
        source: [e.name for e in discover(Encoder).values() if e.recognises(source)]
        for source in (
            "openai/clip-vit-large-patch14",
            "facebook/dinov2-base",
            "facebook/dino-vits16",
        )
    }
    assert list(owners.values()) == [["clip"], ["dinov2"], ["dino"]]


class _Counting(CharacterColour):
    name = "counting"

    def __init__(self) -> None:
        self.seen: list[int] = []

    def embed_images(self, images):
        self.seen.append(len(images))
        return super().embed_images(images)


def test_remembering_encodes_no_picture_twice_and_keeps_the_order():
    encoder = _Counting()
    memory = CachedEncoder(encoder)
    red, green = picture("red"), picture("green")
    first = memory.embed_images([red, green, picture("red")])
    again = memory.embed_images([green, picture("blue"), red.copy()])
    assert encoder.seen == [2, 1]
    np.testing.assert_array_equal(first[0], first[2])
    np.testing.assert_array_equal(again, np.eye(3)[[1, 2, 0]])
    assert (memory.name, memory.kind, memory.weights) == ("counting", "identity", "none")


def test_remembering_forgets_the_oldest_when_full(monkeypatch):
    monkeypatch.setattr("personae.vision.cached_encoder.REMEMBERED_PICTURES", 2)
    encoder = _Counting()
    memory = CachedEncoder(encoder)
    memory.embed_images([picture("red"), picture("green")])
    memory.embed_images([picture("red"), picture("blue")])  # green was used longest ago
    memory.embed_images([picture("red"), picture("green")])
    assert encoder.seen == [2, 1, 1]


def test_more_pictures_than_fit_the_memory_are_all_encoded(monkeypatch):
    monkeypatch.setattr("personae.vision.cached_encoder.REMEMBERED_PICTURES", 2)
    memory = CachedEncoder(_Counting())
    memory.embed_images([picture("red")])
    rows = memory.embed_images([picture("green"), picture("blue"), picture("red")])
    np.testing.assert_array_equal(rows, np.eye(3)[[1, 2, 0]])
