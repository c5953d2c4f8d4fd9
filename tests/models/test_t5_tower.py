"""T5 as a text tower."""

import torch
from transformers import T5Config, T5EncoderModel

from personae.models.t5_tower import T5Tower
from personae.models.toy_flux1 import tiny_t5_tokenizer


def tower() -> T5Tower:
    tokenizer = tiny_t5_tokenizer()
    sizes = {"d_model": 16, "d_kv": 4, "d_ff": 16, "num_layers": 1, "num_heads": 4}
    return T5Tower(tokenizer, T5EncoderModel(T5Config(vocab_size=len(tokenizer), **sizes)), 24)


def test_rows_are_those_of_the_tokenizer_itself() -> None:
    made, prompts = tower(), ["the cat", "", "the man and " * 9]
    theirs = made.tokenizer(prompts, padding="max_length", max_length=24, truncation=True)
    assert made.tokenize(prompts).tolist() == theirs.input_ids


def test_a_placeholder_is_looked_up_in_the_table_that_the_encoder_reads() -> None:
    made = tower()
    vectors = torch.nn.Parameter(torch.randn(2, 16))
    made.add_placeholder("<mira>", 2, lambda: vectors)
    try:
        ids = made.tokenize(["the <mira> and"])
        made.encoder.eval()(ids).last_hidden_state.sum().backward()
    finally:
        made.remove_placeholder("<mira>")
    assert vectors.grad is not None
    assert vectors.grad.abs().min() > 0
