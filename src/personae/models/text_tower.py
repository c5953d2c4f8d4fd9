"""A tokenizer and its encoder, with room for words the vocabulary does not have.

A placeholder (such as `<mira>`) stands for ids beyond the vocabulary. The tokenizer and the
embedding table never change: ids are spliced in while tokenizing, and the vectors of a technique
are looked up while embedding.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn

from personae.errors import BaseError

Vectors = Callable[[], Tensor]
# transformers makes an empty tokenizer where its files are missing; tables may be padded a little.
WHOLE_VOCABULARY = 0.9


class TextTower:
    """One (tokenizer, encoder) pair of a base.

    Attributes:
        tokenizer: a transformers tokenizer with `bos`, `eos` and `pad` ids.
        encoder: a transformers text encoder.
        length: how many ids the encoder reads, begin and end included (77 for CLIP).

    Raises:
        BaseError: the tokenizer knows far fewer words than the encoder.
    """

    def __init__(self, tokenizer: Any, encoder: nn.Module) -> None:
        self.tokenizer, self.encoder = tokenizer, encoder
        self.length: int = tokenizer.model_max_length
        self.embedding = self.embedding_of(encoder)
        self.vocabulary_size: int = self.embedding.num_embeddings
        if len(tokenizer) < WHOLE_VOCABULARY * self.vocabulary_size:
            raise BaseError(
                f"a tokenizer of this base knows {len(tokenizer)} words, its text encoder "
                f"{self.vocabulary_size}; a file of the tokenizer is missing; fetch the base again"
            )
        self._placeholders: dict[str, tuple[range, Vectors]] = {}
        self._extra_ids: Tensor | None = None
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def with_encoder(self, encoder: nn.Module) -> Self:
        """Return the same tower around another encoder of the same shape, without placeholders."""
        other = copy(self)
        other.encoder, other.embedding = encoder, self.embedding_of(encoder)
        other._placeholders, other._extra_ids, other._handles = {}, None, []
        return other

    def embedding_of(self, encoder: Any) -> nn.Embedding:
        """Return the table in which `encoder` looks up its ids."""
        embedding: nn.Embedding = encoder.get_input_embeddings()
        return embedding

    def words(self, text: str) -> list[int]:
        """Return the vocabulary's ids of `text` without begin and end marks."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False).input_ids
        return ids

    def add_placeholder(self, placeholder: str, count: int, vectors: Vectors) -> None:
        """Let `placeholder` stand for `count` vectors, shape (count, d), looked up at each use."""
        taken = [ids.stop for ids, _ in self._placeholders.values()]
        start = max(taken, default=self.vocabulary_size)
        if not self._placeholders:
            self._handles = [
                self.embedding.register_forward_pre_hook(self._hide_new_ids),
                self.embedding.register_forward_hook(self._look_up_new_ids),
            ]
        self._placeholders[placeholder] = (range(start, start + count), vectors)

    def remove_placeholder(self, placeholder: str) -> None:
        """Forget `placeholder`; after the last one the encoder carries no hook of ours."""
        del self._placeholders[placeholder]
        if not self._placeholders:
            for handle in self._handles:
                handle.remove()
            self._handles, self._extra_ids = [], None

    def has_placeholder(self, placeholder: str) -> bool:
        """Say whether `placeholder` is taken."""
        return placeholder in self._placeholders

    def ids(self, prompt: str) -> list[int]:
        """Return the ids of a prompt with placeholders spliced in, without begin and end marks."""
        if not self._placeholders:
            return self.words(prompt)
        longest_first = sorted(self._placeholders, key=len, reverse=True)
        pattern = "(" + "|".join(map(whole_word, longest_first)) + ")"
        found: list[int] = []
        for part in re.split(pattern, prompt):
            placeholder = self._placeholders.get(part)
            found += self.words(part) if placeholder is None else placeholder[0]
        return found

    def rows(self, prompts: Sequence[str]) -> list[list[int]]:
        """Return what the encoder reads of each: begin, the prompt cut to what fits, end."""
        begin, end = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        return [[begin, *self.ids(prompt)[: self.length - 2], end] for prompt in prompts]

    def tokenize(self, prompts: Sequence[str]) -> Tensor:
        """Return ids (b, length): the rows of `prompts`, padded."""
        return self.padded(self.rows(prompts), self.length)

    def padded(self, rows: Sequence[Sequence[int]], length: int) -> Tensor:
        """Return ids (b, length) of rows, with padding at their ends."""
        pad = self.tokenizer.pad_token_id
        rows = [[*row, *[pad] * (length - len(row))] for row in rows]
        return torch.tensor(rows, device=self.embedding.weight.device)

    def _hide_new_ids(self, _: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        ids = inputs[0]
        self._extra_ids = ids
        return (torch.where(ids < self.vocabulary_size, ids, 0),)

    def _look_up_new_ids(self, _: nn.Module, __: Any, embeds: Tensor) -> Tensor:
        ids, self._extra_ids = self._extra_ids, None
        if ids is None:  # the hook before it has not run: nothing was looked up
            return embeds
        for new, vectors in self._placeholders.values():
            mine = ((ids >= new.start) & (ids < new.stop)).unsqueeze(-1)  # (b, l, 1)
            own = vectors()[(ids - new.start).clamp(0, len(new) - 1)]  # (b, l, d)
            embeds = torch.where(mine, own.to(embeds), embeds)
        return embeds


@contextmanager
def outputs_of(layers: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Yield a list of what each of `layers` puts out, (b, l, d), while an encoder is called.

    Read by hooks for the length of the `with` block: transformers' own `output_hidden_states`
    would leave hooks on the encoder for good.
    """
    found = [torch.empty(0)] * len(layers)

    def keep(place: int, _: nn.Module, __: Any, output: Tensor | tuple[Tensor, ...]) -> None:
        found[place] = output[0] if isinstance(output, tuple) else output

    handles = [
        layer.register_forward_hook(partial(keep, place)) for place, layer in enumerate(layers)
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def whole_word(placeholder: str) -> str:
    """Return a pattern that finds `placeholder`, but not inside of a longer word."""
    before = r"(?<!\w)" if re.match(r"\w", placeholder) else ""
    after = r"(?!\w)" if re.search(r"\w$", placeholder) else ""
    return before + re.escape(placeholder) + after
