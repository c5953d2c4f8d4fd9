"""Plug-ins are found by being there, and wrong names are met with the nearest."""

from __future__ import annotations

import ast
import importlib
from inspect import isabstract
from pathlib import Path

import pytest

from personae.core.registry import PlugIn, discover, lookup, nearest
from personae.errors import UsageError
from personae.models.family import Family
from personae.techniques.technique import Technique


def test_the_four_techniques_of_the_paper_are_there() -> None:
    wanted = {"dreambooth", "hypernetwork", "lora", "textual_inversion"}
    assert wanted <= set(discover(Technique))


@pytest.mark.parametrize("kind", [Technique, Family])
def test_every_concrete_class_of_a_folder_is_found(kind: type[PlugIn]) -> None:
    found = discover(kind)
    assert list(found) == sorted(found)
    assert all(not isabstract(plug_in) for plug_in in found.values())
    assert kind not in found.values()
    bases = {kind.__name__, *(plug_in.__name__ for plug_in in found.values())}
    for path in Path(importlib.import_module(kind.package).__path__[0]).glob("*.py"):
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef) and bases & {ast.unparse(b) for b in node.bases}:
                assert node.name in bases


def test_a_wrong_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"'loar' is not one of the techniques .*'lora'\?"):
        lookup(Technique, "loar")
    with pytest.raises(UsageError, match=r"lora, textual_inversion\)\.$"):
        lookup(Technique, "zzzzz")


def test_nearest_offers_one_word_or_none() -> None:
    assert nearest("dreambot", ["dreambooth", "lora"]) == " Did you mean 'dreambooth'?"
    assert nearest("xyz", ["dreambooth", "lora"]) == ""
    assert nearest("xyz", []) == ""
