"""Stable Diffusion XL against diffusers' own pipeline, and what is refused when loading."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionXLPipeline

from personae.core.devices import HOST
from personae.errors import BaseError, UsageError
from personae.generation.sampler import Shot, starting_noise
from personae.generation.settings import Sampling
from personae.models.families.stable_diffusion_xl import StableDiffusionXL
from personae.models.load import load_base
from personae.models.text import Frame
from personae.models.toys import tiny_stable_diffusion_xl
from personae.models.unet_family import UNetFamily
from tiny_world import bases, drawn, make, prediction

EPS, V = "epsilon", "v_prediction"
PROMPTS = ["a cat and the can", "the man " * 60, "CAT, the   (can)! é"]


@pytest.fixture(scope="module", params=[EPS, V])
def pipe(request: pytest.FixtureRequest) -> StableDiffusionXLPipeline:
    made = tiny_stable_diffusion_xl(request.param)
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture
def loaded(pipe: StableDiffusionXLPipeline) -> StableDiffusionXL:
    return StableDiffusionXL.from_pipeline(pipe, "tiny", HOST, torch.float32)


@cache
def tiny_v() -> StableDiffusionXL:
    """Return the tiny base that predicts v, whose noisiest step is noise alone."""
    return StableDiffusionXL.from_pipeline(
        tiny_stable_diffusion_xl(V), "tiny-sdxl-v", HOST, torch.float32
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bases") / "tiny"
    tiny_stable_diffusion_xl(V).save_pretrained(path)
    return path


@torch.no_grad()
def test_texts_equal_those_of_the_pipeline(
    pipe: StableDiffusionXLPipeline, loaded: StableDiffusionXL
) -> None:
    wanted, without, pooled, pooled_without = pipe.encode_prompt(list(PROMPTS))
    mine = loaded.encode_text([*PROMPTS, ""])
    count = len(PROMPTS)
    torch.testing.assert_close(mine.embeds[:count], wanted, rtol=0, atol=1e-5)
    torch.testing.assert_close(mine.pooled[:count], pooled, rtol=0, atol=1e-5)
    torch.testing.assert_close(mine.embeds[count:], without[:1], rtol=0, atol=1e-5)
    torch.testing.assert_close(mine.pooled[count:], pooled_without[:1], rtol=0, atol=1e-5)
    assert bool(mine.embeds[count:].any()) is not pipe.config.force_zeros_for_empty_prompt


@pytest.mark.parametrize("negative", ["", "the man"])
def test_a_guided_drawing_in_two_steps_equals_that_of_the_pipeline(
    pipe: StableDiffusionXLPipeline, loaded: StableDiffusionXL, negative: str
) -> None:
    pipe.scheduler = DDIMScheduler.from_config(loaded.scheduler_config, clip_sample=False)
    shots = [Shot(PROMPTS[0], 1), Shot(PROMPTS[1], 2)]
    how = Sampling(
        sampler="ddim", steps=2, guidance_scale=5, negative_prompt=negative, width=96, height=64
    )
    wanted = pipe(
        prompt=[shot.prompt for shot in shots],
        negative_prompt=[negative] * 2 if negative else None,
        width=96,
        height=64,
        num_inference_steps=2,
        guidance_scale=5,
        latents=starting_noise(loaded, shots, how),
        output_type="latent",
    ).images
    torch.testing.assert_close(drawn(loaded, shots, how), wanted, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_the_denoiser_is_told_size_and_crop_as_by_the_pipeline(
    pipe: StableDiffusionXLPipeline, loaded: StableDiffusionXL
) -> None:
    frames = [Frame((640, 480), (24, 8), (96, 64)), Frame.whole(96, 64)]
    wanted = [
        pipe._get_add_time_ids((480, 640), (8, 24), (64, 96), torch.float32, 20),
        pipe._get_add_time_ids((64, 96), (0, 0), (64, 96), torch.float32, 20),
    ]
    told = loaded.conditions(frames)
    assert torch.equal(told.values["time_ids"], torch.cat(wanted))
    noisy = torch.randn(2, 4, 8, 12, generator=torch.Generator().manual_seed(1))
    text, times = loaded.encode_text(PROMPTS[:2]), torch.tensor([10, 900])
    answer = loaded.denoise(noisy, times, text, told)
    cond = {"text_embeds": text.pooled, "time_ids": told.values["time_ids"]}
    theirs = pipe.unet(noisy, times, text.embeds, added_cond_kwargs=cond).sample
    assert torch.equal(answer, theirs)
    alone = loaded.denoise(noisy, times, text)
    assert torch.equal(alone[1], answer[1])
    assert not torch.equal(alone[0], answer[0])


@torch.no_grad()
def test_pictures_go_to_latents_and_back_as_by_the_pipeline(
    pipe: StableDiffusionXLPipeline, loaded: StableDiffusionXL
) -> None:
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    config = pipe.vae.config
    mean, deviation = torch.zeros(4), torch.ones(4)
    if config.latents_mean is not None:
        mean, deviation = torch.tensor(config.latents_mean), torch.tensor(config.latents_std)
    mean, deviation = mean.view(1, 4, 1, 1), deviation.view(1, 4, 1, 1)
    plain = latents * deviation / config.scaling_factor + mean
    pixels = loaded.decode_image(latents)
    torch.testing.assert_close(pixels, pipe.vae.decode(plain).sample, rtol=0, atol=1e-6)
    posterior = pipe.vae.encode(pixels).latent_dist.mode()
    wanted = (posterior - mean) * config.scaling_factor / deviation
    torch.testing.assert_close(loaded.encode_image(pixels), wanted, rtol=0, atol=1e-6)


def test_an_empty_prompt_means_one_thing_to_each_cache(loaded: StableDiffusionXL) -> None:
    other = StableDiffusionXL.from_pipeline(tiny_stable_diffusion_xl(V), "x", HOST, torch.float32)
    other.zeros_for_empty = not other.zeros_for_empty
    assert loaded.allowing("none").zeros_for_empty is loaded.zeros_for_empty
    keys = {base.zeros_for_empty: base.text_encoding for base in (loaded, other)}
    assert len({*keys.values()}) == len(keys)


def test_words_are_found_where_the_prompt_ends_beside_new_ones() -> None:
    """Encoders with the end mark of old (2), as the published ones are, look for the largest id."""
    pipe = tiny_stable_diffusion_xl()
    base = StableDiffusionXL.from_pipeline(pipe, "tiny", HOST, torch.float32)
    technique = make("textual_inversion", base, num_vectors=2).inject()
    try:
        wanted = base.encode_text(["<mira> and the can"])
        for module in pipe.text_encoder_2.modules():
            if hasattr(module, "eos_token_id"):
                module.eos_token_id = 2
        assert torch.equal(base.encode_text(["<mira> and the can"]).pooled, wanted.pooled)
    finally:
        technique.eject()


# Prediction


def test_the_noisiest_step_is_noise_alone_where_the_base_says_so() -> None:
    noisy, plain = tiny_v(), bases()["tiny-sdxl"]
    betas = DDIMScheduler.from_config(noisy.scheduler_config)
    assert noisy.path.alphas_cumprod[-1] == betas.alphas_cumprod[-1] == 0
    assert plain.path.alphas_cumprod[-1] > 0
    starts = {name: noisy.scheduler(name, 10, (4, 8, 8)).timesteps[0] for name in noisy.samplers}
    assert {name: float(t) for name, t in starts.items()} == dict.fromkeys(starts, 999)
    assert plain.scheduler("ddim", 10, (4, 8, 8)).timesteps[0] < 999


def test_a_person_may_say_what_the_denoiser_predicts(folder: Path) -> None:
    notes = folder / "personae.toml"
    notes.write_text('[base]\nprediction_type = "epsilon"\nzero_terminal_snr = false\n')
    try:
        base = load_base(folder, device="cpu", precision="fp32")
    finally:
        notes.unlink()
    assert base.path.prediction_type == base.scheduler_config["prediction_type"] == EPS
    assert base.path.alphas_cumprod[-1] > 0
    assert base.fingerprint == tiny_v().fingerprint
    with pytest.raises(BaseError, match=r"zero terminal SNR.*zero_terminal_snr = false"):
        base.configure({"zero_terminal_snr": True}, "here")
    base.configure({"zero_terminal_snr": True, "prediction_type": V}, "here")
    assert (base.path.prediction_type, base.path.alphas_cumprod[-1]) == (V, 0)
    with pytest.raises(UsageError, match="here: unknown key 'prediction'"):
        base.configure({"prediction": "v"}, "here")
    for other in (each for each in bases().values() if not isinstance(each, UNetFamily)):
        with pytest.raises(UsageError, match="here: unknown key 'prediction_type'"):
            other.configure({"prediction_type": V}, "here")


# Loading


def test_a_folder_is_loaded_into_the_wanted_format(folder: Path) -> None:
    base, wanted = load_base(folder, device="cpu", precision="fp32"), tiny_v()
    assert torch.equal(prediction(base, PROMPTS[:2]), prediction(wanted, PROMPTS[:2]))
    assert base.fingerprint == wanted.fingerprint
    assert not base.zeros_for_empty
    half = load_base(folder, device="cpu", precision="fp16")
    assert {w.dtype for net in half.networks.values() for w in net.parameters()} == {torch.float16}
    assert half.autoencoder.dtype is torch.float32
    assert half.fingerprint == wanted.fingerprint


def test_an_autoencoder_that_does_not_overflow_keeps_to_the_format() -> None:
    pipe = tiny_stable_diffusion_xl()
    pipe.vae.register_to_config(force_upcast=False)
    base = StableDiffusionXL.from_pipeline(pipe, "tiny", HOST, torch.float16)
    assert base.autoencoder.dtype is torch.float16


@pytest.mark.parametrize("kind", ["Inpaint", "Img2Img", "ControlNet"])
def test_a_folder_of_another_use_is_refused_in_a_line(tmp_path: Path, kind: str) -> None:
    index = {"_class_name": f"StableDiffusionXL{kind}Pipeline"}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(BaseError, match=f"is StableDiffusionXL{kind}Pipeline; what draws") as told:
        load_base(tmp_path, device="cpu")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("source", "scheduler", "word"),
    [
        ("stabilityai/sdxl-turbo", "", "turbo"),
        ("/models/my_SDXL_Lightning_4step.safetensors", "", "lightning"),
        ("/turbo/plain", "LCMScheduler", "lcm"),
        ("/turbo/hyperreal-xl", "EulerDiscreteScheduler", None),
    ],
)
def test_a_base_distilled_for_few_steps_is_told_by_its_name_or_scheduler(
    loaded: StableDiffusionXL, source: str, scheduler: str, word: str | None
) -> None:
    loaded.source = source
    loaded.scheduler_config["_class_name"] = scheduler
    assert loaded.distilled_from == (word and f"the base it was made from (this one says '{word}')")


def refused(**changes: object) -> str:
    """Return the words in which a pipeline is refused whose U-Net or scheduler was changed."""
    pipe = tiny_stable_diffusion_xl()
    for part in (pipe.unet, pipe.scheduler):
        part.register_to_config(**{k: v for k, v in changes.items() if k in part.config})
    with pytest.raises(BaseError) as refusal:
        StableDiffusionXL.from_pipeline(pipe, "x", HOST, torch.float32)
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


def test_networks_that_do_something_else_are_refused() -> None:
    assert "reads 9 channels, and latents have 4; it is for inpainting" in refused(in_channels=9)
    assert "told the guidance scale" in refused(time_cond_proj_dim=8)
    assert "predicts 'sample'; only epsilon" in refused(prediction_type="sample")
