"""`toon-identity`: a small convolutional encoder that tells whether two pictures show the same character.

Trained on rendered pairs (same character; other scene, expression, size) by a supervised contrastive loss. Half of
each batch's characters share one style, so that the style alone does not give the answer. A standard transformers
`ResNetModel`; the embedding is its `pooler_output`, flattened and scaled to length 1.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from transformers import ResNetConfig, ResNetModel, ViTImageProcessor

from data import DEVICE, SIZE, Pictures, half_precision, read_captions
from loop import Average, Run, one_thread
from muon import Optimiser

SHIPPED = Path(__file__).parents[2] / "src" / "personae" / "embedded" / "encoders" / "toon_identity"
TEMPERATURE = 0.1
PER_CHARACTER = 4


def build() -> ResNetModel:
    """Basic blocks, four levels, 2.2 M parameters, embeddings of 256 values."""
    config = ResNetConfig(
        embedding_size=32,
        hidden_sizes=[32, 64, 128, 256],
        depths=[1, 1, 2, 1],
        layer_type="basic",
        downsample_in_first_stage=False,
    )
    return ResNetModel(config)


def start(fresh: bool) -> ResNetModel:
    """The shipped encoder where there is one, else a new one."""
    if fresh or not SHIPPED.exists():
        return build()
    return ResNetModel.from_pretrained(SHIPPED, dtype=torch.float32)


def embed(model: ResNetModel, pictures: torch.Tensor) -> torch.Tensor:
    """Embeddings of length 1 of pictures in [-1, 1]."""
    with half_precision():
        return F.normalize(model(pictures).pooler_output.flatten(1).float(), dim=1)


def contrastive_loss(embeddings: torch.Tensor, identities: torch.Tensor) -> torch.Tensor:
    """Supervised contrastive loss (arXiv 2004.11362): B x D embeddings, B identities."""
    itself = torch.eye(len(embeddings), dtype=torch.bool, device=embeddings.device)
    logits = (embeddings @ embeddings.T / TEMPERATURE).masked_fill(itself, -1e4)
    same = (identities[:, None] == identities[None]) & ~itself
    return -(F.log_softmax(logits, dim=1) * same).sum(1).div(same.sum(1)).mean()


def augmented(pictures: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
    """Random crops (at least 80 % of the side), mirrored and brightened a little, each picture on its own."""
    out = []
    for picture in pictures:
        side = int(generator.integers(SIZE * 4 // 5, SIZE + 1))
        y, x = generator.integers(0, SIZE - side + 1, 2)
        crop = picture[:, y : y + side, x : x + side]
        out.append(crop.flip(-1) if generator.random() < 0.5 else crop)
    resized = [F.interpolate(crop[None], (SIZE, SIZE), mode="bilinear") for crop in out]
    gains = torch.from_numpy(generator.uniform(0.9, 1.1, (len(out), 1, 1, 1))).float().to(pictures.device)
    return (torch.cat(resized) * gains).clamp(-1, 1)


class Characters:
    """Which pictures show which character, and which characters have which style."""

    def __init__(self, records: list[dict]) -> None:
        self.pictures: dict[str, list[int]] = defaultdict(list)
        self.styles: dict[str, set] = defaultdict(set)
        for index, record in enumerate(records):
            self.pictures[record["identity"][0]].append(index)
            self.styles[record["style"]].add(record["identity"][0])
        self.all = [name for name, shown in self.pictures.items() if len(shown) >= 2]
        usable = set(self.all)
        self.by_style = [sorted(names & usable) for names in self.styles.values() if len(names & usable) >= 2]

    def batch(self, count: int, generator: np.random.Generator) -> tuple[list[int], torch.Tensor]:
        """Picture indices and identity numbers: half of the characters in one style, half in any."""
        alike = self.by_style[generator.integers(len(self.by_style))]
        near = generator.choice(len(alike), min(count // 2, len(alike)), replace=False)
        chosen = {alike[i] for i in near}
        while len(chosen) < count:
            chosen.add(self.all[generator.integers(len(self.all))])
        indices, numbers = [], []
        for number, name in enumerate(chosen):
            shown = self.pictures[name]
            some = generator.choice(len(shown), min(PER_CHARACTER, len(shown)), replace=False)
            indices += [shown[i] for i in some]
            numbers += [number] * len(some)
        return indices, torch.tensor(numbers, device=DEVICE)


@torch.no_grad()
def embed_split(model: ResNetModel, split: str, limit: int | None = None) -> tuple[torch.Tensor, list[dict]]:
    """Embeddings and records of a split."""
    pictures, records = Pictures(split, limit), read_captions(split, limit)
    model.eval()
    parts = [embed(model, pictures.batch(range(i, min(i + 64, len(pictures))))) for i in range(0, len(pictures), 64)]
    return torch.cat(parts).cpu(), records[: len(pictures)]


def pair_auc(embeddings: torch.Tensor, records: list[dict]) -> dict[str, float]:
    """How well the cosine tells pairs of one character from pairs of two: over all, and within a style."""
    names = np.array([r["identity"][0] for r in records])
    styles = np.array([r["style"] for r in records])
    rows, columns = np.triu_indices(len(names), 1)
    score = (embeddings @ embeddings.T).numpy()[rows, columns]
    same, alike = names[rows] == names[columns], styles[rows] == styles[columns]
    return {"all": roc_auc_score(same, score), "within": roc_auc_score(same[alike], score[alike])}


def train(options: argparse.Namespace) -> None:
    """The training loop; every 300 steps a check on held-out characters."""
    run = Run("identity", options.minutes, options.decay)
    model = start(options.fresh).to(DEVICE)
    average = Average(model, halflife=200, every=1)
    optimiser = Optimiser(model)
    run.keep(model=model, average=average.model, optimiser=optimiser)
    pictures, characters = Pictures("identity"), Characters(read_captions("identity"))
    generator = np.random.default_rng(run.step)
    while run.going():
        model.train()
        indices, numbers = characters.batch(options.characters, generator)
        loss = contrastive_loss(embed(model, augmented(pictures.batch(indices), generator)), numbers)
        optimiser.step(loss, options.rate * run.factor(100))
        run.count(len(indices), loss=loss.item())
        average.update(model, run.step)
        aucs = pair_auc(*embed_split(average.model, "identity_held_out", 600)) if run.step % 300 == 0 else {}
        run.log(50, **{name: round(float(value), 4) for name, value in aucs.items()})
    write(average.model, run)


def write(model: ResNetModel, run: Run) -> None:
    """Write the model and how pictures have to be prepared for it."""
    model.save_pretrained(run.folder / "model")
    ViTImageProcessor(
        size={"height": SIZE, "width": SIZE}, image_mean=[0.5] * 3, image_std=[0.5] * 3, do_convert_rgb=True
    ).save_pretrained(run.folder / "model")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--decay", type=float, default=0, help="minutes of falling rate at the end of this sitting")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--characters", type=int, default=16, help="characters in a batch, four pictures of each")
    parser.add_argument("--fresh", action="store_true", help="do not start from the shipped weights")
    options = parser.parse_args()
    one_thread()
    train(options)


if __name__ == "__main__":
    main()
