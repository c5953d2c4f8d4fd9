"""From pictures to scores: metrics, suites of prompts, statistics.

`evaluate` measures drawn pictures; a plug-in author needs `Metric` and `Evidence` from here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from personae.core.doors import door

if TYPE_CHECKING:
    from personae.evaluation.evaluate import Drawn, Encoders, evaluate
    from personae.evaluation.judge import Judge
    from personae.evaluation.metric import Evidence, Metric, Sample
    from personae.evaluation.scores import Scores
    from personae.evaluation.settings import JudgingSettings
    from personae.evaluation.suite import Suite, load_suite

__all__ = [
    "Drawn",
    "Encoders",
    "Evidence",
    "Judge",
    "JudgingSettings",
    "Metric",
    "Sample",
    "Scores",
    "Suite",
    "evaluate",
    "load_suite",
]

__getattr__, __dir__ = door(
    __name__,
    {
        "Drawn": "evaluate",
        "Encoders": "evaluate",
        "Evidence": "metric",
        "Judge": "judge",
        "JudgingSettings": "settings",
        "Metric": "metric",
        "Sample": "metric",
        "Scores": "scores",
        "Suite": "suite",
        "evaluate": "evaluate",
        "load_suite": "suite",
    },
)
