"""Where the weights of a base lie in a single-file checkpoint."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from personae.formats.layout import Layout, ldm_unet_name
from personae.formats.ldm_names import autoencoder_name, open_clip_name, with_text_model
from personae.models.components import text_network
from personae.models.family import Family

UNET = "model.diffusion_model."
AUTOENCODER = "first_stage_model."
HUGGING_FACE, OPEN_CLIP = "transformer.", "model."


@dataclass(frozen=True, slots=True)
class Place:
    """Where one weight lies.

    Attributes:
        name: of the tensor in the file.
        third: 0, 1 or 2 if the weight is that third of the tensor's rows.
        transposed: whether the file has rows for columns.
    """

    name: str
    third: int | None = None
    transposed: bool = False

    def taken_from(self, tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Return the weight of `shape` out of the file's tensor.

        Raises:
            ValueError: it does not fit.
        """
        if self.third is not None:
            if len(tensor) != 3 * shape[0]:
                raise ValueError
            tensor = tensor[self.third * shape[0] :][: shape[0]]
        if self.transposed:
            tensor = tensor.T
        if tensor.numel() != torch.Size(shape).numel():
            raise ValueError
        return tensor.reshape(shape)


def text_prefixes(layout: Layout) -> tuple[tuple[str, bool], ...]:
    """Return (prefix, whether in OpenCLIP's form) of each text encoder."""
    match layout.kind:
        case "sd1":
            return ((f"cond_stage_model.{HUGGING_FACE}", False),)
        case "sd2":
            return ((f"cond_stage_model.{OPEN_CLIP}", True),)
        case _:
            return (
                (f"conditioner.embedders.0.{HUGGING_FACE}", False),
                (f"conditioner.embedders.1.{OPEN_CLIP}", True),
            )


def places(base: Family, layout: Layout) -> dict[str, Place]:
    """Return {`<network>.<weight>`: place} of the denoiser and the text encoders."""
    found = {
        f"denoiser.{name}": Place(UNET + ldm_unet_name(base.denoiser, name))
        for name in base.denoiser.state_dict()
    }
    for i, (prefix, open_clip) in enumerate(text_prefixes(layout)):
        network = text_network(i)
        for name in base.networks[network].state_dict():
            key = f"{network}.{name}"
            found[key] = _open_clip(prefix, name) if open_clip else _plain(prefix, name)
    return found


def _plain(prefix: str, name: str) -> Place:
    return Place(prefix + with_text_model(name))


def _open_clip(prefix: str, name: str) -> Place:
    found = re.search(r"layers\.(\d+)\.self_attn\.([qkv])_proj\.(weight|bias)$", name)
    if found:
        joined = f"{prefix}transformer.resblocks.{found[1]}.attn.in_proj_{found[3]}"
        return Place(joined, third="qkv".index(found[2]))
    known = open_clip_name(name)
    return Place(prefix + known if known else prefix + name, transposed=known == "text_projection")


def packed(
    weights: Iterable[tuple[str, Tensor]], where: Mapping[str, Place]
) -> Iterator[tuple[str, Tensor]]:
    """Yield (name in the file, tensor) of weights named as in `where`."""
    thirds: dict[str, dict[int, Tensor]] = {}
    for name, weight in weights:
        place = where[name]
        if place.third is None:
            yield place.name, weight.T if place.transposed else weight
            continue
        parts = thirds.setdefault(place.name, {})
        parts[place.third] = weight
        if len(parts) == 3:
            yield place.name, torch.cat([parts[i] for i in range(3)])


def autoencoder_weights(base: Family) -> Iterator[tuple[str, Tensor]]:
    """Yield (name in the file, tensor) of the autoencoder; its attention becomes convolutions."""
    levels = len(base.autoencoder.config.block_out_channels)
    for name, weight in base.autoencoder.state_dict().items():
        ldm = autoencoder_name(name, levels)
        is_projection = ".attn_1." in ldm and weight.dim() == 2
        yield AUTOENCODER + ldm, weight[:, :, None, None] if is_projection else weight
