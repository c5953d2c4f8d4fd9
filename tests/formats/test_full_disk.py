"""A disk that is full ends every export in one line, and leaves no half file."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from format_world import trained
from personae.errors import PersonaeError
from personae.formats.format import export_file, formats
from tiny_world import bases

SMALL = {"lora": {"rank": 1}, "textual_inversion": {"initializer_words": "cat"}}


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """Let no file grow beyond `size` bytes, which the system says as it says a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("size", [16, 700])
@pytest.mark.parametrize("name", sorted(formats()))
def test_no_export_leaves_a_half_file(name, size, tmp_path):
    kind = formats()[name]
    technique = kind.techniques[0]
    base = next(base for base in bases().values() if kind.fits(type(base)))
    artifact = trained(technique, base, **SMALL.get(technique, {}))
    with room_for(size), pytest.raises(PersonaeError, match=r"cannot be written \(File too large"):
        export_file(artifact, name, tmp_path / "made", base)
    assert list(tmp_path.iterdir()) == []
