"""Teach a diffusion model one character and keep it the same everywhere.

The public names load on first use, so that `import personae` takes no time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from personae.core.doors import door

if TYPE_CHECKING:
    from personae import errors
    from personae.artifacts.artifact import Artifact
    from personae.artifacts.merge import merge
    from personae.artifacts.strength import Strength
    from personae.characters.character import Character
    from personae.characters.checks.inspection import inspect_folder
    from personae.evaluation.evaluate import evaluate
    from personae.formats.format import export_file, import_file
    from personae.generation.cast import Cast
    from personae.generation.generate import draw, generate
    from personae.generation.picture import Picture
    from personae.generation.recipe import Recipe
    from personae.generation.redraw import redraw
    from personae.generation.sampler import Shot
    from personae.generation.settings import Sampling
    from personae.models.load import load_base
    from personae.reports.study_report import write_report
    from personae.study.run import run_study
    from personae.study.study import Study
    from personae.training.schedule import Schedule
    from personae.training.settings import RunConfig
    from personae.training.train import train

__all__ = [
    "Artifact",
    "Cast",
    "Character",
    "Picture",
    "Recipe",
    "RunConfig",
    "Sampling",
    "Schedule",
    "Shot",
    "Strength",
    "Study",
    "draw",
    "errors",
    "evaluate",
    "export_file",
    "generate",
    "import_file",
    "inspect_folder",
    "load_base",
    "merge",
    "redraw",
    "run_study",
    "train",
    "write_report",
]

__getattr__, __dir__ = door(
    __name__,
    {
        "Artifact": "artifacts.artifact",
        "Cast": "generation.cast",
        "Character": "characters.character",
        "Picture": "generation.picture",
        "Recipe": "generation.recipe",
        "RunConfig": "training.settings",
        "Sampling": "generation.settings",
        "Schedule": "training.schedule",
        "Shot": "generation.sampler",
        "Strength": "artifacts.strength",
        "Study": "study.study",
        "draw": "generation.generate",
        "errors": "",
        "evaluate": "evaluation.evaluate",
        "export_file": "formats.format",
        "generate": "generation.generate",
        "import_file": "formats.format",
        "inspect_folder": "characters.checks.inspection",
        "load_base": "models.load",
        "merge": "artifacts.merge",
        "redraw": "generation.redraw",
        "run_study": "study.run",
        "train": "training.train",
        "write_report": "reports.study_report",
    },
)
