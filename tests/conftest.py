"""Shared by the tests: a command line in a folder of its own, small configurations, small data."""

import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tlbench.cli import main
from tlbench.config.compose import compose
from tlbench.config.schema import Config

# The smallest training that is real: all of it takes two seconds, most of them TensorFlow's. See small.py.
SMALL = Path(__file__).with_name("small.keras")
BACKBONE = ("backbone=file", f"backbone.weights={SMALL}")
TINY = ("data=digits", *BACKBONE, "head.widths=[16]", "epochs=2", "data.limit=300")
# The same with a network that Keras has: a quarter-width MobileNet of 32 x 32 pixels from random weights.
MOBILENET = (
    *("data=digits", "backbone=mobilenet", "backbone.arguments.alpha=0.25"),
    *("backbone.weights=null", "backbone.image_size=32", *TINY[-3:]),
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


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test runs in an empty folder, with a feature cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TLBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("TLBENCH_TRACEBACK", raising=False)


@pytest.fixture
def tlbench(capfd: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Run a command in this process."""

    def run(*words: str) -> Answer:
        capfd.readouterr()
        code = main.main(list(words))
        out, err = capfd.readouterr()
        return Answer(code, out, err)

    return run


def make_config(*overrides: str) -> Config:
    """A checked configuration as the command line would make it."""
    return compose(overrides)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of pictures in two classes that a network can tell apart, 12 each."""
    root = tmp_path / "photos"
    rng = np.random.default_rng(0)
    for name, color in (("blue sky", (60, 90, 220)), ("grass", (40, 180, 60))):
        (root / name).mkdir(parents=True)
        for i in range(12):
            noise = rng.integers(-30, 30, (40 + i, 50, 3))
            pixels = np.clip(np.array(color) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.{('png', 'jpg', 'bmp')[i % 3]}")
    return root


@pytest.fixture
def cifar100(tmp_path: Path) -> Path:
    """400 training and 100 test images in the official layout of CIFAR-100."""
    folder = tmp_path / "sets" / "cifar-100-python"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, count in (("train", 400), ("test", 100)):
        fine = np.arange(count) % 100
        batch = {
            b"data": rng.integers(0, 256, (count, 3072), dtype=np.uint8),
            b"fine_labels": fine.tolist(),
            b"coarse_labels": (fine % 20).tolist(),
        }
        with (folder / name).open("wb") as file:
            pickle.dump(batch, file, protocol=4)
    return folder


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run that tells digits apart; to be read, not changed."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    words = [
        *("data=digits", "data.limit=600", "batch_size=32", "head=linear", "device=cpu"),
        *(*BACKBONE, "trainable=false", "epochs=60", "learning_rate=0.02"),
        "features.precision=float32",  # whatever else the processor is good at
        f"features.folder={tmp_path_factory.mktemp('features')}",
    ]
    assert main.main(["train", *words, f"hydra.run.dir={folder}"]) == 0
    return folder


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of TINY, all layers trained; to be read, not changed."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    assert main.main(["train", *TINY, f"hydra.run.dir={folder}"]) == 0
    return folder


@pytest.fixture
def run_copy(digits_run: Path, tmp_path: Path) -> Path:
    """A copy of that run, as training left it, for a test to change.

    model.keras is linked, for its size: a test that changes it has to remove it first.
    """

    def copy(source: str, target: str) -> object:
        link = source.endswith("model.keras")
        return os.link(source, target) if link else shutil.copy2(source, target)

    ignored = shutil.ignore_patterns("evaluation", "exports")
    return Path(shutil.copytree(digits_run, tmp_path / "run", ignore=ignored, copy_function=copy))
