"""The picture of the README: one character drawn by every technique, and by the base alone.

    python benchmarks/readme_picture.py --out docs/images/techniques.png

Each technique is trained with its own defaults, once; what is trained already, in --runs or given
as --artifacts (of a study, for example), is taken as it is.
All rows share prompts and seeds. Nothing is picked by hand: the first seed is the one shown.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from personae.artifacts.card import read_card
from personae.characters.character import Character
from personae.core.registry import discover, lookup
from personae.generation.cast import Cast
from personae.generation.generate import draw
from personae.generation.sampler import Shot
from personae.models.family import Family
from personae.models.load import load_base
from personae.reports.sheets import Panel, Section, character_sheet, save_sheet
from personae.techniques.technique import Technique
from personae.training.events import Step
from personae.training.run_folder import RunFolder
from personae.training.settings import RunConfig
from personae.training.train import train

SCENES = {
    "at the beach": "{who} at the beach",
    "in the snow": "{who} in the snow",
    "in space": "{who} in space",
    "in a library": "{who} in a library",
    "surprised": "a surprised {who}",
    "pencil drawing": "a pencil drawing of {who}",
}
CELL = 150


def trained(technique: str, character: Path, base: Family, folder: Path, steps: int | None) -> Path:
    """Return the artifact of `technique`, training it if it is not there."""
    run = RunFolder(folder)
    if run.result() is None:
        config = RunConfig.read(
            {
                "character": character,
                "technique": technique,
                "schedule": {"batch_size": 8} | ({"steps": steps} if steps else {}),
                "preview_prompts": ["{character}"],
                "preview_every": 10_000,
            }
        )
        for event in train(config, folder, resume=run.config_file.is_file(), base=base):
            if isinstance(event, Step) and event.step % 25 == 0:
                print(technique, event.step, event.steps, f"{event.loss:.3f}", flush=True)
    return folder / run.result().artifact


def row(title: str, who: str, base: Family, cast: Cast, seed: int) -> Section:
    """Return the scenes as `who`, in one row."""
    shots = [Shot(prompt.replace("{who}", who), seed) for prompt in SCENES.values()]
    pictures = draw(base, shots, cast=cast, batch_size=len(shots))
    panels = [Panel(picture.image, label) for picture, label in zip(pictures, SCENES, strict=True)]
    return Section(title, panels)


def main() -> None:
    """Train, draw, and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--character", type=Path, default=Path("examples/mira"))
    parser.add_argument("--runs", type=Path, default=Path("runs/readme"))
    parser.add_argument("--artifacts", type=Path, nargs="*", default=[])
    parser.add_argument("--steps", type=int, help="of each training; default: its own advice")
    parser.add_argument("--techniques", nargs="*", default=list(discover(Technique)))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("docs/images/techniques.png"))
    options = parser.parse_args()
    given = {read_card(path).techniques[0].name: path for path in options.artifacts}
    base, character = load_base("toon"), Character.open(options.character)
    real = [Panel(each.image(), "") for each in character.references[: len(SCENES)]]
    sections = [Section(f"{len(character.references)} pictures to learn from, such as", real)]
    for name in options.techniques:
        kind = lookup(Technique, name)
        path = given.get(name) or trained(
            name, options.character, base, options.runs / name, options.steps
        )
        with Cast.load({character.name: path}).on(base) as cast:
            who = f"{{{character.name}}}"
            sections.append(row(kind.title, who, base, cast, options.seed))
    alone = f"a {character.class_noun}"
    sections.append(row("The base alone, asked for " + alone, alone, base, Cast(), options.seed))
    save_sheet(character_sheet(sections, columns=len(SCENES), cell=CELL), options.out)


if __name__ == "__main__":
    main()
