"""Stable Diffusion against diffusers' own pipeline, and what is refused when loading."""

from __future__ import annotations

import copy
import inspect
import itertools
import json
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    UniPCMultistepScheduler,
)
from safetensors.torch import save_file

from personae.core.devices import HOST
from personae.core.registry import discover
from personae.core.seeds import generator_for
from personae.errors import BaseError, UsageError
from personae.generation.generate import draw
from personae.generation.sampler import Shot
from personae.generation.settings import Sampling
from personae.models.families.stable_diffusion import StableDiffusion
from personae.models.load import load_base
from personae.models.toys import tiny_stable_diffusion
from personae.techniques.technique import Technique
from tiny_world import prediction

KARRAS = {"use_karras_sigmas": True}
SDE = {"algorithm_type": "sde-dpmsolver++"}
SCHEDULERS = {
    "ddim": (DDIMScheduler, {}),
    "euler": (EulerDiscreteScheduler, {}),
    "euler_karras": (EulerDiscreteScheduler, KARRAS),
    "euler_a": (EulerAncestralDiscreteScheduler, {}),
    "dpm++2m": (DPMSolverMultistepScheduler, {}),
    "dpm++2m_karras": (DPMSolverMultistepScheduler, KARRAS),
    "dpm++2m_sde": (DPMSolverMultistepScheduler, SDE),
    "dpm++2m_sde_karras": (DPMSolverMultistepScheduler, {**SDE, **KARRAS}),
    "unipc": (UniPCMultistepScheduler, {}),
    "unipc_karras": (UniPCMultistepScheduler, KARRAS),
}
PROMPTS = ["a cat and the can", "the man " * 60, "", "CAT, the   (can)! é"]


@pytest.fixture(scope="module", params=[1, 2])
def pipe(request: pytest.FixtureRequest) -> StableDiffusionPipeline:
    made = tiny_stable_diffusion(request.param)
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture
def loaded(pipe: StableDiffusionPipeline) -> StableDiffusion:
    return StableDiffusion.from_pipeline(pipe, "tiny", HOST, torch.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bases") / "tiny"
    tiny_stable_diffusion(1).save_pretrained(path)
    return path


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    """Return a copy of the folder of a base, to be spoilt."""
    for file in folder.rglob("*"):
        if file.is_file():
            there = tmp_path / "base" / file.relative_to(folder)
            there.parent.mkdir(parents=True, exist_ok=True)
            there.write_bytes(file.read_bytes())
    return tmp_path / "base"


def test_every_sampler_of_the_family_is_compared() -> None:
    assert set(SCHEDULERS) == set(StableDiffusion.samplers)


def scheduler_with_our_noise(sampler: str, pipe: StableDiffusionPipeline, seed: int) -> Any:
    """Return diffusers' scheduler; a step that takes noise gets that of the row's own stream."""
    kind, changes = SCHEDULERS[sampler]
    made = kind.from_config(pipe.scheduler.config, **changes)
    step, count = made.step, itertools.count()
    if "generator" in inspect.signature(step).parameters:

        def told(*args: Any, generator: torch.Generator, **kwargs: Any) -> Any:
            return step(*args, generator=generator_for(seed, "sampler", next(count)), **kwargs)

        made.step = told
    return made


@pytest.mark.parametrize("sampler", list(SCHEDULERS))
@pytest.mark.parametrize(("guidance_scale", "negative"), [(1.0, ""), (6.0, "the man")])
def test_a_picture_equals_that_of_the_pipeline(
    pipe: StableDiffusionPipeline,
    loaded: StableDiffusion,
    sampler: str,
    guidance_scale: float,
    negative: str,
) -> None:
    theirs = copy.copy(pipe)
    theirs.scheduler = scheduler_with_our_noise(sampler, pipe, seed=11)
    wanted = theirs(
        prompt="a cat and the can",
        negative_prompt=negative,
        num_inference_steps=5,
        guidance_scale=guidance_scale,
        generator=torch.Generator().manual_seed(11),
        output_type="latent",
        width=64,
        height=128,
    ).images
    seen = []
    decode = StableDiffusion.decode_image

    class Watched(StableDiffusion):
        def decode_image(self, latents: torch.Tensor) -> torch.Tensor:
            seen.append(latents)
            return decode(self, latents)

    base = copy.copy(loaded)
    base.__class__ = Watched
    sampling = Sampling(
        sampler=sampler,
        steps=5,
        guidance_scale=guidance_scale,
        negative_prompt=negative,
        width=64,
        height=128,
    )
    (picture,) = draw(base, [Shot("a cat and the can", 11)], sampling)
    torch.testing.assert_close(seen[0], wanted, rtol=0, atol=1e-4)
    pixels = pipe.vae.decode(wanted / pipe.vae.config.scaling_factor).sample
    image = pipe.image_processor.postprocess(pixels.detach(), output_type="np")[0]
    mine = np.asarray(picture.image, dtype=np.float32) / 255
    assert mine.shape == (128, 64, 3)
    assert np.abs(mine - image).max() <= 0.5 / 255 + 1e-4


def test_text_is_encoded_as_by_the_pipeline(
    pipe: StableDiffusionPipeline, loaded: StableDiffusion
) -> None:
    wanted, _ = pipe.encode_prompt(PROMPTS, HOST, 1, False)
    assert torch.equal(loaded.encode_text(PROMPTS).embeds, wanted)


def test_pictures_go_to_latents_and_back_as_by_the_pipeline(
    pipe: StableDiffusionPipeline, loaded: StableDiffusion
) -> None:
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        latents = loaded.encode_image(pixels)
        factor = pipe.vae.config.scaling_factor
        assert torch.equal(latents, pipe.vae.encode(pixels).latent_dist.mean * factor)
        assert torch.equal(loaded.decode_image(latents), pipe.vae.decode(latents / factor).sample)
    assert tuple(latents.shape[1:]) == loaded.latent_shape(64, 64)


def test_the_base_is_frozen_and_settled(loaded: StableDiffusion) -> None:
    for network in (*loaded.networks.values(), loaded.autoencoder):
        assert not network.training
        assert not any(parameter.requires_grad for parameter in network.parameters())


def test_sizes_the_network_cannot_draw_are_refused(loaded: StableDiffusion) -> None:
    assert loaded.latent_shape(128, 64) == (4, 8, 16)
    with pytest.raises(UsageError, match="picture size is 100x64; both sides must be multiples"):
        loaded.latent_shape(100, 64)


# Loading


def test_a_saved_pipeline_loads_and_predicts_the_same(folder: Path) -> None:
    base = load_base(folder, device="cpu", precision="fp32")
    pipe = tiny_stable_diffusion(1)
    wanted = StableDiffusion.from_pipeline(pipe, "tiny", HOST, torch.float32)
    assert torch.equal(prediction(base), prediction(wanted))
    assert base.fingerprint == wanted.fingerprint
    assert base.source == str(folder)
    assert base.path.prediction_type == "epsilon"


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_weights_are_loaded_straight_into_the_asked_precision(folder: Path, precision: str) -> None:
    wanted = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    base = load_base(folder, device="cpu", precision=precision)
    assert {p.dtype for network in base.networks.values() for p in network.parameters()} == {wanted}
    # An SD 1.x autoencoder overflows in fp16, so that it alone stays in fp32.
    kept = torch.float32 if precision == "fp16" else wanted
    assert base.autoencoder.dtype == kept
    exact = load_base(folder, device="cpu", precision="fp32")
    if precision == "bf16":
        assert base.fingerprint == exact.fingerprint
    for name, weight in base.denoiser.named_parameters():
        assert torch.equal(weight, exact.denoiser.get_parameter(name).to(wanted))


def test_advice_in_the_folder_of_a_base_is_taken(copied: Path) -> None:
    advice = "[recommended.lora]\nlearning_rate = 0.03\n"
    (copied / "personae.toml").write_text(advice, encoding="utf-8")
    base = load_base(copied, device="cpu")
    assert base.recommendations == {"lora": {"learning_rate": 0.03}}
    (copied / "personae.toml").write_text(advice.replace("rate", "rat"), encoding="utf-8")
    advised = load_base(copied, device="cpu")
    with pytest.raises(UsageError, match=r"lora: unknown key 'learning_rat'. Did you mean"):
        advised.recommended("lora", discover(Technique)["lora"].recommended)


def test_loading_uses_nothing_that_a_library_gives_up(folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        base = load_base(folder, device="cpu", precision="bf16")
    assert {parameter.dtype for parameter in base.denoiser.parameters()} == {torch.bfloat16}


def one_line(error: BaseException) -> str:
    assert "\n" not in str(error)
    return str(error)


def test_a_folder_that_is_no_base_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BaseError, match=r"has no model_index\.json; expected a diffusers folder"):
        load_base(tmp_path, device="cpu")
    with pytest.raises(BaseError, match="is no folder, file or hub id"):
        load_base(tmp_path / "nowhere" / "at" / "all", device="cpu")
    with pytest.raises(BaseError, match=r"'tooon' is no folder.*Did you mean 'toon'"):
        load_base("tooon", device="cpu")


def test_a_pipeline_of_another_kind_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "AudioPipeline"}))
    with pytest.raises(BaseError, match="is AudioPipeline, which no family here loads") as refusal:
        load_base(tmp_path, device="cpu")
    one_line(refusal.value)


@pytest.mark.parametrize("text", ["{", "[]", "\xff", ""])
def test_a_damaged_index_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "model_index.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(BaseError, match=r"model_index\.json.*damaged") as refusal:
        load_base(tmp_path, device="cpu")
    one_line(refusal.value)


@pytest.mark.parametrize(
    "file",
    [
        "unet/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
        "unet/config.json",
        "scheduler/scheduler_config.json",
    ],
)
@pytest.mark.parametrize("spoil", ["missing", "truncated"])
def test_a_base_with_a_spoilt_file_is_refused(copied: Path, file: str, spoil: str) -> None:
    path = copied / file
    content = path.read_bytes()
    path.unlink()
    if spoil == "truncated":
        path.write_bytes(content[: len(content) // 2])
    told = r"could not be loaded|has no|not there|is damaged"
    with pytest.raises(BaseError, match=told) as refusal:
        load_base(copied, device="cpu", precision="fp32")
    assert str(copied) in one_line(refusal.value)


def test_a_base_without_its_words_is_refused(copied: Path) -> None:
    (copied / "tokenizer" / "tokenizer.json").unlink()
    with pytest.raises(BaseError, match=r"knows \d+ words, its text encoder 521") as refusal:
        load_base(copied, device="cpu", precision="fp32")
    one_line(refusal.value)


class Payload:
    """Writes a file when unpickled, as hostile checkpoints run code."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Path.touch, (self.trace,))


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".bin"])
def test_a_pickle_checkpoint_is_refused_and_not_run(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(pickle.dumps(Payload(tmp_path / "trace")))
    with pytest.raises(BaseError, match="is a pickle checkpoint, which can run code"):
        load_base(path, device="cpu")
    assert not (tmp_path / "trace").exists()


def test_pickled_weights_inside_a_folder_are_not_run(copied: Path, tmp_path: Path) -> None:
    weights = copied / "unet" / "diffusion_pytorch_model.safetensors"
    weights.unlink()
    hostile = pickle.dumps(Payload(tmp_path / "trace"))
    weights.with_suffix(".bin").write_bytes(hostile)
    with pytest.raises(BaseError) as refusal:
        load_base(copied, device="cpu", precision="fp32")
    one_line(refusal.value)
    assert not (tmp_path / "trace").exists()


def test_a_damaged_or_foreign_single_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with pytest.raises(BaseError, match="no such file"):
        load_base(path, device="cpu")
    path.write_bytes(b"\x10\0\0\0\0\0\0\0{half a header")
    with pytest.raises(BaseError, match="is damaged"):
        load_base(path, device="cpu")
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(BaseError, match="is a single file, which no family here loads"):
        load_base(path, device="cpu")


def test_a_base_is_the_same_base_in_every_precision(tmp_path):
    tiny_stable_diffusion(1).save_pretrained(tmp_path)
    loaded = [load_base(tmp_path, precision=precision) for precision in ("fp32", "bf16", "fp16")]
    assert len({base.fingerprint for base in loaded}) == 1
