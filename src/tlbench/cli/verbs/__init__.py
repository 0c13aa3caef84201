"""The verbs, a file each: what it is about, its parser, its call and what is shown of the result.

A verb's module has ABOUT, EXAMPLE, `run(words) -> exit code` and `candidates(words)`, what Tab offers for the last
of the words after the verb. Help and Tab import every one of them: what a verb works with, and shows its result by,
is imported where it is used.
"""

import importlib
from typing import Protocol

NAMES = (
    *(
        "train",
        "find-rate",
        "find-batch",
        "bench",
        "inspect",
        "data",
        "summary",
        "evaluate",
        "predict",
        "export",
        "soup",
        "report",
        "cache",
    ),
    "plugins",
)


class Verb(Protocol):
    """What each module here has."""

    ABOUT: str
    EXAMPLE: str

    def run(self, words: list[str]) -> int: ...

    def candidates(self, words: list[str]) -> list[str]: ...


def load(name: str) -> Verb:
    """The module of a verb in NAMES."""
    return importlib.import_module(f"{__name__}.{name.replace('-', '_')}")


def usage() -> str:
    """A line and an example for each verb."""
    lines = []
    for name in NAMES:
        verb = load(name)
        lines.append(f"  {name:<10} {verb.ABOUT}")
        lines += [f"              {line}" for line in verb.EXAMPLE.strip().splitlines()]
    return "\n".join(lines)
