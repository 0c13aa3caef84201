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
    """Takes what its thread prints, and logs what of it tells of a download; others print as before."""

    def __init__(self) -> None:
        super().__init__()
        self.thread, self.stdout = threading.get_ident(), sys.stdout

    def write(self, text: str) -> int:
        if threading.get_ident() != self.thread:
            return self.stdout.write(text)
        if text.startswith("Downloading"):
            log.info("%s", text.strip())
        return len(text)


_one_at_a_time = threading.RLock()  # stdout is the process's: two that put it back might swap it


@contextlib.contextmanager
def muted_stdout() -> Iterator[None]:
    """Keep from stdout, which is for results, what Keras prints when it downloads: that is logged."""
    with _one_at_a_time, contextlib.redirect_stdout(_Downloads()):
        yield


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
