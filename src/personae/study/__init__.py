"""Many trainings, and what their comparison says.

`Study.plan` makes a grid, `run_study` trains it, `Comparison.of` gathers what came of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from personae.core.doors import door

if TYPE_CHECKING:
    from personae.study.budget import Budget
    from personae.study.comparison.comparison import Comparison
    from personae.study.comparison.limits import Limits
    from personae.study.local_runner import local_runner
    from personae.study.run import pick_runner, run_study
    from personae.study.study import Study

__all__ = [
    "Budget",
    "Comparison",
    "Limits",
    "Study",
    "local_runner",
    "pick_runner",
    "run_study",
]

__getattr__, __dir__ = door(
    __name__,
    {
        "Budget": "budget",
        "Comparison": "comparison.comparison",
        "Limits": "comparison.limits",
        "Study": "study",
        "local_runner": "local_runner",
        "pick_runner": "run",
        "run_study": "run",
    },
)
