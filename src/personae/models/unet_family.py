"""What families have in common whose denoiser is diffusers' U-Net with cross-attention."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from personae.errors import BaseError
from personae.models.components import text_component
from personae.models.family import Family
from personae.models.noise_path import Diffusion
from personae.models.prediction import Prediction, diffusion_of, marked
from personae.models.samplers import DIFFUSION_SAMPLERS
from personae.models.targets import TargetSets
from personae.models.text_tower import TextTower
from personae.models.weights import pipelines, sources
from personae.models.weights.fingerprint import fingerprint
from personae.models.weights.unloaded import Unloaded, readable_again

logger = logging.getLogger(__name__)


class UNetFamily(Family):
    """A family with a U-Net, an AutoencoderKL, CLIP text encoders and a `Diffusion` path.

    A class sets, besides what every family does: `pipeline`, its class in diffusers;
    `text_encoders`, how many it has; `file_parts`, the parts of a single file by the beginnings of
    their names in the original code; `left_out`, components of the pipeline that are not needed.
    """

    path: Diffusion
    denoiser_component = "unet"
    targets = TargetSets(
        sets={
            "cross_attention": r"attn2\.to_(q|k|v|out\.0)$",
            "attention": r"attn\d\.to_(q|k|v|out\.0)$",
            "feed_forward": r"\.ff\.net\.(0\.proj|2)$",
            "convolutions": r"resnets\.\d+\.conv|(down|up)samplers\.0\.conv$",
        },
        text_keys=r"attn2\.to_k$",
        text_values=r"attn2\.to_v$",
        self_keys=r"attn1\.to_k$",
        self_values=r"attn1\.to_v$",
    )
    samplers = DIFFUSION_SAMPLERS
    usual_sampler = "dpm++2m"

    pipeline: ClassVar[type[Any]]
    text_encoders: ClassVar[int]
    file_parts: ClassVar[Mapping[str, tuple[str, ...]]]
    left_out: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def load(
        cls,
        source: str | Path,
        device: torch.device,
        dtype: torch.dtype,
        *,
        denoiser_unloaded: bool = False,
    ) -> Self:
        """Load straight into `dtype`, tensor by tensor, without what is `left_out`."""
        if sources.is_single_file(source):
            pipelines.require_parts(Path(source), cls.file_parts)
        pipe = pipelines.load_pipeline(
            cls.pipeline,
            source,
            dtype,
            unloaded={cls.denoiser_component} if denoiser_unloaded else (),
            device=device,
            **dict.fromkeys(cls.left_out),
        )
        base = cls.from_pipeline(pipe, str(source), device, dtype)
        if sources.is_single_file(source):
            base._take(marked(Path(source)))
        if denoiser_unloaded:
            base.unloaded = Unloaded(list(readable_again(Path(source), base.components.denoiser)))
            base.unloaded.unload()
        if denoiser_unloaded or dtype is torch.float16:
            base.fingerprint = fingerprint(pipe.unet, Path(source) / cls.denoiser_component)
        return base

    @classmethod
    def from_pipeline(
        cls, pipe: Any, source: str, device: torch.device, dtype: torch.dtype
    ) -> Self:
        """Take a diffusers pipeline's own modules as a base; they are frozen and moved.

        Raises:
            BaseError: its denoiser is not one that draws from noise and text alone.
        """
        seen, drawn = pipe.unet.config.in_channels, pipe.vae.config.latent_channels
        if seen != drawn:
            raise BaseError(
                f"base '{source}' has a U-Net that reads {seen} channels, and latents have "
                f"{drawn}; it is for inpainting or editing, so use the base that draws from text"
            )
        names = [text_component(i) for i in range(cls.text_encoders)]
        encoders = [getattr(pipe, name) for name in names]
        tokenizers = [getattr(pipe, name.replace("text_encoder", "tokenizer")) for name in names]
        path, scheduler_config = diffusion_of(pipe.scheduler.config, source)
        # Most autoencoders overflow in fp16, and say so; the rest of the base may use it.
        overflows = dtype is torch.float16 and pipe.vae.config.force_upcast
        autoencoder_dtype = torch.float32 if overflows else dtype
        networks = {pipe.unet: dtype, pipe.vae: autoencoder_dtype, **dict.fromkeys(encoders, dtype)}
        for network, wanted in networks.items():
            network.requires_grad_(False).eval().to(device)
            if network.dtype != wanted:
                network.to(wanted)
        return cls(
            denoiser=pipe.unet,
            autoencoder=pipe.vae,
            towers=[TextTower(*pair) for pair in zip(tokenizers, encoders, strict=True)],
            path=path,
            scheduler_config=scheduler_config,
            device=device,
            dtype=dtype,
            source=source,
            fingerprint=fingerprint(pipe.unet),
        )

    def configure(self, settings: Mapping[str, Any], where: str) -> None:
        """Take what a person says of the prediction, in the place of what the files say."""
        said, single = Prediction.parse(dict(settings), where=where), Path(self.source)
        stated = marked(single).prediction_type if sources.is_single_file(single) else None
        if stated and said.prediction_type not in (stated, None):
            logger.warning(
                "%s says of itself that it predicts %s; %s says %s, which is taken: pictures that "
                "come out grey or burnt mean that it is wrong",
                *(self.source, stated, where, said.prediction_type),
            )
        self._take(said)

    def _take(self, said: Prediction) -> None:
        config = said.over(self.scheduler_config)
        if config != self.scheduler_config:
            self.path, self.scheduler_config = diffusion_of(config, self.source)

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Return the mean of the posterior, normalised; the mean makes a cache exact."""
        pixels = pixels.to(self.device, self.autoencoder.dtype)
        mode: Tensor = self.autoencoder.encode(pixels).latent_dist.mode().float()
        scale: float = self.autoencoder.config.scaling_factor
        statistics = self._statistics(mode)
        return (
            mode * scale if statistics is None else (mode - statistics[0]) * scale / statistics[1]
        )

    def decode_image(self, latents: Tensor) -> Tensor:
        """Return pixels in about [-1, 1]."""
        latents = latents.to(self.device, self.autoencoder.dtype)
        scale: float = self.autoencoder.config.scaling_factor
        statistics = self._statistics(latents)
        plain = latents / scale
        if statistics is not None:
            plain = latents * statistics[1] / scale + statistics[0]
        pixels: Tensor = self.autoencoder.decode(plain).sample
        return pixels

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return mean and deviation of each channel of latents where the autoencoder has them."""
        config = self.autoencoder.config
        values = config.get("latents_mean"), config.get("latents_std")
        if None in values:
            return None
        mean, deviation = (like.new_tensor(each).view(1, -1, 1, 1) for each in values)
        return mean, deviation

    @property
    def resolution(self) -> int:
        """Return the U-Net's sample size in pixels."""
        side: int = self.denoiser.config.sample_size * self.latent_side
        return side

    @property
    def size_step(self) -> int:
        """Return autoencoder factor x U-Net factor, at most an eighth of the resolution."""
        step: int = self.latent_side * 2 ** (len(self.denoiser.config.block_out_channels) - 1)
        return step
