"""Textual Inversion: a few new word vectors; the base and its vocabulary stay as they are.

Source: Gal et al. 2022, arXiv:2208.01618, equation 2.
"""

from __future__ import annotations

from functools import partial
from typing import Self, cast

import torch
from torch import Tensor, nn

from personae.errors import UnsupportedError
from personae.models.family import Family
from personae.models.recommended import Recommended
from personae.models.text_tower import TextTower
from personae.techniques.settings.textual_inversion import TextualInversionConfig
from personae.techniques.technique import Technique
from personae.techniques.technique_config import TechniqueConfig

FALLBACK_WORDS = "character"
NORM_ROWS = 4096  # of a vocabulary in float32 at once


class TextualInversion(Technique):
    """Own float32 vectors, joined at look-up.

    The module learns the difference from the starting vectors, so that strength 0 means the
    starting words and the norm of what was learnt can be read off.
    """

    name = "textual_inversion"
    holder = "vectors"
    title = TextualInversionConfig.title
    source = "https://arxiv.org/abs/2208.01618"
    Config = TextualInversionConfig
    config: TextualInversionConfig
    stored_dtype = torch.float32
    names_character = True
    keeps_prompts = "fewer vectors (--textual-inversion-num-vectors)"
    recommended = Recommended(
        learning_rate=5e-3,
        weight_decay=0.0,
        steps_per_picture=150,
        min_steps=1500,
        max_steps=3000,
    )

    def __init__(
        self, config: TextualInversionConfig, base: Family, generator: torch.Generator | None
    ) -> None:
        config = self.settings_for(config, "character", FALLBACK_WORDS)
        super().__init__(config, base, generator)
        self._norms: list[Tensor] = []  # wanted of the vectors of each tower, once one is updated
        self.vectors = nn.ParameterList()
        for i, tower in enumerate(base.towers):
            words = config.initializer_words or FALLBACK_WORDS
            start = starting_vectors(tower, words, config.num_vectors)
            self.vectors.append(nn.Parameter(start.clone()))
            self.register_buffer(f"start_{i}", start)

    @property
    def trains_text(self) -> bool:
        """Always: what is learnt is read by the text encoder."""
        return True

    @classmethod
    def settings_for(
        cls, config: TechniqueConfig, name: str, class_noun: str
    ) -> TextualInversionConfig:
        """Fill in the placeholder `<name>` and the class noun as starting words."""
        own = cast(TextualInversionConfig, config)
        return own.model_copy(
            update={
                "placeholder": own.placeholder or f"<{name}>",
                "initializer_words": own.initializer_words or class_noun or FALLBACK_WORDS,
            }
        )

    def phrase(self, name: str, class_noun: str) -> str:
        """Return the placeholder; the class noun is left out, since the vectors carry it."""
        return self._placeholder

    @property
    def _placeholder(self) -> str:
        return cast(str, self.config.placeholder)  # `settings_for` has filled it in

    def rename_word(self, word: str) -> None:
        """Let `word` stand for the vectors from now on; the technique must not be injected."""
        self.config = self.config.model_copy(update={"placeholder": word})

    def inject(self) -> Self:
        """Let every tower know the placeholder.

        Raises:
            UnsupportedError: the placeholder is taken by another textual inversion, or is a word
                that the base knows.
        """
        placeholder = self._placeholder
        if any(len(tower.words(placeholder)) < 2 for tower in self.base.towers):
            raise UnsupportedError(
                f"textual_inversion.placeholder is '{placeholder}', a word that the base knows and "
                f"would lose; use one it does not know, such as <{placeholder}>"
            )
        if any(tower.has_placeholder(placeholder) for tower in self.base.towers):
            raise UnsupportedError(
                f"the placeholder {placeholder} is taken; give one of the two another"
            )
        for i, tower in enumerate(self.base.towers):
            tower.add_placeholder(placeholder, self.config.num_vectors, partial(self._current, i))
        self._injected = True
        return self

    def eject(self) -> None:
        """Let every tower forget the placeholder."""
        for tower in self.base.towers:
            tower.remove_placeholder(self._placeholder)
        self._injected = False

    @property
    def injected(self) -> bool:
        """Say whether the towers know the placeholder now."""
        return getattr(self, "_injected", False)

    def _current(self, tower: int) -> Tensor:
        learnt: Tensor = self.vectors[tower]
        if isinstance(self.strength, Tensor):
            raise UnsupportedError(
                "textual_inversion acts on the text; encode prompts of unlike strength one by one"
            )
        if self.strength == 1:
            return learnt
        start: Tensor = getattr(self, f"start_{tower}")
        return start + self.strength * (learnt - start)

    @torch.no_grad()
    def after_step(self) -> None:
        """Pull each vector's norm towards that of a usual word.

        Norms that grow without bound make the encoder ignore the rest of the prompt; the pull is
        the one of pivotal tuning scripts (norm + share * (median - norm)).
        """
        if not self._norms:
            starts = (getattr(self, f"start_{i}") for i in range(len(self.vectors)))
            self._norms = [
                usual_norm(tower.embedding.weight, start)
                for tower, start in zip(self.base.towers, starts, strict=True)
            ]
        for usual, learnt in zip(self._norms, self.vectors, strict=True):
            norm = learnt.norm(dim=1, keepdim=True).clamp(min=1e-8)
            wanted = norm + self.config.norm_pull * (usual - norm)
            learnt.mul_(wanted / norm)


def usual_norm(vocabulary: Tensor, start: Tensor) -> Tensor:
    """Return the norm of a word that the encoder listens to, a scalar.

    The median of the `vocabulary` (n, d), or of the `start` (count, d) where that is larger: most
    words of a small base may never have been trained, and stay far smaller than those it knows.
    """
    norms = [
        torch.cat([rows.float().norm(dim=1) for rows in vectors.detach().split(NORM_ROWS)])
        for vectors in (vocabulary, start)
    ]
    return torch.maximum(*(each.median() for each in norms))


def starting_vectors(tower: TextTower, words: str, count: int) -> Tensor:
    """Return (count, d) float32 vectors of `words`, repeated in turn.

    Raises:
        UnsupportedError: `words` has no token in the vocabulary.
    """
    ids = tower.words(words)
    if not ids:
        raise UnsupportedError(
            f"textual_inversion.initializer_words is '{words}', which has no token; "
            "use a word such as 'character'"
        )
    chosen = torch.tensor([ids[i % len(ids)] for i in range(count)])
    return tower.embedding.weight.detach()[chosen.to(tower.embedding.weight.device)].float().clone()
