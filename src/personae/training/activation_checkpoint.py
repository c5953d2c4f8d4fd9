"""Which activations of the denoiser are computed again in the backward pass rather than kept.

Source: Chen et al. 2016, arXiv:1604.06174: of a part only the input is kept, and the part is
computed a second time when its gradient is due.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.utils.checkpoint import checkpoint

from personae.training.schedule import Extent

if TYPE_CHECKING:
    from diffusers import ModelMixin


class Recomputing:
    """Recomputes parts of a denoiser until `end`; parts are what diffusers lets one checkpoint.

    full: every part. selective: those on maps of the full resolution. Activations grow with places
    times channels and multiplications with places times channels squared, so in a U-Net the largest
    maps, which have the fewest channels, take the most memory for the least work.
    """

    def __init__(self, denoiser: ModelMixin, extent: Extent) -> None:
        self._denoiser, self._extent = denoiser, extent
        self._places = 0  # of the largest map of this pass, which is where a pass begins
        if extent != "none":
            self._handle = denoiser.register_forward_pre_hook(self._begin)
            denoiser.enable_gradient_checkpointing(self._compute)

    def end(self) -> None:
        """Keep all activations again."""
        if self._extent != "none":
            self._denoiser.disable_gradient_checkpointing()
            self._handle.remove()
            self._extent = "none"

    def _begin(self, *_: object) -> None:
        self._places = 0

    def _compute(self, part: Callable[..., Any], hidden: Tensor, *others: Any) -> Any:
        places = hidden.shape[2:].numel() if hidden.dim() == 4 else hidden.shape[1]
        self._places = max(self._places, places)
        if self._extent == "selective" and places < self._places:
            return part(hidden, *others)
        return checkpoint(part, hidden, *others, use_reentrant=False)
