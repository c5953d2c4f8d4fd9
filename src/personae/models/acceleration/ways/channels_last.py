"""Convolutions with channels last, the order in which tensor cores multiply them."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from personae.core.devices import has_matrix_cores
from personae.models.acceleration.acceleration import Acceleration
from personae.models.acceleration.packs import Packs, is_frozen
from personae.models.family import Family
from personae.models.forwards import Forward

LAST = torch.channels_last


class ChannelsLast(Acceleration):
    """Weights and activations of convolutions with channels last, forward and backward.

    Given channels first, a GPU's library lays input, weight and result out anew at each call.
    Results stay channels last, so that sums and activation functions between two convolutions do
    too. A frozen weight is laid out once; one that is trained at each call, within the graph.
    """

    name = "channels_last"
    title = "convolutions with channels last"
    source = "https://docs.nvidia.com/deeplearning/performance/dl-performance-convolutional/"
    part = "convolutions"
    tolerance = 1e-5
    copies = True

    @classmethod
    def fits(cls, base: Family) -> bool:
        """Serve wherever there are convolutions."""
        return bool(cls.modules(base))

    @classmethod
    def promises(cls, base: Family) -> bool:
        """Be tried on GPUs; a processor's group norm is many times slower on channels last."""
        return has_matrix_cores(base.device)

    @classmethod
    def modules(cls, base: Family) -> dict[str, nn.Module]:
        """Return the denoiser's two-dimensional convolutions padded with zeros."""
        return {
            name: module
            for name, module in base.denoiser.named_modules()
            if isinstance(module, nn.Conv2d) and module.padding_mode == "zeros"
        }

    def forward_for(self, module: nn.Module, plain: Forward) -> Forward:
        """Return the forward of one convolution."""
        if not isinstance(module, nn.Conv2d):
            return plain
        return partial(_forward, module, plain, Packs(module))


def _forward(module: nn.Conv2d, plain: Forward, packs: Packs, x: Tensor) -> Tensor:
    if x.dim() != 4 or x.dtype != module.weight.dtype:
        return plain(x)
    weight = packs.get("last", _laid) if is_frozen(module) else _laid(module.weight)
    output: Tensor = module._conv_forward(_laid(x), weight, module.bias)
    return output


def _laid(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=LAST)
