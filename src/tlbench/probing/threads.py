"""Which threads multiply matrices: ours over blocks of rows, one for each core, and in each of them BLAS alone.

BLAS's own threads wait for each other by spinning: on products as small as these, and on a machine that is shared,
that takes many times what it saves.
"""

import contextlib
import functools
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from threadpoolctl import ThreadpoolController

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def over_blocks() -> Iterator[None]:
    """In this block BLAS leaves the cores to `pool`; what it had before comes back."""
    with _controller().limit(limits=1, user_api="blas"):
        yield


@contextlib.contextmanager
def of_blas() -> Iterator[None]:
    """In this block one large decomposition has all cores."""
    with _controller().limit(limits=CORES, user_api="blas"):
        yield


def pool() -> ThreadPoolExecutor:
    """Threads for blocks of rows."""
    return ThreadPoolExecutor(CORES, thread_name_prefix="block")


@functools.cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()
