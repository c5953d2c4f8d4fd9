"""What every kind of base model offers, and nothing about what is trained on it.

A `Family` is the class, a loaded one is called `base`. Packing, time units, sign conventions and
prompt templates end here: nothing outside a family asks which family it is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor, nn

from personae.core.config import Config
from personae.core.registry import PlugIn
from personae.errors import UnsupportedError, UsageError
from personae.models.components import Components, text_component, text_network
from personae.models.drawing import Drawing
from personae.models.forwards import Forwards
from personae.models.layers import Layer, layers_matching
from personae.models.noise_path import NoisePath
from personae.models.original_names import OriginalNames
from personae.models.overlay import WeightOverlay
from personae.models.recommended import Recommended
from personae.models.targets import TargetSets
from personae.models.text import Conditions, Frame, Text
from personae.models.text_tower import TextTower
from personae.models.weights import sources
from personae.models.weights.fingerprint import fingerprint
from personae.models.weights.offloaded import Offloaded
from personae.models.weights.unloaded import Unloaded

if TYPE_CHECKING:
    from diffusers import ModelMixin


@dataclass(eq=False)
class Family(Drawing, PlugIn, ABC):
    """A loaded base model.

    A class sets `name`, `targets`, `samplers` and `usual_sampler` (see `Drawing`), and
    `denoiser_component`, what diffusers calls its denoiser ("unet", "transformer"). `file_layouts`
    names the kinds of files that A1111, ComfyUI and kohya's scripts have for its bases, keys of
    `LAYOUTS` in `formats/layout.py`; without any, formats that need one refuse the family.
    `original_names` are those of the denoiser's layers in the code that it was published with.
    `overflows_in` names number formats that it cannot be loaded in. A file
    `<name>.toml` beside that of the class may say what trainers in use do with its bases, in tables
    as a base's `personae.toml` has them.

    Attributes:
        denoiser: the network that is asked to undo noise (U-Net or transformer).
        autoencoder: pictures to latents and back.
        towers: the text encoders with their tokenizers, in the order the family uses them.
        path: how its latents become noise.
        scheduler_config: what the samplers are made from.
        device, dtype: where the frozen weights are and in which format.
        source: what it was loaded from, as the user wrote it.
        fingerprint: 16 hex digits that identify the denoiser's weights.
        acceleration: which quicker ways to compute it may use: auto, lean, none, or names.
        forwards: the quicker ways in use.
        quantised: format of the denoiser's linear layers where they are quantised, or "".
        recommendations: {technique: fields of `Recommended`} where this base wants others.
        overlays: the deltas laid over its networks, by identity; use `overlay`.
        widened: products in 16 bits are computed in float32 (`acceleration/wide_products`).
        unloaded: networks whose weights are out of memory now, such as those that it was loaded
            without.
        offloaded: the denoiser's blocks whose weights lie in the host's memory, or None.
    """

    denoiser: ModelMixin
    autoencoder: ModelMixin
    towers: list[TextTower]
    path: NoisePath
    scheduler_config: dict[str, Any]
    device: torch.device
    dtype: torch.dtype
    source: str
    fingerprint: str
    overlays: dict[int, WeightOverlay] = field(default_factory=dict)
    recommendations: dict[str, dict[str, Any]] = field(default_factory=dict)
    acceleration: str = "none"
    forwards: Forwards = field(default_factory=Forwards)
    quantised: str = ""
    widened: bool = False
    unloaded: Unloaded = field(default_factory=lambda: Unloaded([]))
    offloaded: Offloaded | None = None

    package: ClassVar[str] = "personae.models.families"
    group: ClassVar[str] = "personae.families"
    name: ClassVar[str]
    targets: ClassVar[TargetSets]
    denoiser_component: ClassVar[str]
    autoencoder_component: ClassVar[str] = "vae"
    file_layouts: ClassVar[tuple[str, ...]] = ()
    original_names: ClassVar[OriginalNames | None] = None
    overflows_in: ClassVar[frozenset[torch.dtype]] = frozenset()

    @classmethod
    @abstractmethod
    def recognises(cls, source: str | Path) -> bool:
        """Say whether this family can load `source`, without loading it."""

    @classmethod
    @abstractmethod
    def load(
        cls,
        source: str | Path,
        device: torch.device,
        dtype: torch.dtype,
        *,
        denoiser_unloaded: bool = False,
    ) -> Self:
        """Load a diffusers folder, a hub id or a single-file checkpoint.

        With `denoiser_unloaded` the denoiser's weights stay in their file until
        `unloaded.reload()`, where they lie in one that is read here.

        Raises:
            BaseError: nothing loadable is there; the message says what was looked for.
        """

    def configure(self, settings: Mapping[str, Any], where: str) -> None:
        """Take what a person says of this base in the table `[base]` of its personae.toml.

        A family that has such settings overrides this; here every one is refused.

        Args:
            settings: by name.
            where: the file, for messages.

        Raises:
            UsageError: a setting is unknown, or out of range.
            BaseError: it cannot be so on this base.
        """
        Config.parse(dict(settings), where=where)

    @classmethod
    @abstractmethod
    def tiny(cls, seed: int = 0) -> list[Self]:
        """Return variants at toy size made from the real classes, random weights, for tests."""

    @abstractmethod
    def encode_image(self, pixels: Tensor) -> Tensor:
        """Return scaled latents (b, c, h, w) of pixels (b, 3, H, W) in [-1, 1]."""

    @abstractmethod
    def decode_image(self, latents: Tensor) -> Tensor:
        """Return pixels (b, 3, H, W) in [-1, 1] of scaled latents (b, c, h, w)."""

    @abstractmethod
    def encode_text(self, prompts: Sequence[str]) -> Text:
        """Return the encoded prompts; differentiable with respect to what techniques attach."""

    @abstractmethod
    def denoise(
        self, noisy: Tensor, t: Tensor, text: Text, conditions: Conditions | None = None
    ) -> Tensor:
        """Return the prediction in the sense of `path.target`, shape of `noisy` (b, c, h, w).

        Args:
            noisy: latents, (b, c, h, w).
            t: times in the unit of `path`, (b,).
            text: encoded prompts.
            conditions: of `conditions`; None = of whole pictures of this size.
        """

    def conditions(self, frames: Sequence[Frame], guidance: float | None = None) -> Conditions:
        """Return what the denoiser is told besides noise level and text, a row for each frame.

        Args:
            frames: what each row shows.
            guidance: the scale that pictures are drawn with; None while training.
        """
        return Conditions()

    def latent_shape(self, width: int, height: int) -> tuple[int, int, int]:
        """Return (c, h, w) of the latents of one picture of `width` x `height` pixels.

        Raises:
            UsageError: a side is not a multiple the family can draw.
        """
        for side in (width, height):
            if side <= 0 or side % self.size_step:
                raise UsageError(
                    f"picture size is {width}x{height}; both sides must be multiples of "
                    f"{self.size_step}"
                )
        factor = self.latent_side
        return self.autoencoder.config.latent_channels, height // factor, width // factor

    @property
    def latent_side(self) -> int:
        """Return how many pixels a latent is high and wide, 8 for the usual autoencoder."""
        side: int = 2 ** (len(self.autoencoder.config.block_out_channels) - 1)
        return side

    @property
    @abstractmethod
    def resolution(self) -> int:
        """Side in pixels of the square pictures the base was trained on."""

    @property
    @abstractmethod
    def size_step(self) -> int:
        """Every side must be a multiple of this many pixels."""

    @property
    def text_encoding(self) -> tuple[object, ...]:
        """Return all that `encode_text` depends on besides ids, encoders and format, for caches."""
        return (self.name,)

    @property
    def autoencoding(self) -> tuple[object, ...]:
        """Return all that latents depend on besides picture and number format, for caches."""
        config = {k: v for k, v in self.autoencoder.config.items() if not k.startswith("_")}
        return self.name, fingerprint(self.autoencoder), sorted(config.items())

    @property
    def distilled_from(self) -> str | None:
        """Return the base to train on where this one was distilled to draw in few steps, or None.

        What is trained on a distilled base undoes its distillation before it learns a character.
        """
        return None

    def recommended(self, technique: str, usual: Recommended) -> Recommended:
        """Return how `technique` is best trained on this base.

        The base's own advice goes over the practice with its kind, and that over `usual`.

        Raises:
            UsageError: a field of the base's advice is unknown or out of range.
        """
        practice = sources.practice_with(type(self)).get(technique, {})
        own = self.recommendations.get(technique, {})
        values = {**usual.model_dump(), **practice, **own}
        return Recommended.parse(values, where=f"advice of base '{self.source}' for {technique}")

    def allowing(self, acceleration: str) -> Self:
        """Return this base, its networks shared, computed only in the ways named here."""
        return replace(self, acceleration=acceleration)

    @property
    def precision(self) -> str:
        """Return the name of the frozen weights' format as recipes record it."""
        return self.quantised or str(self.dtype).removeprefix("torch.")

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Return every network whose weights can be adapted, by the name used in artifacts."""
        towers = {text_network(i): tower.encoder for i, tower in enumerate(self.towers)}
        return {"denoiser": self.denoiser, **towers}

    def layers(self) -> dict[str, Layer]:
        """Return {`<network>.<dotted name>`: layer} of every Linear and Conv2d of `networks`.

        Raises:
            UnsupportedError: attention projections were fused, so that hooks would be skipped.
        """
        return {
            f"{network}.{name}": layer
            for network, module in self.networks.items()
            for name, layer in layers_matching(module, "").items()
        }

    @property
    def components(self) -> Components:
        """Return every network by the name of its folder in a diffusers pipeline."""
        towers = [tower.encoder for tower in self.towers]
        return Components(
            denoiser={self.denoiser_component: self.denoiser},
            autoencoder={self.autoencoder_component: self.autoencoder},
            text_encoders={text_component(i): each for i, each in enumerate(towers)},
        )

    @property
    def file_layout(self) -> str | None:
        """Return the one of `file_layouts` that this base has, or None where there is none.

        A family with several says how to tell them apart.
        """
        return self.file_layouts[0] if self.file_layouts else None

    def overlay(self, network: nn.Module) -> WeightOverlay:
        """Return the one overlay of `network`, shared by all techniques that lay deltas on it.

        Raises:
            UnsupportedError: blocks of it are offloaded, and deltas lie over what is there.
        """
        if self.offloaded is not None and network is self.denoiser:
            raise UnsupportedError(
                f"blocks of base '{self.source}' are offloaded, and this technique changes the "
                "base's own weights, which must be there for that; leave block_offload out"
            )
        return self.overlays.setdefault(id(network), WeightOverlay(network))
