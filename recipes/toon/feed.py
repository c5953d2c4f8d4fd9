"""Latents and their captions, shard by shard, for a training that begins before all of them are there."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import torch
from transformers import CLIPTokenizer

from data import DEVICE, Shards, latent_file, picture_files


class Captions:
    """Draws one of the ways to say each picture's caption; all are tokenized once, when they are added."""

    def __init__(self, tokenizer: CLIPTokenizer, records: list[dict]) -> None:
        self.tokenizer = tokenizer
        self.tokens = self._tokenized([""])
        self.ways = self.first = np.zeros(0, np.int64)
        self.extend(records)

    def __len__(self) -> int:
        return len(self.ways)

    def extend(self, records: list[dict]) -> None:
        """Add the captions of further pictures."""
        ways = np.array([len(record["captions"]) for record in records], np.int64)
        self.first = np.concatenate([self.first, len(self.tokens) + np.cumsum(ways) - ways])
        self.ways = np.concatenate([self.ways, ways])
        texts = [text for record in records for text in record["captions"]]
        parts = [self._tokenized(texts[at : at + 10000]) for at in range(0, len(texts), 10000)]
        self.tokens = np.concatenate([self.tokens, *parts])

    def _tokenized(self, texts: list[str]) -> np.ndarray:
        found = self.tokenizer(texts, padding="max_length", truncation=True, return_tensors="np").input_ids
        return found.astype(np.uint16)

    def batch(self, indices: np.ndarray, generator: np.random.Generator, dropped: float) -> torch.Tensor:
        """Tokens (B x 77): the full caption one half of the time, else any, the empty one with chance `dropped`."""
        full, empty = generator.random((2, len(indices))) < [[0.5], [dropped]]
        way = np.where(full, 0, generator.integers(0, self.ways[indices]))
        rows = np.where(empty, 0, self.first[indices] + way)
        return torch.from_numpy(self.tokens[rows].astype(np.int64)).to(DEVICE)


class Feed:
    """The latents and captions of a split as far as both are written; looks now and then for further shards.

    Shards are added in the order in which they are found, since several processes write them. Latents that were
    written anew, by an autoencoder that went on, take the place of the old ones.
    """

    def __init__(self, tokenizer: CLIPTokenizer, split: str, resolution: int) -> None:
        self.split, self.resolution = split, resolution
        self.seconds = 120 if DEVICE.type == "cpu" else 15
        self.known: dict[Path, float] = {}
        self.captions, self.latents = Captions(tokenizer, []), Shards([])
        self.look()
        if not self.known:
            raise FileNotFoundError(f"no latents of {resolution} px; run `autoencoder.py freeze` first")

    def __len__(self) -> int:
        return len(self.latents)

    def look(self) -> None:
        """Take in what was written since the last look."""
        self.looked, found = time.monotonic(), dict(self.known)
        for pictures in picture_files(self.split):
            latents = latent_file(pictures, self.resolution)
            captions = pictures.with_name(pictures.stem.replace("images", "captions") + ".jsonl")
            if not (latents.exists() and captions.exists()):
                continue
            if latents not in found:
                with captions.open(encoding="utf-8") as lines:
                    self.captions.extend([json.loads(line) for line in lines])
            found[latents] = latents.stat().st_mtime
        if found != self.known:
            self.known, self.latents = found, Shards([np.load(file, mmap_mode="r") for file in found])

    def batch(
        self, count: int, generator: np.random.Generator, dropped: float = 0.1
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents (B x C x H x W) and tokens (B x 77) of random pictures."""
        if time.monotonic() - self.looked > self.seconds:
            self.look()
        chosen = np.sort(generator.integers(0, len(self), count))
        return self.latents.stack(chosen).to(DEVICE).float(), self.captions.batch(chosen, generator, dropped)
