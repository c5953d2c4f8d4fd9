"""What families have in common whose latents become noise along a straight line."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import diffusers
import torch
from torch import Tensor

from personae.errors import BaseError
from personae.models.family import Family
from personae.models.noise_path import Flow, ShiftByTokens
from personae.models.samplers import FLOW_SAMPLERS, FlowEuler, at_the_start
from personae.models.weights import pipelines, sources
from personae.models.weights.denoiser_file import denoiser_of, folder_beside
from personae.models.weights.fingerprint import fingerprint
from personae.models.weights.unloaded import Unloaded, readable_again


class FlowFamily(Family):
    """A family with a transformer and a `Flow` path; its samplers are shifted as the path is.

    A class sets, besides what every family does: `pipeline` and `denoiser_class`, their names in
    diffusers; `diffusers_needed`, the first version that has them as they are used here; `hub_id`,
    where people get it. With `original_names` and `single_file_marks`, ends of names of tensors
    that no other kind of base has, single files of its transformer are read, too.
    """

    path: Flow
    denoiser_component = "transformer"
    samplers = FLOW_SAMPLERS
    usual_sampler = "euler"

    pipeline: ClassVar[str]
    denoiser_class: ClassVar[str]
    diffusers_needed: ClassVar[tuple[int, int]]
    hub_id: ClassVar[str]
    single_file_marks: ClassVar[tuple[str, ...]] = ()
    patch: ClassVar[int] = 2  # side of the transformer's tokens, in the autoencoder's latents

    @classmethod
    def recognises(cls, source: str | Path) -> bool:
        """Accept folders and hub ids of its pipeline, and single files of its transformer."""
        if not sources.is_single_file(source):
            return sources.pipeline_class(source) == cls.pipeline
        keys, marks = sources.checkpoint_keys(source), cls.single_file_marks
        return bool(marks) and all(any(key.endswith(mark) for key in keys) for mark in marks)

    @classmethod
    def load(
        cls,
        source: str | Path,
        device: torch.device,
        dtype: torch.dtype,
        *,
        denoiser_unloaded: bool = False,
    ) -> Self:
        """Load straight into `dtype`, tensor by tensor.

        A single file holds the transformer; the rest lies in a folder beside it.
        """
        pipelines.require_diffusers(cls.diffusers_needed, source)
        kind, part, path = getattr(diffusers, cls.pipeline), cls.denoiser_component, Path(source)
        if sources.is_single_file(source) and cls.original_names is not None:
            folder = folder_beside(path, cls.pipeline, cls.hub_id)
            denoiser = denoiser_of(
                path, folder / part, cls.denoiser_class, cls.original_names, dtype
            )
            pipe = pipelines.load_pipeline(kind, folder, dtype, transformer=denoiser)
            return cls.from_pipeline(pipe, str(source), device, dtype)
        unloaded = {part} if denoiser_unloaded else ()
        pipe = pipelines.load_pipeline(kind, source, dtype, unloaded=unloaded, device=device)
        base = cls.from_pipeline(pipe, str(source), device, dtype)
        if denoiser_unloaded:
            base.unloaded = Unloaded(list(readable_again(path, base.components.denoiser)))
            base.unloaded.unload()
            base.fingerprint = fingerprint(base.denoiser, path / part)
        return base

    @classmethod
    @abstractmethod
    def from_pipeline(
        cls, pipe: Any, source: str, device: torch.device, dtype: torch.dtype
    ) -> Self:
        """Take a diffusers pipeline's own modules as a base; they are frozen and moved."""

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Return the mean of the posterior, shifted and scaled; the mean makes a cache exact."""
        config = self.autoencoder.config
        pixels = pixels.to(self.device, self.autoencoder.dtype)
        mode = self.autoencoder.encode(pixels).latent_dist.mode().float()
        latents: Tensor = (mode - config.shift_factor) * config.scaling_factor
        return latents

    def decode_image(self, latents: Tensor) -> Tensor:
        """Return pixels in about [-1, 1]."""
        config = self.autoencoder.config
        latents = latents.to(self.device, self.autoencoder.dtype)
        latents = latents / config.scaling_factor + config.shift_factor
        pixels: Tensor = self.autoencoder.decode(latents).sample
        return pixels

    @property
    def resolution(self) -> int:
        """Return the autoencoder's sample size, 1024; transformers have none."""
        side: int = self.autoencoder.config.sample_size
        return side

    @property
    def size_step(self) -> int:
        """Return the pixels of a latent x the latents of a token."""
        return self.latent_side * self.patch

    def scheduler(self, name: str, steps: int, shape: Sequence[int]) -> Any:
        """Return a sampler shifted for pictures of this size, its times set.

        Euler's are evenly spread from 1 to 1 / steps before the shift, as in diffusers' pipelines.
        """
        shift = self.drawing_shift(steps, shape)
        changes = {"shift": shift, "use_dynamic_shifting": False}
        # diffusers would drop what this list names, though it was changed.
        made = self.sampler(name, {**changes, "_use_default_values": []})
        if isinstance(made, FlowEuler):
            sigmas = torch.linspace(1.0, 1 / steps, steps).tolist()
            made.set_timesteps(sigmas=sigmas, device=self.device)
        else:
            made.set_timesteps(steps, device=self.device)
        return at_the_start(made)

    def drawing_shift(self, steps: int, shape: Sequence[int]) -> float:
        """Return the shift of a drawing in `steps` of latents of `shape` (c, h, w): the path's."""
        return self.path.shift_at(shape)


def frozen(networks: Iterable[Any], device: torch.device, dtype: torch.dtype) -> None:
    """Freeze the networks of a pipeline and move them to a device and a number format."""
    for network in networks:
        network.requires_grad_(False).eval().to(device)
        if network.dtype != dtype:
            network.to(dtype)


def flow_path(config: Mapping[str, Any], patch: int) -> Flow:
    """Return the path that a diffusers flow-matching scheduler of this `config` draws along.

    Args:
        config: of a FlowMatchEulerDiscreteScheduler.
        patch: side of the denoiser's tokens, in latents.

    Raises:
        BaseError: its shift is of a kind that is not known here.
    """
    if not config.get("use_dynamic_shifting"):
        return Flow(float(config.get("shift", 1.0)))
    if config.get("time_shift_type", "exponential") != "exponential":
        raise BaseError(
            f"the scheduler of this base has time_shift_type '{config['time_shift_type']}'; only "
            "'exponential' is known here"
        )
    tokens = config["base_image_seq_len"], config["max_image_seq_len"]
    return Flow(ShiftByTokens(tokens, (config["base_shift"], config["max_shift"]), patch))
