"""The memory of this process and of the system: the most it has held, what is left, what it can do without."""

import contextlib
import ctypes
import gc
import os
import resource
import sys
from collections.abc import Iterator
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


def available_bytes(root: Path = Path("/")) -> int:
    """What processes may still take: of the system's memory, and of what each control group around this one allows.

    root: of the file system that tells of them. Where none does: half of what there is.
    """
    with contextlib.suppress(OSError):
        left = _named(root / "proc/meminfo", "MemAvailable:") * 1024
        return min([left, *_left_to_groups(root)])
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _left_to_groups(root: Path) -> Iterator[int]:
    """Of each control group with a limit, from this process's own upwards, in either version of them (cgroups(7))."""
    first = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    second = ("memory.max", "memory.current", "inactive_file")
    for line in (root / "proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        limit, usage, reclaimed = first if controllers else second
        top = root / "sys/fs/cgroup" / controllers
        own = top / path.strip("/")
        for group in (own, *own.parents):
            with contextlib.suppress(
                OSError, ValueError
            ):  # without a limit, or not to be seen from a container
                most = int((group / limit).read_text())
                used = int((group / usage).read_text())
                yield most - used + _named(group / "memory.stat", reclaimed)
            if group == top:
                break


def _named(file: Path, name: str) -> int:
    """The number behind a name, each of them on a line."""
    return next(
        int(line.split()[1]) for line in file.read_text().splitlines() if line.split()[0] == name
    )


def first_to_go() -> None:
    """Have the system end this process rather than another, where memory runs out."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def forget_peak() -> None:
    """Count the most that is held from now on, where the system can."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def give_back() -> None:
    """Return to the system what nobody uses: glibc would keep most of a freed network's weights."""
    gc.collect()  # functions of TensorFlow and their graphs hold each other
    with contextlib.suppress(AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
