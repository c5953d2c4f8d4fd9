"""The shipped base and its metric encoders: standard folders that do what the model card says."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from personae.characters.character import Character
from personae.core.devices import HOST
from personae.core.files import EMBEDDED
from personae.generation.generate import draw
from personae.generation.sampler import Shot
from personae.generation.settings import Sampling
from personae.models.family import Family
from personae.models.load import load_base
from personae.vision.load import load_encoder

EXAMPLES = Path(__file__).parents[1] / "examples"
MIB = 2**20


@pytest.fixture(scope="module")
def toon() -> Family:
    return load_base("toon", device="cpu", precision="fp32")


def folder_bytes(name: str) -> int:
    return sum(file.stat().st_size for file in (EMBEDDED / name).rglob("*") if file.is_file())


def test_the_base_fits_in_seventy_megabytes() -> None:
    assert folder_bytes("bases/toon") <= 70 * MIB


def test_both_encoders_fit_in_twelve_megabytes() -> None:
    assert folder_bytes("encoders") <= 12 * MIB


def test_plain_diffusers_loads_and_draws_it_offline() -> None:
    pipe = StableDiffusionPipeline.from_pretrained(
        EMBEDDED / "bases" / "toon", local_files_only=True
    )
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator(HOST).manual_seed(1)
    image = pipe("a robot in space", num_inference_steps=2, generator=generator).images[0]
    assert image.size == (128, 128)
    assert np.asarray(image).std() > 5


def test_it_draws_the_same_bytes_for_the_same_seed(toon: Family) -> None:
    shots, sampling = [Shot("a woman at the beach", 3)], Sampling(steps=4)
    first, second = (draw(toon, shots, sampling)[0].image.tobytes() for _ in range(2))
    assert first == second


def test_a_background_word_changes_the_picture_as_it_says(toon: Family) -> None:
    prompts = ("a person on a plain blue background", "a person on a plain red background")
    shots = [Shot(prompt, seed) for prompt in prompts for seed in range(2)]
    drawn = [np.asarray(p.image, float) for p in draw(toon, shots, Sampling(steps=12))]
    redness = [picture[..., 0].mean() - picture[..., 2].mean() for picture in drawn]
    assert max(redness[:2]) < min(redness[2:])


def test_the_text_width_differs_from_every_width_of_the_denoiser(toon: Family) -> None:
    config = toon.denoiser.config
    assert len(config.block_out_channels) == 4
    assert config.cross_attention_dim not in config.block_out_channels


def test_any_text_has_tokens_and_comes_back(toon: Family) -> None:
    tokenizer = toon.towers[0].tokenizer
    for text in ("a zebra reading philosophy", "mira", "zażółć gęślą jaźń"):
        ids = tokenizer(text, add_special_tokens=False).input_ids
        assert tokenizer.decode(ids).replace(" ", "") == text.replace(" ", "")


def test_latents_have_the_scale_that_noise_has(toon: Family) -> None:
    from personae.training.batches import to_pixels

    pictures = [each.image() for each in Character.open(EXAMPLES / "mira").references]
    pixels = torch.stack([to_pixels(picture.resize((128, 128))) for picture in pictures])
    with torch.no_grad():
        latents = toon.encode_image(pixels)
    assert 0.7 < latents.std().item() < 1.4


def test_the_identity_encoder_tells_one_character_from_another() -> None:
    encoder = load_encoder("toon_identity", device="cpu")
    people = [Character.open(EXAMPLES / name) for name in ("mira", "rolf", "bit", "juno")]
    images = [[each.image() for each in person.references[:6]] for person in people]
    vectors = [np.asarray(encoder.embed_images(group)) for group in images]
    same = np.mean([(group @ group.T)[np.triu_indices(len(group), 1)].mean() for group in vectors])
    other = np.mean([(one @ two.T).mean() for one, two in pairwise(vectors)])
    assert same > other + 0.2


def test_the_clip_encoder_prefers_the_caption_of_a_picture() -> None:
    encoder = load_encoder("toon_clip", device="cpu")
    references = Character.open(EXAMPLES / "rolf").references
    images: list[Image.Image] = [each.image() for each in references]
    captions = [each.caption or "" for each in references]
    agreement = (
        np.asarray(encoder.embed_images(images)) @ np.asarray(encoder.embed_texts(captions)).T
    )
    right = np.diag(agreement).mean()
    wrong = (agreement.sum() - np.trace(agreement)) / (agreement.size - len(agreement))
    assert right > wrong
