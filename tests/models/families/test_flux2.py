"""FLUX.2 klein against diffusers' own pipeline, and what is refused when loading."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, Flux2KleinPipeline

from personae.core.devices import HOST
from personae.errors import BaseError, UsageError
from personae.generation.cast import Cast
from personae.generation.sampler import Shot, sample, starting_noise
from personae.generation.settings import Sampling
from personae.models.families.flux2 import Flux2, text_layers
from personae.models.load import load_base
from personae.models.toys import tiny_flux2
from personae.techniques.lora import LoRA
from tiny_world import make, noisy, prediction, returned

LENGTH = 96  # of the tiny tokenizer; a published one asks for more than 512
PROMPTS = ["a cat and the can", "", "CAT, the   (can)! é\n\nthe man " + "a " * 600]


@pytest.fixture(scope="module")
def pipe() -> Flux2KleinPipeline:
    made = tiny_flux2()
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def loaded() -> Flux2:
    return Flux2.tiny()[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bases") / "tiny"
    tiny_flux2().save_pretrained(path)
    return path


def encoded(pipe: Flux2KleinPipeline, prompts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what the pipeline hands to the transformer for prompts: states and places."""
    layers = (1, 2, 3)  # of 4; of 36 they are 9, 18 and 27
    return pipe.encode_prompt(prompts, max_sequence_length=LENGTH, text_encoder_out_layers=layers)


@torch.no_grad()
def test_texts_equal_those_of_the_pipeline_in_their_padding_too(
    pipe: Flux2KleinPipeline, loaded: Flux2
) -> None:
    theirs, _ = encoded(pipe, PROMPTS)
    together = loaded.encode_text(PROMPTS)
    assert together.embeds.shape == (3, LENGTH, 3 * 16)
    torch.testing.assert_close(together.embeds, theirs, rtol=1e-5, atol=1e-6)
    for row, prompt in enumerate(PROMPTS):
        alone = loaded.encode_text([prompt]).embeds[0]
        torch.testing.assert_close(alone, theirs[row], rtol=1e-5, atol=1e-6)


def test_the_layers_read_are_those_of_the_pipelines() -> None:
    """Which count from the embedding: 9, 18, 27 of the 36 in klein, 10, 20, 30 of the 40 in dev."""
    assert text_layers(36) == [8, 17, 26]
    assert text_layers(40) == [9, 19, 29]
    with pytest.raises(BaseError, match=r"has 27 layers, .* expected a multiple of 4"):
        text_layers(27)


@torch.no_grad()
def test_one_prediction_equals_that_of_the_transformer(
    pipe: Flux2KleinPipeline, loaded: Flux2
) -> None:
    latents = torch.randn(
        2, *loaded.latent_shape(96, 64), generator=torch.Generator().manual_seed(2)
    )
    times = torch.tensor([0.25, 0.9])
    states, places = encoded(pipe, PROMPTS[:2])
    packed, ids = pipe.prepare_latents(
        2, 4, 64, 96, torch.float32, HOST, generator=None, latents=latents
    )
    wanted = pipe.transformer(packed, states, times, ids, places, return_dict=False)[0]
    wanted = pipe._unpack_latents_with_ids(wanted, ids)
    answer = loaded.denoise(latents, times, loaded.encode_text(PROMPTS[:2]))
    torch.testing.assert_close(answer, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shift", [{"shift": 3.0}, {"use_dynamic_shifting": True}])
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_a_drawing_in_two_steps_equals_that_of_the_pipeline(
    pipe: Flux2KleinPipeline, guidance: float, shift: dict
) -> None:
    pipe.scheduler = FlowMatchEulerDiscreteScheduler(**shift)
    base = Flux2.from_pipeline(pipe, "tiny", HOST, torch.float32)
    shots = [Shot(PROMPTS[0], 1), Shot("the man", 2)]
    how = Sampling(steps=2, guidance_scale=guidance, width=96, height=64)
    wanted = pipe(
        prompt=[shot.prompt for shot in shots],
        width=96,
        height=64,
        num_inference_steps=2,
        guidance_scale=guidance,
        latents=starting_noise(base, shots, how),
        max_sequence_length=LENGTH,
        text_encoder_out_layers=(1, 2, 3),
        output_type="pt",
    ).images
    with torch.no_grad():
        pixels = base.decode_image(returned(sample(base, shots, how, Cast())))
    # The pipeline rounds times in thousandths, and guidance makes the more of it.
    torch.testing.assert_close(
        (pixels / 2 + 0.5).clamp(0, 1), wanted, rtol=1e-5, atol=1e-5 * (1 + guidance)
    )


def test_a_distilled_base_draws_without_guidance_and_names_the_base_to_train_on(
    tmp_path: Path,
) -> None:
    tiny_flux2(is_distilled=True).save_pretrained(tmp_path)
    base = load_base(tmp_path, device="cpu", precision="fp32").allowing("none")
    assert not base.is_guided(4.0)
    assert base.distilled_from == "black-forest-labs/FLUX.2-klein-base-4B"
    shots, drawn = [Shot(PROMPTS[0], 1)], []
    for scale in (1.0, 4.0):
        how = Sampling(steps=2, guidance_scale=scale, width=64, height=64)
        drawn.append(returned(sample(base, shots, how, Cast())))
    assert torch.equal(*drawn)
    plain = Flux2.tiny()[0]
    assert plain.distilled_from is None
    assert plain.is_guided(4.0)
    assert not plain.is_guided(1.0)


@torch.no_grad()
def test_pictures_are_encoded_and_decoded_as_by_the_pipeline(
    pipe: Flux2KleinPipeline, loaded: Flux2
) -> None:
    pixels = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(1)) * 2 - 1
    latents = loaded.encode_image(pixels)
    assert latents.shape == (1, *loaded.latent_shape(96, 64))
    wanted = pipe._encode_vae_image(pixels, generator=None)
    torch.testing.assert_close(latents, wanted, rtol=1e-5, atol=1e-6)
    norm = pipe.vae.bn
    assert norm.running_mean.abs().min() > 1e-3
    patches = latents * (norm.running_var + 1e-4).sqrt()[:, None, None]
    whole = pipe._unpatchify_latents(patches + norm.running_mean[:, None, None])
    torch.testing.assert_close(
        loaded.decode_image(latents), pipe.vae.decode(whole).sample, rtol=1e-5, atol=1e-5
    )


def test_drawing_is_shifted_by_steps_and_tokens_and_training_by_the_scheduler(
    loaded: Flux2,
) -> None:
    shape = (128, 64, 64)  # of 1024 x 1024
    assert loaded.path.shift_at(shape) == pytest.approx(3.16, abs=0.01)
    assert loaded.drawing_shift(50, shape) == pytest.approx(7.57, abs=0.01)
    assert loaded.drawing_shift(4, shape) == pytest.approx(9.89, abs=0.01)
    assert loaded.drawing_shift(50, (128, 32, 32)) == pytest.approx(5.5, abs=0.05)


def test_a_folder_is_loaded_into_the_wanted_format(folder: Path, loaded: Flux2) -> None:
    base = load_base(folder, device="cpu", precision="fp32")
    assert torch.equal(prediction(base), prediction(loaded))
    assert base.fingerprint == loaded.fingerprint
    narrow = load_base(folder, device="cpu", precision="bf16")
    assert {weight.dtype for weight in narrow.denoiser.parameters()} == {torch.bfloat16}
    assert narrow.fingerprint == loaded.fingerprint
    assert torch.isfinite(prediction(narrow)).all()
    pixels = narrow.decode_image(noisy(narrow)[0])
    assert torch.isfinite(narrow.encode_image(pixels)).all()


def test_a_format_it_overflows_in_is_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"precision is 'fp16', in which .* overflow; use bf16"):
        load_base(folder, device="cpu", precision="fp16")


def test_dev_is_refused_in_words_and_others_are_told_apart(folder: Path, tmp_path: Path) -> None:
    assert Flux2.recognises(folder)
    index = tmp_path / "model_index.json"
    index.write_text(json.dumps({"_class_name": "FluxPipeline"}))
    assert not Flux2.recognises(tmp_path)
    index.write_text(json.dumps({"_class_name": "Flux2Pipeline"}))
    with pytest.raises(BaseError, match=r"is FLUX\.2 dev, .*; use FLUX\.2 klein, such as"):
        load_base(tmp_path)


def test_a_size_that_it_cannot_draw_is_refused(loaded: Flux2) -> None:
    assert loaded.latent_shape(96, 64) == (16, 4, 6)
    with pytest.raises(UsageError, match="72x64; both sides must be multiples of 16"):
        loaded.latent_shape(72, 64)


def test_text_stream_modulation_and_embedders_are_adapted_on_request_alone(loaded: Flux2) -> None:
    def layers(targets: str) -> set[str]:
        return set(make("lora", loaded, rank=4, targets=targets).layers)

    counts = {"attention": 4 + 2, "feed_forward": 2, "text_stream": 4 + 2, "modulation": 3}
    counts["embedders"] = 2 + 2
    assert {targets: len(layers(targets)) for targets in loaded.targets.sets} == counts
    assert layers("all") == layers("attention+feed_forward")
    assert not [name for name in layers("all") if "add_" in name or "context" in name]


def test_what_trainers_in_use_do_is_recommended_unless_the_base_knows_better() -> None:
    base, usual = Flux2.tiny()[0], LoRA.recommended
    of_kind = base.recommended("lora", usual)
    assert of_kind.max_steps == 2000 != usual.max_steps
    assert of_kind.weight_decay == usual.weight_decay
    base.recommendations = {"lora": {"max_steps": 3000}}
    own = base.recommended("lora", usual)
    assert (own.max_steps, own.min_steps) == (3000, of_kind.min_steps)
