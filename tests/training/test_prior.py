"""Class pictures: what a character is called never decides where they are written."""

from __future__ import annotations

from pathlib import Path

import pytest

from personae.core.cache import default_folder
from personae.models.family import Family
from personae.training.prior import draw_prior
from personae.training.schedule import Schedule


@pytest.mark.parametrize("noun", ["{outside}/x", "../../../../x\0"])
def test_class_pictures_stay_in_the_cache(noun: str, sd1: Family, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    drawing = draw_prior(sd1, noun.format(outside=outside), Schedule(prior_images=1), seed=0)
    try:
        while True:
            next(drawing)
    except StopIteration as done:
        [reference] = done.value
    assert reference.path.is_file()
    assert default_folder().resolve() in reference.path.resolve().parents
    assert not outside.exists()
    assert reference.caption == f"a {noun.format(outside=outside)}"
