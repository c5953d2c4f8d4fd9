"""From the tensors of LoRA and LyCORIS files to updates of layers.

Knows every way the change of one layer is written; knows nothing of how files name layers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from personae.artifacts.low_rank import Cut, LowRankUpdate, cut_delta
from personae.errors import ArtifactError
from personae.formats.lora.fused import split

MOST_RANKS = 128
"""Most ranks an update is given that is not low-rank by itself; above it files grow large."""
SHARE = 1 - 1e-9
"""Of the squared singular values; what is left out is below 1 in 30,000 of the change."""

_SUFFIXES: tuple[tuple[str, str], ...] = (
    (r"[._]lora[._](down|A)(\.\w+)?\.weight", "down"),
    (r"[._]lora[._](up|B)(\.\w+)?\.weight", "up"),
    (r"\.lora_linear_layer\.down\.weight", "down"),
    (r"\.lora_linear_layer\.up\.weight", "up"),
    (r"\.lora_mid\.weight", "mid"),
    (r"\.alpha", "alpha"),
    (r"\.dora_scale", "dora"),
    (r"\.lora_magnitude_vector(\.\w+)?(\.weight)?", "dora"),
    (r"\.(hada_(w1_a|w1_b|w2_a|w2_b|t1|t2))", ""),
    (r"\.(lokr_(w1|w1_a|w1_b|w2|w2_a|w2_b|t2))", ""),
    (r"\.([ab][12])\.weight", ""),
    (r"\.diff", "diff"),
)

# What else LyCORIS and ComfyUI write, and why no sum of two matrices can stand for it.
_REFUSED: tuple[tuple[str, str], ...] = (
    (r"\.on_input", "IA3, which multiplies weights"),
    (r"\.(oft_blocks|oft_diag|rescale)", "OFT, which rotates weights"),
    (r"\.(w_norm|b_norm)", "changed norms, which no LoRA holds"),
    (r"\.diff_b", "changed biases, which no LoRA holds"),
    (r"\.bm\.weight", "GLoRA with a Tucker core"),
    (r"\.(set_weight|reshape_weight)", "replaced weights, which no LoRA holds"),
)


def split_key(key: str) -> tuple[str, str] | None:
    """Return (name of the layer, part) of a tensor's name, or None if it is no known part."""
    for pattern, part in _SUFFIXES:
        found = re.search(f"(?:{pattern})$", key)
        if found:
            return key[: found.start()], part or found[1]
    return None


def refusal(names: Iterable[str]) -> str | None:
    """Return why tensors of these names cannot be read, or None if every one is a known part."""
    names = list(names)
    for pattern, reason in _REFUSED:
        odd = next((name for name in names if re.search(f"(?:{pattern})$", name)), None)
        if odd is not None:
            return f"tensor '{odd}' is of {reason}; it cannot be read as a LoRA"
    odd = next((name for name in names if split_key(name) is None), None)
    if odd is None:
        return None
    return (
        f"tensor '{odd}' is no part of LoRA, LoHa, LoKr, GLoRA, DoRA or full differences; it "
        "cannot be read as a LoRA"
    )


@dataclass(slots=True)
class LoraReading:
    """What came of a file.

    Attributes:
        updates: {layer: update}.
        cuts: those that had to be approximated, with what was kept.
    """

    updates: dict[str, LowRankUpdate] = field(default_factory=dict)
    cuts: dict[str, Cut] = field(default_factory=dict)

    def add(
        self, layers: Sequence[str], parts: dict[str, Tensor], weights: Sequence[Tensor]
    ) -> None:
        """Read the parts of one matrix.

        Args:
            layers: the one layer that the matrix is, or those that lie in it, first rows first.
            parts: {part: value}.
            weights: of the layers in the base, each (out, in, kernel...).

        Raises:
            ArtifactError: a part is missing, unknown, or of the wrong shape.
        """
        weight = weights[0] if len(weights) == 1 else torch.cat(list(weights))
        name = " + ".join(layers)
        update = self._update(name, parts, weight)
        if len(layers) == 1:
            self.updates[name] = update
            return
        each = split(update, [len(weight) for weight in weights])
        self.updates |= {k: part for k, part in zip(layers, each, strict=True) if part is not None}

    def _update(self, name: str, parts: dict[str, Tensor], weight: Tensor) -> LowRankUpdate:
        kinds = set(parts) - {"alpha", "dora"}
        try:
            if kinds in ({"down", "up"}, {"down", "up", "mid"}) and "dora" not in parts:
                return _plain(parts, weight)
            delta = _delta(parts, kinds, weight)
            if delta.shape != weight.shape:
                delta = delta.reshape(weight.shape)
            if "dora" in parts:
                delta = _dora(delta, parts["dora"].float(), weight.float())
        except (RuntimeError, ValueError, KeyError, IndexError, ZeroDivisionError):
            shapes = {part: tuple(value.shape) for part, value in sorted(parts.items())}
            raise ArtifactError(
                f"'{name}' is {tuple(weight.shape)} in the base, which the file's {shapes} do not "
                "fit; the file is damaged or for another kind of base"
            ) from None
        if not torch.isfinite(delta).all():
            raise ArtifactError(f"'{name}' has a change that is not finite; the file is damaged")
        self.cuts[name] = cut_delta(delta, MOST_RANKS, SHARE)
        return self.cuts[name].update


def _scale(parts: dict[str, Tensor], rank: int) -> float:
    return parts["alpha"].float().item() / rank if "alpha" in parts else 1.0


def _plain(parts: dict[str, Tensor], weight: Tensor) -> LowRankUpdate:
    down, up = parts["down"], parts["up"]
    rank = down.shape[0]
    scale = _scale(parts, rank)
    if "mid" in parts:  # Tucker: a kernel between two 1x1 convolutions
        _require(down.dim() == 4 and up.dim() == 4 and parts["mid"].dim() == 4)
        _require(len(parts["mid"]) <= len(weight))
        down = torch.einsum("rskl,sm->rmkl", parts["mid"].float(), down[:, :, 0, 0].float())
        rank = down.shape[0]
    _require(down[0].numel() == weight[0].numel() and up.numel() == len(weight) * rank)
    down = down.reshape(rank, *weight.shape[1:])
    return LowRankUpdate(down, up.reshape(len(weight), rank, *(1 for _ in weight.shape[2:])), scale)


def _delta(parts: dict[str, Tensor], kinds: set[str], weight: Tensor) -> Tensor:
    """Return the change of the weight, float32, in any shape of its size."""
    parts = {part: value.float() for part, value in parts.items()}
    if {"down", "up"} <= kinds:
        return _plain(parts, weight).delta()
    if kinds == {"diff"}:
        _require(parts["diff"].numel() == weight.numel())
        return parts["diff"]
    if {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"} <= kinds:
        return _hadamard(parts, weight)
    if kinds and all(kind.startswith("lokr_") for kind in kinds):
        return _kronecker(parts, weight)
    if kinds == {"a1", "a2", "b1", "b2"}:
        return _generalised(parts, weight.float())
    raise KeyError(kinds)


def _hadamard(parts: dict[str, Tensor], weight: Tensor) -> Tensor:
    """Return (w1_a w1_b) o (w2_a w2_b) (LoHa, arXiv:2108.06098, section 2.2)."""
    factors = [_factor(parts, f"hada_w{i}", f"hada_t{i}", most=weight.numel()) for i in ("1", "2")]
    return factors[0] * factors[1] * _scale(parts, parts["hada_w1_b"].shape[0])


def _generalised(parts: dict[str, Tensor], weight: Tensor) -> Tensor:
    """Return B + W A (GLoRA, arXiv:2306.07967, equation 10), A = a1 a2 and B = b1 b2.

    Files from before 2024 call the outer factors a2 and b2; shapes tell which they are.
    """
    a, b = ([parts[f"{name}{i}"].flatten(1) for i in "12"] for name in "ab")
    if len(a[0]) < len(a[1]):
        a, b = a[::-1], b[::-1]
    rank, inputs = a[1].shape
    _require(a[0].shape == (inputs, rank) and rank < inputs == weight.shape[1])
    _require(b[0].shape == (len(weight), rank) and b[0].shape[0] * b[1].shape[1] == weight.numel())
    carried = torch.einsum("oi...,ir,rj->oj...", weight, a[0], a[1])
    return ((b[0] @ b[1]).reshape(weight.shape) + carried) * _scale(parts, rank)


def _kronecker(parts: dict[str, Tensor], weight: Tensor) -> Tensor:
    """Return w1 (x) w2 (LoKr, arXiv:2309.14859, section 3); either may be a product itself."""
    rank = None
    factors = []
    for i in ("1", "2"):
        if f"lokr_w{i}" in parts:
            factors.append(parts[f"lokr_w{i}"])
            continue
        factors.append(_factor(parts, f"lokr_w{i}", f"lokr_t{i}", most=weight.numel()))
        rank = parts[f"lokr_w{i}_b"].shape[0]
    left, right = factors
    _require(left.dim() == 2 and left.numel() * right.numel() == weight.numel())
    if right.dim() == 4:
        left = left[:, :, None, None]
    # With both factors whole there is no rank to divide by, and alpha plays no part.
    return torch.kron(left, right.contiguous()) * (_scale(parts, rank) if rank else 1.0)


def _factor(parts: dict[str, Tensor], name: str, core: str, most: int) -> Tensor:
    a, b = parts[f"{name}_a"], parts[f"{name}_b"]
    if core in parts:  # Tucker form: (i j k l) core, a (i, out), b (j, in)
        kernel = parts[core]
        _require(a.dim() == b.dim() == 2 and kernel.dim() == 4)
        _require(len(a) <= a.shape[1] and len(b) <= b.shape[1])
        _require(a.shape[1] * b.shape[1] * kernel[0, 0].numel() <= most)
        return torch.einsum("ijkl,jr,ip->prkl", kernel, b, a)
    _require(a.dim() == b.dim() == 2 and a.shape[0] * b.shape[1] <= most)
    return a @ b


def _dora(delta: Tensor, magnitude: Tensor, weight: Tensor) -> Tensor:
    """Return W' - W with W' = m o V / |V|, V = W + delta (DoRA, arXiv:2402.09353, equation 5).

    The magnitude belongs to inputs when it is shaped (1, in, ...), else to outputs.
    """
    moved = weight + delta
    of_inputs = magnitude.dim() > 1 and magnitude.shape[0] == 1 and magnitude.shape[1] > 1
    axis = 1 if of_inputs else 0
    _require(magnitude.numel() == weight.shape[axis])
    others = [d for d in range(weight.dim()) if d != axis]
    shape = [-1 if d == axis else 1 for d in range(weight.dim())]
    norm = moved.square().sum(others, keepdim=True).sqrt().clamp(min=1e-12)
    return magnitude.reshape(shape) * moved / norm - weight


def _require(fits: bool) -> None:
    if not fits:
        raise ValueError
