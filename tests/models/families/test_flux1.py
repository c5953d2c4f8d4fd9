"""FLUX.1 against diffusers' own pipeline, and what is refused when loading."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline
from safetensors.torch import save_file

from personae.core.devices import HOST
from personae.errors import UsageError
from personae.generation.sampler import Shot, starting_noise
from personae.generation.settings import Sampling
from personae.models.families.flux1 import Flux1, packed, unpacked
from personae.models.load import load_base
from personae.models.toy_flux1 import tiny_flux
from tiny_world import drawn, make, prediction

PROMPTS = ["a cat and the can", "the man " * 40, "", "CAT, the (can)!"]


@pytest.fixture(scope="module")
def pipe() -> FluxPipeline:
    made = tiny_flux(guidance=True)
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def loaded() -> Flux1:
    return Flux1.tiny()[0]


@torch.no_grad()
def test_texts_equal_those_of_the_pipeline(pipe: FluxPipeline, loaded: Flux1) -> None:
    embeds, pooled, _ = pipe.encode_prompt(list(PROMPTS), max_sequence_length=32)
    text = loaded.encode_text(PROMPTS)
    torch.testing.assert_close(text.embeds, embeds, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(text.pooled, pooled, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("dynamic", [True, False])
def test_a_drawing_in_two_steps_equals_that_of_the_pipeline(told: bool, dynamic: bool) -> None:
    """Told the scale, in two passes where it is not, and as FLUX.1-schnell without guidance."""
    pipe = tiny_flux(guidance=told)
    pipe.set_progress_bar_config(disable=True)
    pipe.register_modules(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=dynamic)
    )
    base = Flux1.from_pipeline(pipe, "tiny", HOST, torch.float32)
    shots = [Shot(PROMPTS[0], 1), Shot(PROMPTS[1], 2)]
    how = Sampling(steps=2, guidance_scale=3.0, width=96, height=64, negative_prompt="the man")
    two_passes = not told and dynamic
    assert base.is_guided(3.0) == two_passes
    guidance = {"negative_prompt": ["the man"] * 2, "true_cfg_scale": 3.0} if two_passes else {}
    wanted = pipe(
        prompt=[shot.prompt for shot in shots],
        width=96,
        height=64,
        num_inference_steps=2,
        guidance_scale=3.0,
        latents=packed(starting_noise(base, shots, how)),
        max_sequence_length=32,
        output_type="latent",
        **guidance,
    ).images
    torch.testing.assert_close(packed(drawn(base, shots, how)), wanted, rtol=1e-5, atol=2e-5)


def test_pictures_are_decoded_and_encoded_as_by_the_pipeline(
    pipe: FluxPipeline, loaded: Flux1
) -> None:
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    config = pipe.vae.config
    with torch.no_grad():
        wanted = pipe.vae.decode(latents / config.scaling_factor + config.shift_factor).sample
        pixels = loaded.decode_image(latents)
        posterior = pipe.vae.encode(pixels).latent_dist.mode()
        back = loaded.encode_image(pixels)
    assert torch.equal(pixels, wanted)
    assert torch.equal(back, (posterior - config.shift_factor) * config.scaling_factor)


def test_packing_is_the_pipelines_and_is_undone() -> None:
    latents = torch.randn(2, 4, 6, 8)
    theirs = FluxPipeline._pack_latents(latents, 2, 4, 6, 8)
    assert torch.equal(packed(latents), theirs)
    assert torch.equal(unpacked(theirs, 3, 4), latents)


@torch.no_grad()
def test_training_tells_it_a_guidance_of_one(loaded: Flux1) -> None:
    assert loaded.conditions([None] * 2).values["guidance"].tolist() == [1, 1]
    assert loaded.conditions([None], 3.5).values["guidance"].tolist() == [3.5]


def test_the_pooled_vector_is_taken_at_the_end_mark_and_not_at_a_placeholder() -> None:
    """CLIP-L's settings have the end mark of old, by which transformers takes the largest id."""
    pipe = tiny_flux(guidance=True)
    pipe.text_encoder.config.eos_token_id = 2
    base = Flux1.from_pipeline(pipe, "tiny", HOST, torch.float32)
    plain = base.encode_text(["the cat"]).pooled
    technique = make("textual_inversion", base, initializer_words="cat", num_vectors=1).inject()
    try:
        same_words = base.encode_text([f"the {technique.phrase('mira', 'cat')}"]).pooled
    finally:
        technique.eject()
    torch.testing.assert_close(same_words, plain, rtol=0, atol=1e-5)


def test_a_folder_is_loaded_into_the_wanted_format(tmp_path: Path, loaded: Flux1) -> None:
    tiny_flux(guidance=True).save_pretrained(tmp_path / "tiny")
    base = load_base(tmp_path / "tiny", device="cpu", precision="fp32")
    assert base.fingerprint == loaded.fingerprint
    assert torch.equal(prediction(base, PROMPTS[:2]), prediction(loaded, PROMPTS[:2]))
    narrow = load_base(tmp_path / "tiny", device="cpu", precision="bf16")
    assert torch.isfinite(prediction(narrow, PROMPTS[:2])).all()
    with pytest.raises(UsageError, match=r"precision is 'fp16', in which .* overflow; use bf16"):
        load_base(tmp_path / "tiny", device="cpu", precision="fp16")


def test_a_single_file_under_original_names_is_the_same_base(tmp_path: Path) -> None:
    pipe = tiny_flux(guidance=True)
    pipe.save_pretrained(tmp_path / "flux")
    save_file(original(pipe.transformer.state_dict()), tmp_path / "flux.safetensors")
    base = load_base(tmp_path / "flux.safetensors", device="cpu", precision="fp32")
    wanted = Flux1.tiny()[0]
    assert base.fingerprint == wanted.fingerprint
    assert torch.equal(prediction(base), prediction(wanted))


def original(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the weights of the tiny transformer, of one block of each kind, as FLUX.1's own."""
    of, found = dict(weights), {}

    def move(here: list[str], there: str, leaves: tuple[str, ...] = ("weight", "bias")) -> None:
        for leaf in leaves:
            found[f"{there}.{leaf}"] = torch.cat([of.pop(f"{each}.{leaf}") for each in here])

    double, single = "transformer_blocks.0", "single_transformer_blocks.0"
    for side, qkv, out, ff, mod in (
        ("img", ("to_q", "to_k", "to_v"), "to_out.0", "ff", "norm1"),
        (
            "txt",
            ("add_q_proj", "add_k_proj", "add_v_proj"),
            "to_add_out",
            "ff_context",
            "norm1_context",
        ),
    ):
        move([f"{double}.attn.{each}" for each in qkv], f"double_blocks.0.{side}_attn.qkv")
        move([f"{double}.attn.{out}"], f"double_blocks.0.{side}_attn.proj")
        move([f"{double}.{ff}.net.0.proj"], f"double_blocks.0.{side}_mlp.0")
        move([f"{double}.{ff}.net.2"], f"double_blocks.0.{side}_mlp.2")
        move([f"{double}.{mod}.linear"], f"double_blocks.0.{side}_mod.lin")
        added = "added_" if side == "txt" else ""
        for key, name in (("q", "query"), ("k", "key")):
            norm = of.pop(f"{double}.attn.norm_{added}{key}.weight")
            found[f"double_blocks.0.{side}_attn.norm.{name}_norm.scale"] = norm
    parts = [f"{single}.attn.{each}" for each in ("to_q", "to_k", "to_v")]
    move([*parts, f"{single}.proj_mlp"], "single_blocks.0.linear1")
    move([f"{single}.proj_out"], "single_blocks.0.linear2")
    move([f"{single}.norm.linear"], "single_blocks.0.modulation.lin")
    for key, name in (("q", "query"), ("k", "key")):
        found[f"single_blocks.0.norm.{name}_norm.scale"] = of.pop(
            f"{single}.attn.norm_{key}.weight"
        )
    for here, there in (("timestep", "time"), ("text", "vector"), ("guidance", "guidance")):
        for layer, name in ((1, "in_layer"), (2, "out_layer")):
            move([f"time_text_embed.{here}_embedder.linear_{layer}"], f"{there}_in.{name}")
    move(["x_embedder"], "img_in")
    move(["context_embedder"], "txt_in")
    move(["proj_out"], "final_layer.linear")
    for leaf in ("weight", "bias"):
        scale, shift = of.pop(f"norm_out.linear.{leaf}").chunk(2)
        found[f"final_layer.adaLN_modulation.1.{leaf}"] = torch.cat([shift, scale])
    assert not of
    return found
