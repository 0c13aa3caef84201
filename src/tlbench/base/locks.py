"""Locks of the cache: a file for each, beside what it guards, which is there as long as somebody holds it."""

import contextlib
import errno
import fcntl
import logging
import os
from collections.abc import Iterator
from pathlib import Path

log = logging.getLogger(__name__)


@contextlib.contextmanager
def held(path: Path, *, wait: bool, doing: str = "computes these features") -> Iterator[bool]:
    """Hold the lock of this file: one process at a time, the others wait for it or raise BlockingIOError.

    doing: what another process does that is waited for.

    The file is removed at the end; who waited for one that is gone asks for the next. Where the file
    system has no locks the block goes on without, and is given False: blocks are whole whoever writes them.
    """
    while True:
        with open(path, "a", opener=_no_link) as lock:
            locked = _take(lock.fileno(), doing if wait else None)
            if _is_still(lock.fileno(), path):
                try:
                    yield locked
                finally:
                    with contextlib.suppress(OSError):
                        path.unlink()
                return


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)


def _take(lock: int, waiting: str | None) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if waiting is None:
            raise
        log.info("Another process %s: waiting for it", waiting)
        fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        log.warning(
            "The cache's file system has no locks (%s): jobs may compute twice", error.strerror
        )
        return False
    return True


def _is_still(lock: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(lock), path.stat())
    except FileNotFoundError:
        return False
