"""Errors that nobody expected, in one line that says what happened and what to do.

What is expected is refused with a line of its own. This is what may befall any work: a full disk,
no more memory, names that are no text, files nested without end.
"""

from __future__ import annotations

_LONGEST = 200
_NO_MEMORY = (
    "out of memory",
    "allocate memory",
    "could not create a primitive",
    "bad_alloc",
    "failed to map segment",
)
"""Parts of what torch, oneDNN and the loader of libraries say where memory ends; they have no error
of their own for it."""


def in_words(error: Exception, details: str) -> str:
    """Return in one line what happened and what to do.

    Args:
        error: of any kind.
        details: where to look for where it arose, as a half sentence.
    """
    said = " ".join(str(error).split())[:_LONGEST]
    if _lacks_memory(error):
        return (
            "there is no memory left for this; draw or train less at once (--batch-size, --width, "
            "--memory), or close other programs"
        )
    if isinstance(error, OSError):
        return _refused_by_the_system(error, said)
    if isinstance(error, RecursionError):
        return "a file is nested too deeply to be read; it is damaged, or made to do harm"
    if isinstance(error, UnicodeError):
        return f"a name or a text is not UTF-8 ({said}); rename the file or folder, or save it anew"
    return (
        f"{type(error).__name__}: {said or 'no reason given'}; this was not foreseen: {details}, "
        "please report that"
    )


def _lacks_memory(error: BaseException | None) -> bool:
    """Say whether the error, or what led to it, is that memory ended."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        error = error.__cause__ or error.__context__
    return any(
        isinstance(one, MemoryError) or any(part in str(one).lower() for part in _NO_MEMORY)
        for one in seen
    )


def _refused_by_the_system(error: OSError, said: str) -> str:
    reason = (error.strerror or said or type(error).__name__).lower()
    if error.filename is None:
        return f"a file or the output could not be read or written ({reason}); check the disk"
    return f"{error.filename}: {reason}; check the path and its permissions"
