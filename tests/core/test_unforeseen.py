"""What nobody expected is told in one line."""

from __future__ import annotations

import errno

import pytest

from personae.core.unforeseen import in_words


def test_memory_that_ended_is_seen_behind_other_errors() -> None:
    cause = ImportError("libx.so: failed to map segment from shared object")
    error = RuntimeError("Failed to import a pipeline")
    error.__cause__ = cause
    assert "no memory left" in in_words(error, "a log shows more")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "no memory left"),
        (RuntimeError("could not create a primitive"), "no memory left"),
        (RuntimeError("CUDA out of memory. Tried\nto allocate"), "no memory left"),
        (OSError(errno.ENOSPC, "No space left on device"), "no space left on device"),
        (RecursionError(), "nested too deeply"),
        (UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates not allowed"), "is not UTF-8"),
        (ZeroDivisionError("a\nb"), "ZeroDivisionError: a b; this was not foreseen: a log"),
    ],
)
def test_what_nobody_expected_is_one_line(error: Exception, said: str) -> None:
    assert said in in_words(error, "a log shows more")
    assert "\n" not in in_words(error, "a log shows more")
