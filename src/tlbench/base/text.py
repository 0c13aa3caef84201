"""Names from outside as text that can be shown anywhere."""

import os
from collections.abc import Sequence
from pathlib import Path

SHOWN = 3  # of what something is wrong with
JOINERS = "\u200c\u200d"  # they draw nothing and do nothing, and words of some scripts need them


def printable(name: object) -> str:
    """A path or a name as one line of text that does nothing to a terminal."""
    text = os.fsencode(name).decode("utf-8", "replace") if isinstance(name, Path) else str(name)
    return "".join(
        c if c.isprintable() or c in JOINERS else "\N{REPLACEMENT CHARACTER}" for c in text
    )


def counted(count: int, one: str, several: str = "") -> str:
    """A number and what is counted: "1 image", "1,234 images"; several: the words where it is not one."""
    return f"{count:,} {one if count == 1 else several or f'{one}s'}"


def first(names: Sequence[object]) -> str:
    """The first few of what something is wrong with, and how many more there are."""
    shown = ", ".join(printable(name) for name in names[:SHOWN])
    return shown if len(names) <= SHOWN else f"{shown} and {len(names) - SHOWN:,} more"
