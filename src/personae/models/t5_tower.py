"""A text tower whose encoder is T5: no begin mark, and every row as long as the longest allowed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from personae.models.text_tower import TextTower


class T5Tower(TextTower):
    """A (tokenizer, T5 encoder) pair.

    The encoder reads the padding, too, as the bases that have it were trained.

    Attributes:
        length: how many ids the encoder reads, the end mark included.
    """

    def __init__(self, tokenizer: Any, encoder: nn.Module, length: int) -> None:
        super().__init__(tokenizer, encoder)
        self.length = min(length, tokenizer.model_max_length)

    def rows(self, prompts: Sequence[str]) -> list[list[int]]:
        """Return what the encoder reads of each: the prompt cut to what fits, end."""
        end = self.tokenizer.eos_token_id
        return [[*self.ids(prompt)[: self.length - 1], end] for prompt in prompts]

    def embedding_of(self, encoder: Any) -> nn.Embedding:
        """Return the table that the stack reads; `get_input_embeddings` gives one tied to it."""
        table: nn.Embedding = encoder.encoder.embed_tokens
        return table
