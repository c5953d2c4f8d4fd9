"""The yardstick: what diffusers' example scripts do in a training step by default, nothing cached.

train_text_to_image_lora.py, textual_inversion.py and train_dreambooth.py of diffusers 0.35 encode
the pictures with the VAE and the captions with the text encoder at each step, add the LoRA with
peft, keep what is trained in float32 under autocast, and update with AdamW. Reading files and
accelerate are left out, which only makes them faster.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline
from torch import Tensor, nn
from torch.nn import functional

from personae.core.seeds import generator_for
from personae.models.weights.pipelines import in_format

LORA_LAYERS = ["to_k", "to_q", "to_v", "to_out.0"]
TOKENS = [f"<plain{i}>" for i in range(8)]  # as many vectors as ours has by default


class PlainLoop:
    """One technique trained as the scripts train it.

    Attributes:
        trained: what is updated, float32.
        clipped: whether the script clips gradients (textual inversion's does not).
        trains_text: whether gradients go through the text encoder.
    """

    def __init__(
        self,
        folder: Path,
        technique: str,
        *,
        dtype: torch.dtype,
        device: torch.device,
        rank: int,
    ) -> None:
        """Load the pipeline and prepare `technique`.

        Args:
            folder: diffusers folder of the base.
            technique: one of `TECHNIQUES`.
            dtype: of frozen weights; float32 means without autocast.
            device: where.
            rank: of a LoRA.
        """
        self.pipe = StableDiffusionPipeline.from_pretrained(
            folder, **in_format(dtype), safety_checker=None, local_files_only=True
        ).to(device)
        self.device, self.dtype, self.rank = device, dtype, rank
        for network in (self.pipe.unet, self.pipe.vae, self.pipe.text_encoder):
            network.requires_grad_(False)
        self.schedule = DDPMScheduler.from_config(self.pipe.scheduler.config)
        self.clipped, self.trains_text = True, False
        self._after: Callable[[], None] = lambda: None
        self.trained: list[nn.Parameter] = TECHNIQUES[technique](self)
        self.optimizer = torch.optim.AdamW(self.trained, lr=1e-4, weight_decay=1e-2)

    @property
    def side(self) -> int:
        """Return the side in pixels of the pictures the base was trained on."""
        side: int = self.pipe.unet.config.sample_size * self.pipe.vae_scale_factor
        return side

    def train_lora(self) -> list[nn.Parameter]:
        """Add peft's LoRA to the attention layers."""
        from peft import LoraConfig

        unet = self.pipe.unet
        unet.add_adapter(LoraConfig(r=self.rank, lora_alpha=self.rank, target_modules=LORA_LAYERS))
        trained = [p for p in unet.parameters() if p.requires_grad]
        for parameter in trained:
            parameter.data = parameter.data.float()
        return trained

    def train_unet(self) -> list[nn.Parameter]:
        """Train the whole U-Net, kept in float32."""
        unet = self.pipe.unet.float().requires_grad_(True)
        return list(unet.parameters())

    def train_words(self) -> list[nn.Parameter]:
        """Add words, train the whole table of words in float32, and put the old words back."""
        self.pipe.tokenizer.add_tokens(TOKENS)
        encoder = self.pipe.text_encoder.float()
        encoder.resize_token_embeddings(len(self.pipe.tokenizer), mean_resizing=False)
        weight = encoder.get_input_embeddings().weight.requires_grad_(True)
        before = weight.detach().clone()
        old = torch.ones(len(weight), dtype=torch.bool, device=weight.device)
        old[self.pipe.tokenizer.convert_tokens_to_ids(TOKENS)] = False

        def put_back() -> None:
            with torch.no_grad():
                weight[old] = before[old]

        self.clipped, self.trains_text, self._after = False, True, put_back
        return [weight]

    def loss(self, pixels: Tensor, captions: list[str]) -> Tensor:
        """Return the loss of pictures (b, 3, H, W) in [-1, 1] and their captions."""
        pipe, schedule = self.pipe, self.schedule
        low_precision = self.dtype != torch.float32
        cast = torch.autocast(self.device.type, self.dtype) if low_precision else nullcontext()
        with torch.no_grad():
            latents = pipe.vae.encode(pixels.to(self.device, self.dtype)).latent_dist.sample()
            latents = latents * pipe.vae.config.scaling_factor
        ids = pipe.tokenizer(
            captions, padding="max_length", truncation=True, return_tensors="pt"
        ).input_ids
        with cast, torch.set_grad_enabled(self.trains_text):
            text = pipe.text_encoder(ids.to(self.device))[0].to(self.dtype)
        noise = torch.randn_like(latents)
        steps = schedule.config.num_train_timesteps
        t = torch.randint(steps, (len(latents),), device=self.device)
        noisy = schedule.add_noise(latents, noise, t)
        v = schedule.config.prediction_type == "v_prediction"
        target = schedule.get_velocity(latents, noise, t) if v else noise
        with cast:
            prediction = pipe.unet(noisy, t, text).sample
        return functional.mse_loss(prediction.float(), target.float())

    def step(self, pixels: Tensor, captions: list[str]) -> float:
        """Do one training step and return its loss."""
        loss = self.loss(pixels, captions)
        loss.backward()
        if self.clipped:
            torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self._after()
        return loss.item()


TECHNIQUES: dict[str, Callable[[PlainLoop], list[nn.Parameter]]] = {
    "lora": PlainLoop.train_lora,
    "dreambooth": PlainLoop.train_unet,
    "textual_inversion": PlainLoop.train_words,
}
"""Techniques the scripts train, with how each is prepared; there is none for hypernetworks."""


def inputs(batch: int, side: int) -> dict[str, Any]:
    """Return pictures of noise and captions, as `PlainLoop.loss` takes them."""
    pixels = torch.rand(batch, 3, side, side, generator=generator_for(0, "pixels")) * 2 - 1
    return {"pixels": pixels, "captions": [f"{TOKENS[0]} woman number {i}" for i in range(batch)]}
