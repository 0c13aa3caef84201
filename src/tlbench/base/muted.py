"""Silence for libraries that report on themselves below Python."""

import contextlib
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def muted_stderr() -> Iterator[None]:
    """Drop what C++ libraries write to file descriptor 2: Python's own stderr cannot catch that."""
    with contextlib.suppress(AttributeError, OSError, ValueError):  # it may be closed
        sys.stderr.flush()
    try:
        saved = os.dup(2)
    except OSError:  # nothing is open there
        yield
        return
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)
