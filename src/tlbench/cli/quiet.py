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
    """Import TensorFlow and Keras for good.

    The garbage collector would go through all that is imported, now and ever again, and none of it goes.
    """
    if "tensorflow" in sys.modules:
        return
    gc.disable()
    try:
        from tlbench.networks import hardware  # noqa: F401
    finally:
        gc.freeze()
        gc.enable()
