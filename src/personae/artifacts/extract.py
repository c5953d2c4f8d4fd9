"""A LoRA out of what another technique learnt, as far as a LoRA can hold it."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from personae.artifacts.artifact import Artifact
from personae.artifacts.low_rank import check_limits, cut_delta, kept_note, lora_artifact, stored
from personae.core.registry import lookup
from personae.errors import ArtifactError, UnsupportedError
from personae.models.family import Family
from personae.techniques.technique import Technique


def extract(artifact: Artifact, base: Family, *, rank: int = 32, share: float = 1.0) -> Artifact:
    """Return a LoRA that does what a DreamBooth or a linear hypernetwork does, as far as it can.

    Args:
        artifact: what to extract from.
        base: what it was trained on.
        rank: most ranks of a layer.
        share: of the squared singular values to keep, in (0, 1].

    Raises:
        UsageError: a number is out of its range.
        UnsupportedError: what was learnt is no change of weights.
        ArtifactError: the base is another one, or nothing was learnt.
    """
    check_limits(rank, share)
    artifact.check_base(base)
    notes = dict(artifact.card.notes) | {"extracted from": f"a {artifact.technique}"}
    match artifact.technique:
        case "dreambooth":
            deltas, lost = _dreambooth_deltas(artifact, base)
            if lost:
                notes["left out"] = f"changes of {lost} norms, biases and embeddings"
        case "hypernetwork":
            deltas = _hypernetwork_deltas(artifact, base)
        case other:
            raise UnsupportedError(
                f"a {other} is no change of weights, so no LoRA can be extracted from it; "
                "dreambooth and linear hypernetworks are"
            )
    if not deltas:
        raise ArtifactError("no linear or convolution layer was changed; nothing to extract")
    cuts = {layer: cut_delta(delta, rank, share) for layer, delta in deltas.items()}
    return lora_artifact(
        stored({layer: cut.update for layer, cut in cuts.items()}),
        artifact.card.base,
        character=artifact.card.character,
        notes=notes | kept_note(cuts),
    )


def _dreambooth_deltas(artifact: Artifact, base: Family) -> tuple[dict[str, Tensor], int]:
    """Return the change of each layer's weight, and how many changes are of no layer."""
    learnt = lookup(Technique, "dreambooth").learnt_in(artifact.tensors)
    changed = {name.removesuffix(".weight"): delta for name, delta in learnt.items() if delta.any()}
    layers = base.layers()
    deltas = {name: delta for name, delta in changed.items() if name in layers}
    return deltas, len(changed) - len(deltas)


def _hypernetwork_deltas(artifact: Artifact, base: Family) -> dict[str, Tensor]:
    """Return W H for each key and value layer; k = W (c + H c) makes that the change of W."""
    technique: Any
    (technique,) = artifact.build(base)
    deltas: dict[str, Tensor] = {}
    products: dict[str, Tensor] = {}
    for name, network in technique.networks.items():
        products[name] = _product(network)
    names = {id(module): name for name, module in base.denoiser.named_modules()}
    for part, layer in technique.layers:
        product = products[f"{layer.in_features}/{part}"]
        if product.any():
            deltas[f"denoiser.{names[id(layer)]}"] = layer.weight.float() @ product
    return deltas


def _product(network: nn.Sequential) -> Tensor:
    """Return the one matrix a linear network is.

    Raises:
        UnsupportedError: it is not linear, or adds a constant, which no LoRA can.
    """
    product: Tensor | None = None
    for layer in network:
        if isinstance(layer, nn.Dropout):
            continue
        if not isinstance(layer, nn.Linear) or layer.bias.any():
            raise UnsupportedError(
                "only hypernetworks without activation, layer norm and biases are linear; this one "
                f"has {'biases' if isinstance(layer, nn.Linear) else type(layer).__name__}"
            )
        product = layer.weight if product is None else layer.weight @ product
    if product is None:
        raise UnsupportedError("the hypernetwork has no linear layer; nothing to extract")
    return product.detach().float()
