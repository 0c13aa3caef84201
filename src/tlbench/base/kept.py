"""What the jobs of one process share: made by the first that asks, and kept for the others.

Off by default: then everything is made anew, as a host that trains twice expects.
"""

import contextlib
from collections.abc import Callable, Hashable, Iterator
from contextvars import ContextVar
from typing import Any, TypeVar, cast

T = TypeVar("T")

_kept: ContextVar[dict[Hashable, Any] | None] = ContextVar("kept", default=None)


@contextlib.contextmanager
def between_jobs() -> Iterator[None]:
    """Keep what `once` makes, for the time of the block; within another such block, for that one's."""
    known = _kept.get()
    token = _kept.set({} if known is None else known)
    try:
        yield
    finally:
        _kept.reset(token)


def once(key: Hashable, make: Callable[[], T]) -> T:
    """What `make` returns; in `between_jobs` what it returned before for the same key.

    key: all that decides what is made. Nobody may change what is kept.
    """
    known = _kept.get()
    if known is None:
        return make()
    if key not in known:
        known[key] = make()
    return cast(T, known[key])
