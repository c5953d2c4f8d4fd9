"""How well copies of training pictures are told from new pictures of the same character.

    TOON_WORK=build/toon python benchmarks/copy_threshold.py [--encoder toon_clip]

For each rendered character that no network has seen, six pictures count as trained on. New pictures
are two others of the character; copies are the six passed through the autoencoder, as they are and
shifted and scaled by 3 per cent. Printed for several values of `memorisation.NEARER`: the share of
each that is called a copy. `efficientnet` is the judge of recipes/toon (its packages are needed).
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor
from torch.nn import functional

from personae.evaluation.metrics.memorisation import mirror_blind
from personae.generation.decoding import to_images
from personae.vision.encoder import Encoder
from personae.vision.load import load_encoder
from personae.vision.transformers_encoder import layout, unit_rows

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes" / "toon"))

from data import Pictures, read_captions, work_folder
from judge import Judge

TRAINED, NEW = 6, 2


class EfficientNetLayers(Encoder):
    """The last layer of each resolution of EfficientNet-Lite0, ImageNet weights."""

    name, kind, source = "efficientnet", "identity", "recipes/toon/judge.py"
    weights = "efficientnet-lite0"

    def __init__(self) -> None:
        self.net = Judge().net

    @classmethod
    def load(cls, source: str | None, device: torch.device) -> Self:
        """Load the judge's weights."""
        return cls()

    def embed_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Return the layouts: nothing else is compared here."""
        return self.embed_layout(images)

    @torch.inference_mode()
    def embed_layout(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Return unit rows (n, D)."""
        stack = np.stack([np.asarray(image) for image in images])
        x = torch.from_numpy(stack).permute(0, 3, 1, 2).float() / 127.5 - 1
        states = [functional.relu6(self.net._bn0(self.net._conv_stem(x)))]
        for block in self.net._blocks:
            after = block(states[-1])
            if after.shape[-1] == states[-1].shape[-1]:
                states.pop()
            states.append(after)
        return unit_rows(layout(states))


def shifted(pixels: Tensor) -> Tensor:
    """Return pictures (b, 3, H, W) cut by about 3 per cent at two sides and scaled back."""
    side = pixels.shape[-1]
    cut = pixels[:, :, 3:, 2:-2]
    return functional.interpolate(cut, (side, side), mode="bilinear")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoder", default="efficientnet")
    parser.add_argument("--characters", type=int, default=100)
    options = parser.parse_args()
    own = options.encoder == EfficientNetLayers.name
    encoder = EfficientNetLayers() if own else load_encoder(options.encoder)
    pictures, groups = Pictures("identity_held_out"), defaultdict(list)
    for index, record in enumerate(read_captions("identity_held_out", len(pictures))):
        groups[str(record["identity"])].append(index)
    autoencoder = AutoencoderKL.from_pretrained(work_folder() / "autoencoder" / "frozen")
    smallest, distances = [], defaultdict(list)
    for members in list(groups.values())[: options.characters]:
        pixels = pictures.batch(members[: TRAINED + NEW])
        with torch.inference_mode():
            copies = autoencoder(pixels[:TRAINED]).sample.clamp(-1, 1)
        training = to_images(pixels[:TRAINED])
        among = mirror_blind(encoder, training, training)
        np.fill_diagonal(among, -np.inf)
        smallest.append(1 - among.max())
        kinds = {"new": pixels[TRAINED:], "copies": copies, "shifted copies": shifted(copies)}
        for kind, shown in kinds.items():
            distances[kind].append(1 - mirror_blind(encoder, to_images(shown), training).max(1))
    print("nearer " + "  ".join(distances))
    for nearer in (1.0, 0.7, 0.6, 0.5, 0.4):
        limits = nearer * np.array(smallest)[:, None]
        shares = [float((np.stack(rows) < limits).mean()) for rows in distances.values()]
        print(f"{nearer:6.1f} " + "  ".join(f"{share:6.1%}" for share in shares))


if __name__ == "__main__":
    main()
