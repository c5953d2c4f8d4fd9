"""Sheets of pictures to look at: drawn ones, reconstructions beside the originals, renders.

python sheet.py drawn FILE             64 pictures drawn under held-out captions
python sheet.py reconstructed FILE     held-out renders, each with its reconstruction below it
python sheet.py rendered FILE          held-out renders as they are
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from data import DEVICE, Pictures, half_precision, read_captions

SHIPPED = Path(__file__).parents[2] / "src" / "personae" / "embedded" / "bases" / "toon"
PROMPTS = [
    "a flat cartoon of a woman with red hair at the beach",
    "a pixel art character with a green shirt in a forest",
    "an ink drawing of a man with glasses in a city at night",
    "a robot in space",
    "a comic character with blue hair, smiling, in the snow",
    "a sketch of a person with a beard in a library",
    "a character",
    "",
]


def load(folder: Path = SHIPPED) -> StableDiffusionPipeline:
    """The pipeline in full precision, which two CPU cores run faster than half."""
    return StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32, local_files_only=True).to(DEVICE)


def draw(
    pipeline: StableDiffusionPipeline,
    prompts: list[str],
    steps: int = 25,
    guidance: float = 4.0,
    seed: int = 0,
    batch: int = 16,
) -> np.ndarray:
    """One picture for each prompt, N x 128 x 128 x 3 uint8; picture i has seed `seed + i`."""
    pipeline.set_progress_bar_config(disable=True)
    drawn = []
    for first in range(0, len(prompts), batch):
        part = prompts[first : first + batch]
        generators = [torch.Generator().manual_seed(seed + first + i) for i in range(len(part))]
        with half_precision():
            images = pipeline(
                part,
                num_inference_steps=steps,
                guidance_scale=guidance,
                generator=generators,
                output_type="np",
            ).images
        drawn.append((images * 255).round().astype(np.uint8))
    return np.concatenate(drawn)


def to_bytes(pictures: torch.Tensor) -> np.ndarray:
    """B x 3 x H x W in [-1, 1] as B x H x W x 3 uint8."""
    return ((pictures.permute(0, 2, 3, 1) + 1) * 127.5).round().clamp(0, 255).byte().cpu().numpy()


def save_sheet(pictures: np.ndarray, file: Path, columns: int = 8) -> None:
    """Write N x H x W x 3 pictures as one image, row by row."""
    count, height, width, _ = pictures.shape
    rows = -(-count // columns)
    sheet = np.full((rows * height, columns * width, 3), 255, np.uint8)
    for i, picture in enumerate(pictures):
        y, x = i // columns * height, i % columns * width
        sheet[y : y + height, x : x + width] = picture
    Image.fromarray(sheet).save(file)


def reconstructed(pipeline: StableDiffusionPipeline, split: str, count: int = 32) -> np.ndarray:
    """Rows of renders and rows of their reconstructions by turns, eight a row."""
    from autoencoder import decode, encode

    real = Pictures(split).batch(range(count))
    pairs = torch.stack([real, decode(pipeline.vae, encode(pipeline.vae, real))])
    return to_bytes(pairs.unflatten(1, (-1, 8)).transpose(0, 1).flatten(0, 2))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["drawn", "reconstructed", "rendered"])
    parser.add_argument("file", type=Path)
    parser.add_argument("--split", default="held_out")
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--from", dest="folder", type=Path, default=SHIPPED)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.what == "rendered":
        save_sheet(np.stack([Pictures(options.split)[i] for i in range(options.count)]), options.file)
    elif options.what == "reconstructed":
        save_sheet(reconstructed(load(options.folder), options.split, options.count // 2), options.file)
    else:
        prompts = [record["captions"][0] for record in read_captions(options.split, options.count)]
        save_sheet(draw(load(options.folder), prompts, guidance=options.guidance), options.file)


if __name__ == "__main__":
    main()
