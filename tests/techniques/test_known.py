"""What is known of the techniques before they are imported."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from personae.core import registry
from personae.core.registry import discover
from personae.errors import UsageError
from personae.techniques import known
from personae.techniques.known import known_technique, known_techniques
from personae.techniques.lora import LoRA
from personae.techniques.technique import Technique


class Elsewhere(LoRA):
    """A technique of another package."""

    name = "elsewhere"
    title = "Elsewhere"


def test_they_are_those_that_can_be_trained() -> None:
    kinds = discover(Technique).values()
    found = {name: (each.title, each.Config) for name, each in known_techniques().items()}
    assert found == {kind.name: (kind.title, kind.Config) for kind in kinds}
    assert all(title for title, _ in found.values())


def test_an_unknown_one_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"'lra' is not one of the techniques .*mean 'lora'"):
        known_technique("lra")


def test_those_of_other_packages_are_known_too(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("elsewhere", f"{__name__}:Elsewhere", known.GROUP)
    for module in (known, registry):
        monkeypatch.setattr(module, "entry_points", lambda group: [point])
    monkeypatch.setattr(registry, "_FOUND", {})
    try:
        known_techniques.cache_clear()
        assert known_technique("elsewhere").title == "Elsewhere"
    finally:
        known_techniques.cache_clear()
