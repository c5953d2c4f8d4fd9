"""Which runner a study gets."""

from __future__ import annotations

import pytest

from personae.errors import UsageError
from personae.study.run import pick_runner
from personae.study.study import Study
from study_world import finished


@pytest.fixture
def study(character, tmp_path) -> Study:
    values = {"character": str(character), "technique": "lora"}
    return finished(tmp_path / "study", values, {"lora": {}, "untouched": {}, "real": {}})


def test_without_a_cluster_cells_run_here(study):
    assert list(pick_runner(study)([])) == []
    assert list(pick_runner(study, jobs=2)([])) == []


def test_no_jobs_at_all_are_refused(study):
    with pytest.raises(UsageError, match="jobs is 0; it must be 1 or more"):
        pick_runner(study, jobs=0)
