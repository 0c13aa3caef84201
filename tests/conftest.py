"""Fixtures of every room: a command line in a folder of its own, small data, runs that are trained once."""

import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import forking
import processes
from helpers import BACKBONE, TINY, Answer, once
from tlbench.cli import main
from tlbench.sweep import workers


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Each worker has rooms of its own, whose runs are trained once; one that has done them takes some of another's."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What crosses rooms takes longest, and comes first: at the end there is little to wait for."""
    items.sort(key=lambda item: item.path.parent != Path(__file__).parent)


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_the_disk() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", forking.no_waiting)
        yield


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test runs in an empty folder, with a feature cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TLBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("TLBENCH_TRACEBACK", raising=False)


@pytest.fixture
def tlbench(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Answer]:
    """Run a command in this process; those that it starts are forked."""

    def run(*words: str) -> Answer:
        if {"--multirun", "find-batch"} & set(words):
            monkeypatch.setattr(workers, "PYTHON", (processes.python(), *workers.PYTHON[1:]))
        capfd.readouterr()
        code = main.main(list(words))
        out, err = capfd.readouterr()
        return Answer(code, out, err)

    return run


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


def _trained(factory: pytest.TempPathFactory, name: str, *words: str) -> Path:
    """A copy of a run that is trained once for all workers: a run's lock lets one process in at a time."""

    def make(folder: Path) -> None:
        places = (f"hydra.run.dir={folder / name}", f"features.folder={folder / 'features'}")
        assert main.main(["train", *words, *places]) == 0

    return Path(shutil.copytree(once(factory, name, make) / name, factory.mktemp("runs") / name))


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run that tells digits apart; to be read, not changed."""
    words = (
        *("data=digits", "data.limit=600", "batch_size=32", "head=linear", "device=cpu"),
        *(*BACKBONE, "trainable=false", "epochs=60", "learning_rate=0.02"),
        "features.precision=float32",  # whatever else the processor is good at
    )
    return _trained(tmp_path_factory, "digits", *words)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of TINY, all layers trained; to be read, not changed."""
    return _trained(tmp_path_factory, "tiny", *TINY)


@pytest.fixture
def run_copy(digits_run: Path, tmp_path: Path) -> Path:
    """A copy of that run, as training left it, for a test to change.

    model.keras is linked, for its size: a test that changes it has to remove it first.
    """

    def copy(source: str, target: str) -> object:
        if not source.endswith("model.keras"):
            return shutil.copy2(source, target)
        os.link(source, target)
        return target

    ignored = shutil.ignore_patterns("evaluation", "exports")
    return Path(shutil.copytree(digits_run, tmp_path / "run", ignore=ignored, copy_function=copy))
