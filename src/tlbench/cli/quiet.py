"""Libraries made quick to import and silent, by means that are the process's own: for the command line alone."""

import contextlib
import gc
import sys
import warnings
from collections.abc import Iterator

from tlbench.base.muted import muted_stderr


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Drop what converters and runtimes say of themselves, on both streams and as warnings."""
    with muted_stderr(), contextlib.redirect_stdout(None), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def import_tensorflow() -> None:
    """Import TensorFlow and Keras for good."""
    if "tensorflow" not in sys.modules:
        with kept():
            from tlbench.networks import hardware  # noqa: F401


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Keep what is made in the block, modules above all, from the garbage collector: it would go through all
    of it, now and ever again, and none of it goes.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
