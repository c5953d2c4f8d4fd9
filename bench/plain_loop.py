"""The yardstick: LoRA and full fine-tuning as diffusers' example scripts do them, nothing cached.

Each step encodes the pictures with the VAE and the captions with the text encoder, as the scripts
do by default; peft adds the adapter. Same base, pictures, captions, batch size and format as ours.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline
from peft import LoraConfig
from torch import Tensor
from torch.nn import functional


def plain_step(
    folder: Path, pixels: Tensor, captions: list[str], *, technique: str, rank: int
) -> Callable[[], float]:
    """Return a function that does one training step and returns its loss.

    Args:
        folder: diffusers folder of the base.
        pixels: (b, 3, H, W) in [-1, 1].
        captions: b captions.
        technique: "lora" or "dreambooth".
        rank: of the LoRA.
    """
    pipe = StableDiffusionPipeline.from_pretrained(
        folder, torch_dtype=torch.bfloat16, safety_checker=None, local_files_only=True
    )
    unet, noise_schedule = pipe.unet, DDPMScheduler.from_config(pipe.scheduler.config)
    for network in (unet, pipe.vae, pipe.text_encoder):
        network.requires_grad_(False)
    if technique == "lora":
        targets = ["to_k", "to_q", "to_v", "to_out.0"]
        unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=targets))
        trained = [p for p in unet.parameters() if p.requires_grad]
        for parameter in trained:
            parameter.data = parameter.data.float()
    else:
        unet.float().requires_grad_(True)
        trained = list(unet.parameters())
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=1e-2)

    def step() -> float:
        with torch.no_grad():
            latents = pipe.vae.encode(pixels.bfloat16()).latent_dist.sample()
            latents = latents * pipe.vae.config.scaling_factor
            ids = pipe.tokenizer(
                captions, padding="max_length", truncation=True, return_tensors="pt"
            ).input_ids
            text = pipe.text_encoder(ids)[0]
        noise = torch.randn_like(latents)
        t = torch.randint(noise_schedule.config.num_train_timesteps, (len(latents),))
        noisy = noise_schedule.add_noise(latents, noise, t)
        v = noise_schedule.config.prediction_type == "v_prediction"
        target = noise_schedule.get_velocity(latents, noise, t) if v else noise
        with torch.autocast("cpu", torch.bfloat16):
            prediction = unet(noisy, t, text).sample
        loss = functional.mse_loss(prediction.float(), target.float())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step
