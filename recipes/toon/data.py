"""The rendered pictures and their captions, memory-mapped from disk.

A split is a folder `$TOON_WORK/data/<split>/` that holds shards `images-0000.bin` (N x 128 x 128 x 3
uint8, RGB) and `captions-0000.jsonl` (one JSON object a line, in the order of the pictures).
"""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

SIZE = 128
"""Side of a rendered picture in pixels."""
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
"""Where trainings run: a GPU where there is one."""
PRODUCTS = torch.bfloat16
"""The format in which matrices are multiplied where that is safe."""
if DEVICE.type == "cpu" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
    PRODUCTS = torch.float32  # torch has no kernels then; a convolution in bfloat16 takes a hundred times as long


def work_folder() -> Path:
    """The folder for data, checkpoints and logs: `$TOON_WORK`, else the one the renderer takes by default."""
    return Path(os.environ.get("TOON_WORK", Path.home() / ".cache" / "personae" / "toon"))


class Shards:
    """Arrays of many items, one a shard, read as if they were one array."""

    def __init__(self, shards: list[np.ndarray], limit: int | None = None) -> None:
        self.shards = shards
        self.starts = np.cumsum([0] + [len(shard) for shard in shards])
        self.count = int(self.starts[-1]) if limit is None else min(limit, int(self.starts[-1]))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> np.ndarray:
        shard = int(np.searchsorted(self.starts, index, side="right")) - 1
        return self.shards[shard][index - self.starts[shard]]

    def stack(self, indices: np.ndarray | list[int] | range) -> torch.Tensor:
        """The items at `indices` as one tensor of the type they are stored in."""
        return torch.from_numpy(np.stack([self[int(i)] for i in indices]))


class Pictures(Shards):
    """The pictures of one split; an item is 128 x 128 x 3 uint8."""

    def __init__(self, split: str, limit: int | None = None) -> None:
        files = picture_files(split)
        if not files:
            raise FileNotFoundError(f"no pictures of split {split} under {work_folder()}; run `make render` first")
        super().__init__([np.memmap(f, np.uint8, "r").reshape(-1, SIZE, SIZE, 3) for f in files], limit)

    def batch(self, indices: np.ndarray | list[int] | range) -> torch.Tensor:
        """The pictures as B x 3 x 128 x 128 float32 in [-1, 1]."""
        return to_signed(self.stack(indices).to(DEVICE))


def half_precision() -> torch.autocast:
    """bfloat16 where it is safe, on the device that trains, if that multiplies in it."""
    return torch.autocast(DEVICE.type, torch.bfloat16, enabled=PRODUCTS is torch.bfloat16)


def to_signed(pictures: torch.Tensor) -> torch.Tensor:
    """B x H x W x 3 uint8 as B x 3 x H x W float32 in [-1, 1]."""
    return pictures.permute(0, 3, 1, 2).float().div_(127.5).sub_(1).contiguous()


def picture_files(split: str) -> list[Path]:
    """The shards of a split's pictures, in order."""
    return sorted((work_folder() / "data" / split).glob("images*.bin"))


def latent_file(pictures: Path, resolution: int) -> Path:
    """Where the latents of one shard of pictures belong."""
    return pictures.with_name(pictures.stem.replace("images", f"latents{resolution}") + ".npy")


def read_latents(split: str, resolution: int) -> Shards:
    """The latents of a split (C x side / 8 x side / 8 float16 each), as far as they were written without a gap."""
    files = [latent_file(file, resolution) for file in picture_files(split)]
    present = list(itertools.takewhile(Path.exists, files))
    return Shards([np.load(file, mmap_mode="r") for file in present])


def write_array(array: np.ndarray, file: Path) -> None:
    """Save an array so that readers see all of it or none."""
    part = file.with_suffix(".part.npy")
    np.save(part, array)
    os.replace(part, file)


def read_captions(split: str, limit: int | None = None) -> list[dict]:
    """The caption records of a split, in the order of its pictures."""
    records: list[dict] = []
    for file in sorted((work_folder() / "data" / split).glob("captions*.jsonl")):
        with file.open(encoding="utf-8") as lines:
            records += [json.loads(line) for line in lines]
    return records[:limit]


def halved(pictures: torch.Tensor) -> torch.Tensor:
    """Pictures at half the side, each pixel the mean of four."""
    return F.avg_pool2d(pictures, 2)


def random_crops(pictures: torch.Tensor, side: int, generator: np.random.Generator) -> torch.Tensor:
    """One random `side` x `side` crop of each picture."""
    limit = pictures.shape[-1] - side
    corners = generator.integers(0, limit + 1, (len(pictures), 2))
    return torch.stack([p[:, y : y + side, x : x + side] for p, (y, x) in zip(pictures, corners, strict=False)])
