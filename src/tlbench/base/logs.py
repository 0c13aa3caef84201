"""What tlbench logs, heard by those who ask: a host's own logging stays as it is, and is told no more than before."""

import contextlib
import logging
import threading
from collections.abc import Iterator

LOG = logging.getLogger("tlbench")
LOG.addHandler(logging.NullHandler())  # nobody listening, Python would print warnings by itself

_lock = threading.Lock()
_listening: list[logging.Handler] = []


class _PassOn(logging.Handler):
    """Gives the host what it would have heard."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= self.level and logging.root.handlers:
            logging.root.callHandlers(record)


@contextlib.contextmanager
def heard_by(handler: logging.Handler) -> Iterator[None]:
    """Give a handler all that tlbench logs, for the time of the block."""
    with _lock:
        if not _listening:
            _open()
        _listening.append(handler)
        LOG.addHandler(handler)
    try:
        yield
    finally:
        with _lock:
            LOG.removeHandler(handler)
            _listening.remove(handler)
            if not _listening:
                _close()


def _open() -> None:
    _before.update(level=LOG.level, propagate=LOG.propagate)
    LOG.addHandler(_pass_on)
    _pass_on.setLevel(LOG.getEffectiveLevel() if LOG.propagate else logging.CRITICAL + 1)
    LOG.setLevel(logging.DEBUG)
    LOG.propagate = False


def _close() -> None:
    LOG.removeHandler(_pass_on)
    LOG.setLevel(_before["level"])
    LOG.propagate = bool(_before["propagate"])


_pass_on = _PassOn()
_before: dict[str, int] = {}
