"""Which threads multiply matrices: ours over blocks of rows or over whole problems, one for each core, and in each
of them BLAS alone.

BLAS's own threads wait for each other by spinning: on products as small as these, and on a machine that is shared,
that takes many times what it saves.
"""

import contextlib
import functools
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from threadpoolctl import ThreadpoolController

Item = TypeVar("Item")
Result = TypeVar("Result")

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def over_blocks() -> Iterator[None]:
    """In this block BLAS leaves the cores to `each`; what it had before comes back."""
    with _controller().limit(limits=1, user_api="blas"):
        yield


@contextlib.contextmanager
def of_blas() -> Iterator[None]:
    """In this block one large decomposition has all cores, but where `each` has given them away."""
    if _one_of_ours():
        yield
        return
    with _controller().limit(limits=CORES, user_api="blas"):
        yield


def each(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """What `work` makes of each item, in their order, several at a time; within one of these, one by one."""
    given = list(items)
    if len(given) == 1 or _one_of_ours():
        return map(work, given)
    return _pool().map(work, given)


_local = threading.local()


def _one_of_ours() -> bool:
    return getattr(_local, "ours", False)


@functools.cache
def _pool() -> ThreadPoolExecutor:
    def begin() -> None:
        _local.ours = True

    return ThreadPoolExecutor(CORES, "probing", initializer=begin)


@functools.cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()
