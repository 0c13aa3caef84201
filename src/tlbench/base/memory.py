"""The memory of this process: the most it has held, and what it can do without."""

import contextlib
import ctypes
import gc
import os
import resource
import sys
from pathlib import Path


def peak_bytes() -> int:
    """The most memory this process has held at once."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def resident_bytes() -> int:
    """The memory that this process holds now; where the system does not tell, the most it has held."""
    with contextlib.suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return peak_bytes()


def forget_peak() -> None:
    """Count the most that is held from now on, where the system can."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def give_back() -> None:
    """Return to the system what nobody uses: glibc would keep most of a freed network's weights."""
    gc.collect()  # functions of TensorFlow and their graphs hold each other
    with contextlib.suppress(AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
