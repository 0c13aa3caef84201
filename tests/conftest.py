"""What tests share: one small real training, and copies of its folder to damage."""

import os
import shutil
from pathlib import Path

import pytest

# Random VGG16 features tell digits apart, and a head on them is trained in seconds.
TINY = [
    *("data=digits", "data.limit=600", "batch_size=32", "head=linear", "device=cpu"),
    *("backbone=vgg16", "backbone.weights=null", "backbone.image_size=32", "trainable=false"),
    *("epochs=60", "learning_rate=0.02"),
]


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run on the embedded digits; to be read, not changed."""
    from tlbench import cli

    folder = tmp_path_factory.mktemp("runs") / "digits"
    cache = f"features.folder={tmp_path_factory.mktemp('features')}"
    assert cli.main(["train", *TINY, cache, f"hydra.run.dir={folder}"]) == 0
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
