"""A text tower whose encoder is a language model that reads a prompt as a message of a chat."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from personae.errors import UnsupportedError
from personae.models.text_tower import TextTower, Vectors, whole_word


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

    def states(self, ids: Tensor, layer: int) -> Tensor:
        """Return what `layer` of the model puts out for ids (b, l): (b, l, d).

        Read by a hook for the length of a call: transformers' own `output_hidden_states` would
        leave hooks on the model for good. The causal mask is given, since the model would look at
        values for it, and tensors may have none.
        """
        model: Any = self.encoder.base_model  # without a head, where it has one
        found: list[Tensor] = []

        def keep(_: nn.Module, __: Any, output: Tensor | tuple[Tensor, ...]) -> None:
            found.append(output[0] if isinstance(output, tuple) else output)

        handle = model.layers[layer].register_forward_hook(keep)
        try:
            model(input_ids=ids, attention_mask=self._causal(ids.shape[1]), use_cache=False)
        finally:
            handle.remove()
        return found[0]

    def _causal(self, length: int) -> Tensor:
        """Return what is added to attention logits, (1, 1, length, length): 0, or very little."""
        weight = self.embedding.weight
        least = torch.finfo(weight.dtype).min
        table = torch.full((length, length), least, dtype=weight.dtype, device=weight.device)
        return table.triu(1)[None, None]

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
