"""Train the tokenizer: a byte-level CLIP BPE on the captions and on common English words.

    python tokenizer.py --words WORDS.txt

Writes `$TOON_WORK/tokenizer`, a transformers `CLIPTokenizer` folder. Any text can be typed, since every byte has
a token; every common word is short. The word list is plain text, one word a line, most frequent first.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from data import read_captions, work_folder

START, END = "<|startoftext|>", "<|endoftext|>"
POSITIONS = 77
PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
"""How CLIP splits text into words."""


def word_counts(captions: list[str], words: list[str]) -> Counter[str]:
    """How often each word is to count: as in the captions, and a few times for each common word."""
    counts = Counter(word for caption in captions for word in re.findall(r"[^\W\d_]+|\d|[^\w\s]+", caption.lower()))
    for rank, word in enumerate(words):
        counts[word] += 8 + 40_000 // (rank + 20)
    return counts


def train_merges(counts: Counter[str], size: int) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Learn merges; return CLIP's vocabulary (bytes, bytes ending a word, merges, start, end) and the merges."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=symbols, end_of_word_suffix="</w>", show_progress=False
    )
    text = (word for word, count in counts.items() for _ in range(min(count, 2000)))
    tokenizer.train_from_iterator(text, trainer)
    merges = [tuple(pair) for pair in _merges_of(tokenizer)]
    names = symbols + [symbol + "</w>" for symbol in symbols] + ["".join(pair) for pair in merges]
    names = [*list(dict.fromkeys(names)), START, END]
    return {name: index for index, name in enumerate(names)}, merges


def _merges_of(tokenizer: Tokenizer) -> list[tuple[str, str]]:
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [tuple(pair.split(" ")) if isinstance(pair, str) else tuple(pair) for pair in merges]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--words", type=Path, required=True, help="common English words, most frequent first")
    parser.add_argument("--count", type=int, default=3000, help="how many of them to take")
    parser.add_argument("--size", type=int, default=4500, help="tokens to learn, single bytes included")
    options = parser.parse_args()
    captions = [text for record in read_captions("train") for text in record["captions"]]
    words = [w for w in options.words.read_text(encoding="utf-8").lower().split() if w.isalpha()][: options.count]
    vocabulary, merges = train_merges(word_counts(captions, words), options.size)
    tokenizer = CLIPTokenizer(
        vocab=vocabulary,
        merges=merges,
        model_max_length=POSITIONS,
        pad_token=END,
        bos_token=START,
        eos_token=END,
        unk_token=END,
    )
    tokenizer.save_pretrained(work_folder() / "tokenizer")
    tokenizer.backend_tokenizer.model.save(str(work_folder() / "tokenizer"))
    print(
        len(tokenizer),
        "tokens;",
        sum(map(len, tokenizer(captions[:500]).input_ids)) / 500,
        "a caption",
    )


if __name__ == "__main__":
    main()
