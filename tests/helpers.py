"""Shared by the tests: small configurations, what a command left, and what is made once for all workers."""

import fcntl
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tlbench.config.compose import compose
from tlbench.config.schema import Config
from tlbench.data.resize import Resize

# The smallest training that is real: all of it takes two seconds, most of them TensorFlow's. See small.py.
SMALL = Path(__file__).with_name("small.keras")
BACKBONE = ("backbone=file", f"backbone.weights={SMALL}")
SHORT = (
    "features.precision=float32",
    "head.widths=[16]",
    "epochs=2",
    "data.limit=300",
)  # auto measures
TINY = ("data=digits", *BACKBONE, *SHORT)
# The same with a network that Keras has: a quarter-width MobileNet of 32 x 32 pixels from random weights.
MOBILENET = (
    *("data=digits", "backbone=mobilenet", "backbone.arguments.alpha=0.25"),
    *("backbone.weights=null", "backbone.image_size=32", *SHORT),
)


@dataclass(frozen=True)
class Answer:
    """What a command left: its exit code and its two streams."""

    code: int
    out: str
    err: str

    @property
    def error_lines(self) -> list[str]:
        return self.err.strip().splitlines()


def make_config(*overrides: str) -> Config:
    """A checked configuration as the command line would make it."""
    return compose(overrides)


def resize_to(size: int, way: str = "crop", interpolation: str = "bilinear") -> Resize:
    """How pictures are brought to a size."""
    return Resize(size, way, interpolation)


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that the first worker of pytest-xdist to ask for it makes, and the others wait for."""
    base = factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    folder = shared / name
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "made").is_file():
            folder.mkdir()
            make(folder)
            (folder / "made").touch()
    return folder
