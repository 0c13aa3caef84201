"""Silence for libraries that report on themselves: in print, below Python, or as warnings in threads."""

import contextlib
import io
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator

log = logging.getLogger(__name__)


class _Downloads(io.StringIO):
    """Takes what is printed, and logs what of it tells of a download."""

    def write(self, text: str) -> int:
        if text.startswith("Downloading"):
            log.info("%s", text.strip())
        return len(text)


def muted_stdout() -> contextlib.AbstractContextManager[object]:
    """Keep from stdout, which is for results, what Keras prints when it downloads: that is logged."""
    return contextlib.redirect_stdout(_Downloads())


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


class _Warnings:
    """Drops Python's warnings as long as any thread is inside.

    The first in changes the filters, the last out puts them back. Each thread by itself, with
    `warnings.catch_warnings`, would put back what another had changed, and leave the host without warnings.
    """

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._filters = contextlib.ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._filters.enter_context(warnings.catch_warnings(action="ignore"))
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._filters.close()


no_warnings = _Warnings()
