"""How to read the numbers of a report that decide, in words a newcomer understands."""

from __future__ import annotations

from personae.evaluation.scores import Score
from personae.study.comparison.comparison import Comparison
from personae.study.comparison.encoders import ROLES, encoder_name
from personae.study.comparison.measures import LIKENESS_SHARES


def explanations(comparison: Comparison) -> list[tuple[str, str]]:
    """Return (term, what it means) of likeness, agreement and the right prompt, where measured."""
    explained = [("Likeness", _likeness(comparison))]
    if "agreement_share" in comparison.measures:
        explained.append(("Agreement with the prompt", _agreement(comparison)))
    if "right_prompt" in comparison.measures:
        explained.append(("Right prompt found", _right_prompt(comparison)))
    return explained


def _likeness(comparison: Comparison) -> str:
    scores = {name: _score(comparison, name) for name in LIKENESS_SHARES}
    seen = {name: score for name, score in scores.items() if score is not None}
    if not any(score.floor is not None for score in seen.values()):
        return "100% is what real pictures of the character reach among themselves."
    text = (
        "How much the drawn character is the real one: 0% is what others of its class reach, as "
        "the untouched base draws them, 100% what the character's own pictures reach among "
        "themselves."
    )
    names = [encoder_name(comparison, ROLES[name]) for name in seen]
    if len(names) > 1:
        text += (
            f" Two networks look, since each has habits of its own: {names[0]} first, {names[1]} "
            "second. Where they disagree, believe the pictures."
        )
    return text


def _agreement(comparison: Comparison) -> str:
    score = _score(comparison, "prompt_following")
    scale = score.details.get("scale", "real pictures") if score else "real pictures"
    return (
        "Whether the prompt acts: 0% is a picture that suits any other prompt as well, 100% what "
        f"real pictures reach ({scale})."
    )


def _right_prompt(comparison: Comparison) -> str:
    score = _score(comparison, "right_prompt")
    count = score.details.get("prompts") if score else None
    among = f" of {count}" if count else ""
    text = f"How often one can tell from a picture which prompt{among} was asked for"
    if count:
        text += f"; guessing finds {1 / count:.0%}"
    if score and score.ceiling is not None:
        text += f", and from real pictures it is {score.ceiling:.0%}"
    return text + "."


def _score(comparison: Comparison, name: str) -> Score | None:
    """Return a metric of the first cell that has values of it, or None."""
    scores = (each.scores.metrics.get(name) for row in comparison.trained for each in row.cells)
    return next((score for score in scores if score is not None and score.values), None)
