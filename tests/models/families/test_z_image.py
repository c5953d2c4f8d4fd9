"""Z-Image against diffusers' own pipeline, and what is refused when loading."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, ZImagePipeline

from personae.core.devices import HOST
from personae.errors import BaseError, UnsupportedError, UsageError
from personae.generation.sampler import Shot, starting_noise, streams_of_noise
from personae.generation.settings import Sampling
from personae.models.families.z_image import ZImage
from personae.models.flow_family import flow_path
from personae.models.load import load_base
from personae.models.toys import tiny_z_image
from tiny_world import drawn, make, prediction

# Below and beyond 32 tokens: from there a batch of both has masks.
PROMPTS = ["a cat and the can", "the man " * 10, "", "CAT, the   (can)! é\n\nthe man " + "a " * 600]


@pytest.fixture(scope="module")
def pipe() -> ZImagePipeline:
    made = tiny_z_image()
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def loaded() -> ZImage:
    return ZImage.tiny()[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bases") / "tiny"
    tiny_z_image().save_pretrained(path)
    return path


@torch.no_grad()
def test_texts_equal_those_of_the_pipeline(pipe: ZImagePipeline, loaded: ZImage) -> None:
    theirs, _ = pipe.encode_prompt(list(PROMPTS), do_classifier_free_guidance=False)
    together = loaded.encode_text(PROMPTS)
    assert together.lengths == tuple(map(len, theirs))
    assert max(together.lengths) == 512
    alone = [loaded.encode_text([prompt]).unpadded()[0] for prompt in PROMPTS]
    for row, one, wanted in zip(together.unpadded(), alone, theirs, strict=True):
        torch.testing.assert_close(row, wanted, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(one, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shift", [{"shift": 3.0}, {"use_dynamic_shifting": True}])
@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_a_drawing_in_two_steps_equals_that_of_the_pipeline(
    pipe: ZImagePipeline, guidance: float, shift: dict
) -> None:
    pipe.scheduler = FlowMatchEulerDiscreteScheduler(**shift)
    base = ZImage.from_pipeline(pipe, "tiny", HOST, torch.float32)
    shots = [Shot(PROMPTS[0], 1), Shot(PROMPTS[1], 2)]
    how = Sampling(steps=2, guidance_scale=guidance, width=96, height=64)
    wanted = pipe(
        prompt=[shot.prompt for shot in shots],
        width=96,
        height=64,
        num_inference_steps=2,
        guidance_scale=guidance - 1,  # of a pipeline whose 0 means none
        latents=starting_noise(base, shots, how),
        output_type="latent",
    ).images
    # The pipeline rounds times in thousandths, and guidance makes the more of it.
    torch.testing.assert_close(
        drawn(base, shots, how), wanted, rtol=1e-5, atol=1e-5 * (1 + guidance)
    )


def test_pictures_are_decoded_and_encoded_as_by_the_pipeline(
    pipe: ZImagePipeline, loaded: ZImage
) -> None:
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    config = pipe.vae.config
    assert config.shift_factor != 0
    with torch.no_grad():
        wanted = pipe.vae.decode(latents / config.scaling_factor + config.shift_factor).sample
        pixels = loaded.decode_image(latents)
        back = loaded.encode_image(pixels)
        posterior = pipe.vae.encode(pixels).latent_dist.mode()
    assert torch.equal(pixels, wanted)
    assert torch.equal(back, (posterior - config.shift_factor) * config.scaling_factor)


@pytest.mark.parametrize("sampler", list(ZImage.samplers))
def test_every_sampler_ends_at_a_picture_whose_direction_is_known(
    loaded: ZImage, sampler: str
) -> None:
    """Told the way to a picture at every step, each arrives there; some round their times."""
    shape = loaded.latent_shape(64, 64)
    picture, noise = torch.randn(2, *shape, generator=torch.Generator().manual_seed(4))
    scheduler = loaded.scheduler(sampler, 4, shape)
    latents = noise[None]
    first = loaded.path.from_scheduler(scheduler.timesteps[0])
    assert float(first) == pytest.approx(1.0, abs=2e-3)
    for step, t in enumerate(scheduler.timesteps):
        _, level = loaded.path.levels(loaded.path.from_scheduler(t)[None])
        velocity = (latents - picture) / level  # of the straight line through both
        streams = streams_of_noise(scheduler, [Shot("", 5)], step)
        latents = scheduler.step(velocity, t, latents, return_dict=False, **streams)[0]
    torch.testing.assert_close(latents[0], picture, rtol=0, atol=5e-3)


def test_larger_pictures_are_shifted_further_where_the_base_says_so() -> None:
    config = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True).config
    path = flow_path(config, 2)
    shifts = [path.shift_at((16, side // 8, side // 8)) for side in (512, 768, 1024)]
    assert shifts == pytest.approx([1.88, 2.33, 3.16], abs=0.01)
    small, large = (
        path.sample(999, torch.Generator().manual_seed(1), (16, side, side)) for side in (64, 128)
    )
    assert (large > small).all()
    with pytest.raises(BaseError, match="time_shift_type 'linear'"):
        flow_path({**config, "time_shift_type": "linear"}, 2)


def test_a_folder_is_loaded_into_the_wanted_format(folder: Path, loaded: ZImage) -> None:
    base = load_base(folder, device="cpu", precision="fp32")
    assert torch.equal(prediction(base, PROMPTS[:2]), prediction(loaded, PROMPTS[:2]))
    assert base.fingerprint == loaded.fingerprint
    narrow = load_base(folder, device="cpu", precision="bf16")
    assert {weight.dtype for weight in narrow.denoiser.parameters()} == {torch.bfloat16}
    assert narrow.fingerprint == loaded.fingerprint
    assert torch.isfinite(prediction(narrow, PROMPTS[:2])).all()


def test_a_format_it_overflows_in_is_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"precision is 'fp16', in which .* overflow; use bf16"):
        load_base(folder, device="cpu", precision="fp16")


def test_it_is_told_apart_by_its_pipeline(folder: Path, tmp_path: Path) -> None:
    assert ZImage.recognises(folder)
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))
    assert not ZImage.recognises(tmp_path)


def test_a_size_that_it_cannot_draw_is_refused(loaded: ZImage) -> None:
    assert loaded.latent_shape(96, 64) == (4, 8, 12)
    with pytest.raises(UsageError, match="72x64; both sides must be multiples of 16"):
        loaded.latent_shape(72, 64)


def test_a_placeholder_survives_the_chat_and_keeps_the_ids_around_it(loaded: ZImage) -> None:
    technique = make("textual_inversion", loaded, num_vectors=3).inject()
    tower = loaded.towers[0]
    try:
        (ids,) = tower.rows(["the <mira> and"])
        own = list(range(tower.vocabulary_size, tower.vocabulary_size + 3))
        begin, end = tower.framed("the § and").split("§")
        assert ids == [*tower.words(begin), *own, *tower.words(end)]
    finally:
        technique.eject()
    clash = make("textual_inversion", loaded, placeholder="im_start")
    with pytest.raises(UnsupportedError, match="im_start is a word of the chat"):
        clash.inject()
    assert not clash.injected


def test_refiners_and_modulation_are_adapted_on_request_alone(loaded: ZImage) -> None:
    def layers(targets: str) -> set[str]:
        return set(make("lora", loaded, rank=4, targets=targets).layers)

    attention, usual = layers("attention"), layers("all")
    assert len(attention) == 2 * 4
    assert usual == layers("attention+feed_forward")
    assert len(usual) == 2 * 7
    assert not [name for name in usual if "refiner" in name or "modulation" in name]
    assert len(layers("refiners")) == 2 * 7
    assert len(layers("attention+modulation")) == len(attention) + 3 + 1
    with pytest.raises(UsageError, match=r"'cross_attention'; .* have attention, feed_forward"):
        layers("cross_attention")
