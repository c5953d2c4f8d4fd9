"""Keys and values of a text that stays the same from one sampling step to the next."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from personae.models.acceleration.acceleration import Acceleration
from personae.models.family import Family
from personae.models.forwards import Forward
from personae.models.layers import layers_matching


class KeptText(Acceleration):
    """The last output of each layer that reads the text, while it is asked for it again.

    Sampling shows the same text tensor to these layers at every step. What is kept is only used
    for that very tensor, unwritten, and the very same weight: a hypernetwork hands its layers a
    new tensor, DreamBooth a new weight, and what LoRA adds is added outside.
    """

    name = "kept_text"
    title = "keys and values of the text computed once"
    source = "arXiv:2112.10752, equation 5: K and V depend on the text alone"
    part = "text"
    exact = True
    inference_only = True

    @classmethod
    def fits(cls, base: Family) -> bool:
        """Serve where the family names layers that read the text alone."""
        return base.targets.text_keys is not None and base.targets.text_values is not None

    @classmethod
    def modules(cls, base: Family) -> dict[str, nn.Module]:
        """Return the key and value projections of the text."""
        targets = base.targets
        if targets.text_keys is None or targets.text_values is None:
            return {}
        return {
            **layers_matching(base.denoiser, targets.text_keys),
            **layers_matching(base.denoiser, targets.text_values),
        }

    def forward_for(self, module: nn.Module, plain: Forward) -> Forward:
        """Return the remembering forward of one projection."""
        return _Remembering(module, plain)


class _Remembering:
    """The last result, with the version of every tensor it stands and falls with."""

    __slots__ = ("_kept", "_module", "_plain")

    def __init__(self, module: nn.Module, plain: Forward) -> None:
        self._module, self._plain = module, plain
        self._kept: tuple[tuple[Tensor | None, ...], Tensor, tuple[int, ...]] | None = None

    def __call__(self, x: Tensor) -> Tensor:
        parameters = self._module._parameters
        given = (x, parameters["weight"], parameters["bias"])
        if any(tensor is not None and tensor.is_inference() for tensor in given):
            return self._plain(x)  # writing to such tensors leaves no trace
        if self._kept is not None:
            kept, output, versions = self._kept
            same = all(old is new for old, new in zip(kept, given, strict=True))
            if same and _versions((*given, output)) == versions:
                return output
        output = self._plain(x)
        if not output.requires_grad:
            self._kept = given, output, _versions((*given, output))
        return output


def _versions(tensors: Sequence[Tensor | None]) -> tuple[int, ...]:
    return tuple(-1 if tensor is None else tensor._version for tensor in tensors)
