"""`toon-clip`: a small CLIP that tells how well a picture and a caption agree.

A standard transformers `CLIPModel` (vision: patches of 16 px at 128 px) trained from nothing with CLIP's loss.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTokenizer,
    CLIPVisionConfig,
    ViTImageProcessor,
)

from data import DEVICE, SIZE, Pictures, half_precision, read_captions, work_folder
from feed import Captions
from loop import Average, Run, one_thread
from muon import Optimiser

SHIPPED = Path(__file__).parents[2] / "src" / "personae" / "embedded" / "encoders" / "toon_clip"
WIDTH = 160


def build(tokenizer: CLIPTokenizer) -> CLIPModel:
    """Two towers of width 160 that meet in 128 values; 3.6 M parameters."""
    shape = {"hidden_size": WIDTH, "intermediate_size": 3 * WIDTH, "num_attention_heads": 5}
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        num_hidden_layers=3,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        projection_dim=128,
        **shape,
    )
    vision = CLIPVisionConfig(image_size=SIZE, patch_size=16, num_hidden_layers=5, projection_dim=128, **shape)
    return CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=128))


def start(tokenizer: CLIPTokenizer, fresh: bool) -> CLIPModel:
    """The shipped model where there is one, else a new one."""
    if fresh or not SHIPPED.exists():
        return build(tokenizer)
    return CLIPModel.from_pretrained(SHIPPED, dtype=torch.float32)


def similarity(model: CLIPModel, pictures: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Scaled cosines, pictures x captions."""
    with half_precision():
        seen = model.visual_projection(model.vision_model(pictures).pooler_output)
        read = model.text_projection(model.text_model(tokens).pooler_output)
    scale = model.logit_scale.exp().clamp(max=100)
    return scale * F.normalize(seen.float(), dim=1) @ F.normalize(read.float(), dim=1).T


def trimmed(tokens: torch.Tensor, padding: int) -> torch.Tensor:
    """Tokens without the padding that all captions share; nothing after a caption's end token counts."""
    return tokens[:, : int((tokens != padding).sum(1).max()) + 1]


def clip_loss(logits: torch.Tensor) -> torch.Tensor:
    """Cross entropy of both directions; row i belongs to column i."""
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


@torch.no_grad()
def retrieval(model: CLIPModel, tokenizer: CLIPTokenizer, split: str, count: int = 500, of: int = 100) -> float:
    """How often the right caption is the best of `of`, over the first `count` pictures of a split."""
    pictures = Pictures(split)
    texts = [record["captions"][0] for record in read_captions(split, count)]
    right = total = 0
    model.eval()
    for first in range(0, len(texts) - of + 1, of):
        tokens = tokenizer(texts[first : first + of], padding="max_length", truncation=True, return_tensors="pt")
        logits = similarity(model, pictures.batch(range(first, first + of)), tokens.input_ids.to(DEVICE))
        right += int((logits.argmax(1).cpu() == torch.arange(of)).sum())
        total += of
    return right / total


def train(options: argparse.Namespace) -> None:
    """The training loop; every 300 steps a check on held-out pictures."""
    tokenizer = CLIPTokenizer.from_pretrained(work_folder() / "tokenizer")
    run = Run("clip", options.minutes, options.decay)
    model = start(tokenizer, options.fresh).to(DEVICE)
    average = Average(model, halflife=200, every=1)
    optimiser = Optimiser(model)
    run.keep(model=model, average=average.model, optimiser=optimiser)
    pictures = Pictures("train")
    captions = Captions(tokenizer, read_captions("train", len(pictures)))
    generator = np.random.default_rng(run.step)
    while run.going():
        model.train()
        chosen = np.sort(generator.integers(0, len(captions), options.batch))
        tokens = trimmed(captions.batch(chosen, generator, 0.0), tokenizer.pad_token_id)
        logits = similarity(model, pictures.batch(chosen), tokens)
        loss = clip_loss(logits)
        optimiser.step(loss, options.rate * run.factor(100))
        run.count(options.batch, loss=loss.item())
        average.update(model, run.step)
        check = run.step % 300 == 0
        run.log(50, **({"retrieval": retrieval(average.model, tokenizer, "held_out")} if check else {}))
    write(average.model, tokenizer, run)


def write(model: CLIPModel, tokenizer: CLIPTokenizer, run: Run) -> None:
    """Write the model, its tokenizer and how pictures have to be prepared for it."""
    model.save_pretrained(run.folder / "model")
    tokenizer.save_pretrained(run.folder / "model")
    ViTImageProcessor(
        size={"height": SIZE, "width": SIZE}, image_mean=[0.5] * 3, image_std=[0.5] * 3, do_convert_rgb=True
    ).save_pretrained(run.folder / "model")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--decay", type=float, default=0, help="minutes of falling rate at the end of this sitting")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--fresh", action="store_true", help="do not start from the shipped weights")
    options = parser.parse_args()
    one_thread()
    train(options)


if __name__ == "__main__":
    main()
