"""What was learnt, added into the weights of a base for good.

Possible for techniques that change weights: LoRA and DreamBooth. The base itself stays untouched;
tensors are made one by one, so that no second copy of the base is held.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from personae.artifacts.artifact import Artifact
from personae.artifacts.low_rank import LowRankUpdate, updates_of
from personae.core.devices import HOST
from personae.core.registry import lookup
from personae.errors import UnsupportedError
from personae.models.family import Family
from personae.techniques.technique import Technique


class Baked:
    """The weights of a base with an artifact added.

    Raises:
        UnsupportedError: a technique of the artifact does not change weights.
        ArtifactError: the artifact is for another base.
    """

    def __init__(self, artifact: Artifact, base: Family) -> None:
        names = {record.name for record in artifact.card.techniques}
        if not names <= {"lora", "dreambooth"}:
            raise UnsupportedError(
                f"a {artifact.technique} does not change weights and cannot be part of a "
                "checkpoint; export it as a file of its own"
            )
        self.base = base
        self.deltas = lookup(Technique, "dreambooth").learnt_in(artifact.tensors)
        self.updates: Mapping[str, LowRankUpdate] = updates_of(artifact) if "lora" in names else {}

    def weights(self, network: str) -> Iterator[tuple[str, Tensor]]:
        """Yield (name, value) of every weight of `network`, on the host, in the base's format.

        Args:
            network: as in `base.networks`.
        """
        for name, weight in self.base.networks[network].state_dict().items():
            yield name, self._with_delta(f"{network}.{name}", weight.detach())

    @torch.no_grad()
    def _with_delta(self, name: str, weight: Tensor) -> Tensor:
        value = weight.to(HOST)
        delta = self.deltas.get(name)
        update = self.updates.get(name.removesuffix(".weight")) if name.endswith("weight") else None
        if delta is not None:
            value = value.float() + delta.float()
        if update is not None:
            value = value.float() + update.delta()
        return value.to(weight.dtype)
