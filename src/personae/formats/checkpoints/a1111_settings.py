"""The yaml beside a checkpoint, from which A1111 knows that a Stable Diffusion 2 predicts v."""

from __future__ import annotations

from typing import Any

import yaml

from personae.models.family import Family


def a1111_settings(base: Family) -> str:
    """Return the settings of `base` in the words of the original code."""
    schedule = base.scheduler_config
    parameters = {
        "parameterization": "v",
        "linear_start": schedule.get("beta_start", 0.00085),
        "linear_end": schedule.get("beta_end", 0.012),
        "num_timesteps_cond": 1,
        "timesteps": schedule.get("num_train_timesteps", 1000),
        "first_stage_key": "jpg",
        "cond_stage_key": "txt",
        "image_size": base.denoiser.config.sample_size,
        "channels": base.autoencoder.config.latent_channels,
        "cond_stage_trainable": False,
        "conditioning_key": "crossattn",
        "scale_factor": base.autoencoder.config.scaling_factor,
        "use_ema": False,
        "unet_config": _target("ldm.modules.diffusionmodules.openaimodel.UNetModel", _unet(base)),
        "first_stage_config": _target("ldm.models.autoencoder.AutoencoderKL", _autoencoder(base)),
        "cond_stage_config": _target(
            "ldm.modules.encoders.modules.FrozenOpenCLIPEmbedder",
            {"freeze": True, "layer": "penultimate"},
        ),
    }
    model = _target("ldm.models.diffusion.ddpm.LatentDiffusion", parameters)
    text: str = yaml.safe_dump({"model": model}, sort_keys=False)
    return text


def _target(name: str, parameters: dict[str, Any]) -> dict[str, Any]:
    return {"target": name, "params": parameters}


def _unet(base: Family) -> dict[str, Any]:
    config = base.denoiser.config
    widths = config.block_out_channels
    return {
        "use_checkpoint": False,
        "image_size": config.sample_size,
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "model_channels": widths[0],
        "attention_resolutions": [4, 2, 1],
        "num_res_blocks": config.layers_per_block,
        "channel_mult": [width // widths[0] for width in widths],
        "num_head_channels": 64,
        "use_spatial_transformer": True,
        "use_linear_in_transformer": True,
        "transformer_depth": 1,
        "context_dim": config.cross_attention_dim,
        "legacy": False,
    }


def _autoencoder(base: Family) -> dict[str, Any]:
    config = base.autoencoder.config
    widths = config.block_out_channels
    sizes = {
        "double_z": True,
        "z_channels": config.latent_channels,
        "resolution": config.sample_size,
        "in_channels": config.in_channels,
        "out_ch": config.out_channels,
        "ch": widths[0],
        "ch_mult": [width // widths[0] for width in widths],
        "num_res_blocks": config.layers_per_block,
        "attn_resolutions": [],
        "dropout": 0.0,
    }
    return {
        "embed_dim": config.latent_channels,
        "monitor": "val/rec_loss",
        "ddconfig": sizes,
        "lossconfig": {"target": "torch.nn.Identity"},
    }
