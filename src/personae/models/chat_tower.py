"""A text tower whose encoder is a language model that reads a prompt as a message of a chat."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from personae.errors import UnsupportedError
from personae.models.text_tower import TextTower, Vectors, outputs_of, whole_word


class ChatTower(TextTower):
    """A (tokenizer, language model) pair that wraps prompts in the tokenizer's chat template.

    Rows are as long as their prompts. Padding comes last, where a causal model does not see it.

    Attributes:
        length: most ids that are read, template included.
        options: what the template is asked for, such as `enable_thinking`.
    """

    def __init__(self, tokenizer: Any, encoder: nn.Module, length: int, **options: Any) -> None:
        super().__init__(tokenizer, encoder)
        self.length, self.options = length, options

    def framed(self, prompt: str) -> str:
        """Return the chat in which `prompt` is the user's message."""
        chat: str = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}],
            tokenize=False,
            add_generation_prompt=True,
            **self.options,
        )
        return chat

    def rows(self, prompts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each prompt in its chat, cut to what fits."""
        return [self.ids(self.framed(prompt))[: self.length] for prompt in prompts]

    @property
    def layers(self) -> nn.ModuleList:
        """Return the layers of the model, from its input to its output."""
        layers: nn.ModuleList = self._model.layers
        return layers

    @property
    def _model(self) -> Any:
        return self.encoder.base_model  # without a head, where it has one

    def states(
        self, ids: Tensor, layers: Sequence[int], lengths: Sequence[int] | None = None
    ) -> list[Tensor]:
        """Return what each of `layers` of the model puts out for ids (b, l): (b, l, d) each.

        The mask is given, since the model would look at values for it, and tensors may have none.

        Args:
            ids: of padded rows.
            layers: by number, in the order of the answers.
            lengths: of the rows before their padding, which is then read by nobody, not by what
                is padding itself either; None = nothing but the order of places counts.
        """
        with outputs_of([self.layers[layer] for layer in layers]) as found:
            mask = self._mask(ids.shape[1], lengths)
            self._model(input_ids=ids, attention_mask=mask, use_cache=False)
        return found

    def _mask(self, length: int, lengths: Sequence[int] | None) -> Tensor:
        """Return what is added to attention logits, (1 or b, 1, length, length): 0, or very little.

        Causal, and nobody reads what lies beyond `lengths`.
        """
        weight = self.embedding.weight
        least = torch.finfo(weight.dtype).min
        table = torch.full((length, length), least, dtype=weight.dtype, device=weight.device)
        table = table.triu(1)[None, None]
        if lengths is None:
            return table
        places = torch.arange(length, device=weight.device)
        ends = torch.tensor(lengths, device=weight.device)[:, None, None, None]
        return torch.where(places < ends, table, least)

    def add_placeholder(self, placeholder: str, count: int, vectors: Vectors) -> None:
        """Let `placeholder` stand for vectors.

        Raises:
            UnsupportedError: it is a word of the template, which would lose it.
        """
        if re.search(whole_word(placeholder), self.framed("")):
            raise UnsupportedError(
                f"the placeholder {placeholder} is a word of the chat that the base wraps prompts "
                f"in; use another, such as <{placeholder}>"
            )
        super().add_placeholder(placeholder, count, vectors)
