"""Whole runs of every technique on one base of every family; a new plug-in is tested by being."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from personae.artifacts.artifact import Artifact
from personae.errors import UnsupportedError
from personae.generation.cast import Cast
from personae.generation.generate import draw
from personae.generation.sampler import Shot
from personae.generation.settings import Sampling
from personae.models.family import Family
from personae.training.events import Finished, Preview, Stopped, Validation
from tiny_world import bare, bases, make, only, run, run_config, techniques

FIRST = {type(base): source for source, base in reversed(bases().items())}


def fits(name: str, source: str) -> bool:
    try:
        make(name, bases()[source])
    except UnsupportedError:
        return False
    return True


CASES = [(name, each) for each in FIRST.values() for name in techniques() if fits(name, each)]


@pytest.mark.parametrize(("name", "base"), CASES, indirect=["base"])
def test_a_stopped_run_resumes_to_the_same_bits_and_its_artifact_draws(
    name: str, base: Family, character: Path, tmp_path: Path
) -> None:
    """With previews, held-out pictures, prior rows of unlike captions, and captions left out."""
    config = run_config(
        character,
        technique=name,
        preview_prompts=["{character} and the can"],
        preview_every=2,
        checkpoint_every=1,
        validate_every=2,
        schedule={"steps": 3, "prior": "prediction", "caption_dropout": 0.5},
    )
    whole = run(config, tmp_path / "whole", base)
    assert only(whole, Preview)
    assert all(torch.isfinite(torch.tensor(each.loss)) for each in only(whole, Validation))
    answers = iter([False, True])
    part = run(config, tmp_path / "part", base, should_stop=lambda: next(answers))
    assert isinstance(part[-1], Stopped)
    resumed = run(config, tmp_path / "part", base, resume=True)
    (one,), (other,) = only(whole, Finished), only(resumed, Finished)
    first, second = load_file(one.path), load_file(other.path)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert bare(base)
    artifact = Artifact.load(one.path)
    cast = Cast()
    cast.add("mira", artifact)
    with cast.on(base):
        (picture,) = draw(base, [Shot("{mira}", 3)], Sampling(steps=2), cast)
        again = draw(base, [Shot("{mira}", 3)], picture.recipe.sampling, cast)[0]
    assert picture.recipe.sampling.sampler == base.usual_sampler
    assert again.image.tobytes() == picture.image.tobytes()
