"""Fill the table of targets: `python measure.py --count 2000` writes targets.json and targets.md.

Attributes are judged by linear probes on ImageNet features, fitted on training renders. A probe's accuracy on
held-out renders is its ceiling; drawn pictures are given as a share of it.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from transformers import CLIPModel, CLIPTokenizer, ResNetModel

from autoencoder import decode, encode, psnr
from clip_encoder import retrieval
from data import DEVICE, Pictures, read_captions, to_signed, work_folder
from identity_encoder import embed_split, pair_auc
from judge import Judge, fit_probe, frechet, reducer
from sheet import draw, load, save_sheet

PACKAGE = Path(__file__).parents[2] / "src" / "personae" / "embedded"
ATTRIBUTES = ("scene", "medium", "hair_color", "clothes_color", "expression")


def ssim(drawn: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """Structural similarity of each picture (Wang et al. 2004; Gaussian window of 11, values in [-1, 1])."""
    line = torch.exp(-((torch.arange(11) - 5.0) ** 2) / (2 * 1.5**2))
    window = torch.outer(line / line.sum(), line / line.sum()).expand(3, 1, 11, 11).to(real.device)
    mean = lambda x: F.conv2d(x, window, groups=3)  # noqa: E731
    a, b = mean(drawn), mean(real)
    spread = mean(drawn * drawn) - a * a, mean(real * real) - b * b, mean(drawn * real) - a * b
    light = (2 * a * b + 0.02**2) / (a * a + b * b + 0.02**2)
    shape = (2 * spread[2] + 0.06**2) / (spread[0] + spread[1] + 0.06**2)
    return (light * shape).mean((1, 2, 3))


def autoencoder_quality(pipeline, split: str, count: int) -> dict[str, float]:
    """Mean PSNR and SSIM of reconstructions."""
    pictures, found = Pictures(split, count), []
    for first in range(0, len(pictures), 50):
        real = pictures.batch(range(first, min(first + 50, len(pictures))))
        drawn = decode(pipeline.vae, encode(pipeline.vae, real))
        found.append(torch.stack([psnr(drawn, real), ssim(drawn, real)]))
    level, likeness = torch.cat(found, 1).mean(1).tolist()
    return {"psnr": level, "ssim": likeness}


def features_of(judge: Judge, pictures: Pictures, count: int) -> np.ndarray:
    """Judge features of the first `count` pictures."""
    steps = range(0, min(count, len(pictures)), 256)
    return np.concatenate([judge.features(pictures.batch(range(i, min(i + 256, count)))) for i in steps])


def said(record: dict, attribute: str) -> bool:
    """Whether an attribute is one character's and the full caption names it."""
    value, single = record.get(attribute), record["count"] == 1
    if value is None or (attribute != "scene" and attribute != "medium" and not single):
        return False
    return attribute in ("scene", "medium", "expression") or value in record["captions"][0]


def attribute_scores(known: tuple, real: np.ndarray, drawn: np.ndarray, records: list[dict]) -> dict:
    """For each attribute: the probe's accuracy on renders, on drawn pictures, and the second over the first."""
    scores = {}
    for attribute in ATTRIBUTES:
        rows = [i for i, record in enumerate(known[1]) if said(record, attribute)]
        probe = fit_probe(known[0][rows], [known[1][i][attribute] for i in rows])
        rows = [i for i, record in enumerate(records) if said(record, attribute)]
        truth = np.array([records[i][attribute] for i in rows])
        ceiling, found = ((probe.predict(f[rows]) == truth).mean() for f in (real, drawn))
        scores[attribute] = {
            "ceiling": ceiling,
            "drawn": found,
            "share": found / ceiling,
            "pictures": len(rows),
        }
    return scores


def halves(judge: Judge, pictures: np.ndarray) -> np.ndarray:
    """Features of the left and the right half of each picture: 2 x N x 1280."""
    both = to_signed(torch.from_numpy(pictures))
    return np.stack([judge.features(both[..., :64]), judge.features(both[..., 64:])])


def pair_scores(
    judge: Judge,
    known: tuple[Pictures, list[dict]],
    real: np.ndarray,
    drawn: np.ndarray,
    records: list[dict],
) -> dict[str, dict[str, float]]:
    """Two-character captions: are there two (probe on the picture), and do the halves show the right nouns?"""
    chosen = [i for i, record in enumerate(known[1]) if record["count"] == 2]
    probe = fit_probe(
        np.concatenate(halves(judge, np.stack([known[0][i] for i in chosen]))),
        [known[1][i][side]["noun"] for side in ("left", "right") for i in chosen],
    )
    names = list(probe.classes_)
    ends = [
        [names.index(r[side]["noun"]) if r[side]["noun"] in names else 0 for r in records] for side in ("left", "right")
    ]
    telling = np.array(ends[0]) != np.array(ends[1])
    rows, scores = np.arange(len(records)), {}
    for name, pictures in (("ceiling", real), ("drawn", drawn)):
        left, right = (probe.predict_log_proba(f) for f in halves(judge, pictures))
        straight = left[rows, ends[0]] + right[rows, ends[1]]
        swapped = left[rows, ends[1]] + right[rows, ends[0]]
        scores[name] = {
            "sides": float((straight > swapped)[telling].mean()),
            "pictures": int(telling.sum()),
        }
    return scores


def counted_two(known: tuple, real: np.ndarray, drawn: np.ndarray, rows: list[int]) -> dict[str, float]:
    """How often a probe for one or two characters sees two where the caption says two."""
    probe = fit_probe(known[0], [str(record["count"]) for record in known[1]])
    return {
        "ceiling": float((probe.predict(real[rows]) == "2").mean()),
        "drawn": float((probe.predict(drawn[rows]) == "2").mean()),
    }


def drawn_quality(pipeline, options: argparse.Namespace) -> dict:
    """Everything that is measured on pictures drawn under held-out captions."""
    judge, records = Judge(), read_captions("held_out", options.count)
    pictures = draw(pipeline, [r["captions"][0] for r in records], guidance=options.guidance, batch=50)
    save_sheet(pictures[:64], work_folder() / "measure" / "drawn.png")
    train, held_out = Pictures("train"), Pictures("held_out", len(records))
    known = features_of(judge, train, options.known), read_captions("train", options.known)
    real, drawn = (
        features_of(judge, held_out, len(records)),
        judge.features(to_signed(torch.from_numpy(pictures))),
    )
    rows = [i for i, record in enumerate(records) if record["count"] == 2]
    real_pairs = np.stack([held_out[i] for i in rows])
    basis = reducer(known[0])
    real_part, drawn_part = basis.transform(real), basis.transform(drawn)
    half = len(real) // 2
    return {
        "attributes": attribute_scores(known, real, drawn, records),
        "two": counted_two(known, real, drawn, rows),
        "sides": pair_scores(judge, (train, known[1]), real_pairs, pictures[rows], [records[i] for i in rows]),
        "distance": {
            "drawn": frechet(real_part, drawn_part),
            "renders": frechet(real_part[:half], real_part[half:]),
        },
    }


def encoder_quality(folder: Path, count: int) -> dict:
    """The two metric encoders on held-out characters, held-out styles and held-out captions."""
    identity = ResNetModel.from_pretrained(folder / "encoders" / "toon_identity", dtype=torch.float32).to(DEVICE)
    clip = CLIPModel.from_pretrained(folder / "encoders" / "toon_clip", dtype=torch.float32).to(DEVICE)
    tokenizer = CLIPTokenizer.from_pretrained(folder / "encoders" / "toon_clip")
    known, new = (
        pair_auc(*embed_split(identity, split, count)) for split in ("identity_held_out", "identity_held_out_styles")
    )
    return {
        "identity_all": known["all"],
        "identity_within": known["within"],
        "identity_held_out_styles": new["all"],
        "identity_held_out_styles_within": new["within"],
        "clip_retrieval": retrieval(clip, tokenizer, "held_out", count),
    }


def seconds_per_picture(pipeline, pictures: int) -> float:
    """Seconds for one picture, 25 steps with guidance, drawn one by one on all cores."""
    draw(pipeline, ["a character"], batch=1)
    began = time.monotonic()
    draw(pipeline, ["a robot in space"] * pictures, batch=1)
    return (time.monotonic() - began) / pictures


def table(found: dict) -> str:
    """The findings as Markdown."""
    lines = ["| what | target | reached |", "|---|---|---|"]
    known, new = found["autoencoder"]["held_out"], found["autoencoder"]["held_out_styles"]
    lines.append(
        f"| autoencoder PSNR / SSIM, known styles | 28 dB / 0.93 | {known['psnr']:.1f} dB / {known['ssim']:.3f} |"
    )
    lines.append(f"| autoencoder PSNR / SSIM, held-out styles | 26 dB | {new['psnr']:.1f} dB / {new['ssim']:.3f} |")
    goals = dict(zip(ATTRIBUTES, ("95 %", "95 %", "90 %", "90 %", "85 %"), strict=False))
    for name, score in found["attributes"].items():
        reached = f"{score['share']:.0%} ({score['drawn']:.3f} of {score['ceiling']:.3f}, {score['pictures']} pictures)"
        lines.append(f"| right {name.replace('_', ' ')}, share of the probe's ceiling | {goals[name]} | {reached} |")
    two, sides, distance = found["two"], found["sides"], found["distance"]
    lines.append(f"| two characters: both there | 80 % | {two['drawn']:.0%} (renders {two['ceiling']:.0%}) |")
    reached = f"{sides['drawn']['sides']:.0%} (renders {sides['ceiling']['sides']:.0%}; chance 50 %)"
    lines.append(f"| two characters: right sides | 80 % | {reached} |")
    lines.append(
        f"| distance to held-out renders | - | {distance['drawn']:.2f} (halves of renders {distance['renders']:.2f}) |"
    )
    encoders = found["encoders"]
    names = ("all", "within", "held_out_styles", "held_out_styles_within")
    values = " / ".join(f"{encoders['identity_' + name]:.3f}" for name in names)
    lines.append(
        f"| toon-identity AUC: all / within a style / held-out styles / within one of those | .995 / .97 / .95 / - "
        f"| {values} |"
    )
    lines.append(f"| toon-clip retrieval, 1 of 100 | 90 % | {encoders['clip_retrieval']:.1%} |")
    lines.append(f"| one picture, 25 steps with guidance | 1 s | {found['seconds']:.2f} s |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000, help="held-out captions to draw")
    parser.add_argument("--known", type=int, default=6000, help="training renders the probes are fitted on")
    parser.add_argument("--timed", type=int, default=8, help="pictures drawn one by one to say how long one takes")
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument(
        "--from", dest="folder", type=Path, default=PACKAGE, help="holds bases/toon, encoders/toon_clip, encoders/toon_identity"
    )
    options = parser.parse_args()
    folder = work_folder() / "measure"
    folder.mkdir(parents=True, exist_ok=True)
    pipeline = load(options.folder / "bases" / "toon")
    splits = ("held_out", "held_out_styles")
    found = {"autoencoder": {split: autoencoder_quality(pipeline, split, options.count) for split in splits}}
    found |= drawn_quality(pipeline, options)
    found |= {
        "encoders": encoder_quality(options.folder, max(options.count, 800)),
        "seconds": seconds_per_picture(pipeline, options.timed),
    }
    (folder / "targets.json").write_text(json.dumps(found, indent=2, default=float) + "\n")
    (folder / "targets.md").write_text(table(found))
    print(table(found))


if __name__ == "__main__":
    main()
