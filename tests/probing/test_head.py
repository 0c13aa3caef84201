"""`tlbench train head=logistic` and its like: a usual run, whose head was solved rather than trained."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from helpers import BACKBONE, Answer, once
from tlbench.cli import main

Command = Callable[..., Answer]

SOLVED = ("data=digits", *BACKBONE, "features.precision=float32", "data.limit=400")


@pytest.fixture(scope="module")
def probabilities(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """What a logistic head says of the test pictures."""

    def make(folder: Path) -> None:
        places = (f"hydra.run.dir={folder / 'run'}", f"features.folder={folder / 'features'}")
        assert main.main(["train", "head=logistic", *SOLVED, *places]) == 0

    folder = once(tmp_path_factory, "logistic", make)
    return np.load(folder / "run" / "predictions.npz")["probabilities"]


@pytest.mark.parametrize("head", ["logistic", "ridge", "class_mean", "nearest"])
def test_a_solved_head_is_a_usual_run(tlbench: Command, tmp_path: Path, head: str) -> None:
    answer = tlbench("train", f"head={head}", *SOLVED, "hydra.run.dir=run")
    assert answer.code == 0, answer.err
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["evaluation"] > 0.8
    with (tmp_path / "run" / "history.csv").open(newline="") as file:
        path = list(csv.DictReader(file))
    losses = [float(step["val_loss"]) for step in path]
    assert metrics["kept_epoch"] == int(np.argmin(losses)) + 1
    assert metrics["val_loss"] == pytest.approx(min(losses), abs=1e-4)
    if head in ("class_mean", "nearest"):
        assert len(path) == 1
    else:
        strengths = [float(step["strength"]) for step in path]
        assert metrics["strength"] == strengths[metrics["kept_epoch"] - 1]
        assert strengths == sorted(strengths, reverse=True)
        assert f"strength {metrics['strength']:.2g}" in answer.out
    model = keras.saving.load_model(tmp_path / "run" / "model.keras")
    if head != "nearest":
        kinds = [type(layer).__name__ for layer in model.layers[-2:]]
        assert kinds == ["GlobalAveragePooling2D", "Dense"]
    evaluated = tlbench("evaluate", "run")
    assert f"{metrics['evaluation']:.4f}" in evaluated.out
    again = tlbench("train", "resume=run")
    assert "completed: nothing to do" in again.out
    more = tlbench("train", "resume=run", "epochs=9")
    assert more.code == 2
    assert "solved exactly" in more.err


@pytest.mark.parametrize("limit", ["4", "0"])
def test_the_same_bits_for_the_same_command_wherever_its_features_lie(
    tlbench: Command, probabilities: np.ndarray, limit: str
) -> None:
    """In memory, or on disk alone."""
    words = ("head=logistic", *SOLVED, f"features.memory_limit_gb={limit}", "hydra.run.dir=run")
    assert tlbench("train", *words).code == 0
    found = np.load("run/predictions.npz")["probabilities"]
    np.testing.assert_array_equal(found, probabilities)


def test_fine_tuning_begins_from_what_was_solved(tlbench: Command, tmp_path: Path) -> None:
    words = ("strategy=probe_finetune", "trainable=true", "epochs=1", "optimizer=sgd")
    rates = ("optimizer.learning_rate.trained=1e-7",)
    answer = tlbench("train", "head=logistic", *SOLVED, *words, *rates, "hydra.run.dir=run")
    assert answer.code == 0, answer.err
    with (tmp_path / "run" / "history.csv").open(newline="") as file:
        records = list(csv.DictReader(file))
    assert [record["stage"] for record in records] == [*["probe"] * 20, "finetune"]
    best = min(records[:20], key=lambda step: float(step["val_loss"]))
    assert float(records[20]["val_loss"]) == pytest.approx(float(best["val_loss"]), abs=0.02)


def test_views_of_an_augmentation_are_rows(tlbench: Command, tmp_path: Path) -> None:
    words = ("head=ridge", *SOLVED, "augment=flip", "hydra.run.dir=run")
    assert tlbench("train", *words).code == 0
    features = json.loads((tmp_path / "run" / "manifest.json").read_text())["features"]
    assert features["images_computed"] + features["images_reused"] == 2 * 500


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["trainable=true"], "head.solver=logistic needs the features of a frozen backbone"),
        (["features.cache=false"], "head.solver=logistic needs the features of a frozen backbone"),
        (["head.widths=[8]"], "head.widths=[8] is not valid. Expected []"),
        (["head.solver=logistc"], "Did you mean 'logistic'?"),
        (["learning_rate=0.1"], "has no steps to size"),
        (["head.path=null"], "needs head.path"),
        (["head.path.weakest=20"], "Expected above 0, and at most head.path.strongest"),
        (["head.solver=nearest", "head.path=null"], "head.neighbours=null is not valid"),
        (["head=nearest", "strategy=probe_finetune", "trainable=true"], "a vote has no gradient"),
        (["head.path.steps=0"], "Expected at least 1"),
        (["strategy=probe_finetune"], "nothing left to train in its stage 'finetune'"),
    ],
)
def test_what_cannot_be_solved_is_one_line(tlbench: Command, words: list[str], line: str) -> None:
    answer = tlbench("train", "head=logistic", *SOLVED, *words)
    assert answer.code == 2
    assert len(answer.error_lines) == 1
    assert line in answer.err


def test_a_best_strength_at_the_end_of_the_path_names_one_beyond(
    tlbench: Command, photos: Path
) -> None:
    words = ("train", "head=logistic", "head.path.steps=3", "head.path.weakest=1")
    answer = tlbench(*words, *SOLVED, "hydra.run.dir=run")
    assert answer.code == 0, answer.err
    assert "at the end of the path: one beyond may be better, with head.path.weakest=0.01" in (
        answer.err
    )
    own = ("data=image_folder", f"data.root={photos}", *BACKBONE, "features.precision=float32")
    answer = tlbench(*words, *own, "hydra.run.dir=perfect")
    metrics = json.loads(Path("perfect", "metrics.json").read_text())
    assert metrics["val_accuracy"] == 1.0
    assert metrics["kept_epoch"] == 3
    assert "end of the path" not in answer.err
