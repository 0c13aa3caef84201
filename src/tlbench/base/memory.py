"""The memory of this process: the most it has held, and what it can do without."""

import contextlib
import ctypes
import gc
import resource
import sys


def peak_bytes() -> int:
    """The most memory this process has held at once."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def give_back() -> None:
    """Return to the system what nobody uses: glibc would keep most of a freed network's weights."""
    gc.collect()  # functions of TensorFlow and their graphs hold each other
    with contextlib.suppress(AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
