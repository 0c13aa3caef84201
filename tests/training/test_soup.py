"""`tlbench soup`: the mean of a sweep's models, as a run like any other."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from helpers import TINY, Answer
from tlbench.data import datasets
from tlbench.data.resize import Resize
from tlbench.networks.hardware import keras
from tlbench.runs.run import Run

Command = Callable[..., Answer]

SWEEP = ("--multirun", "hydra.sweep.dir=my sweep", "epochs=3", "head.widths=[]")


def weights(run: Run) -> list[np.ndarray]:
    return keras.models.load_model(run.model, compile=False).get_weights()


def greedy(runs: list[Run]) -> tuple[list[int], list[np.ndarray]]:
    """Which runs a greedy soup takes, the best first, and their mean; by Keras alone."""
    cfg = runs[0].config()
    digits = datasets.load(cfg.data, Resize.of(cfg))
    rows = digits.splits["validation"]
    pixels, labels = digits.images.batch(rows), digits.labels[rows]
    model = keras.models.load_model(runs[0].model, compile=False)
    order = sorted(range(len(runs)), key=lambda n: -runs[n].metrics["val_accuracy"])
    taken, kept, best = list[int](), list[np.ndarray](), -1.0
    for number in order:
        tried = [
            np.mean(each, axis=0)
            for each in zip(*(weights(runs[n]) for n in (*taken, number)), strict=True)
        ]
        model.set_weights(tried)
        accuracy = float(np.mean(model.predict(pixels, verbose=0).argmax(axis=1) == labels))
        if accuracy >= best:
            taken, kept, best = [*taken, number], tried, accuracy
    return taken, kept


def test_a_soup_is_the_mean_of_what_makes_validation_no_worse(tlbench: Command) -> None:
    rates = "optimizer.learning_rate.frozen=0.05,0.02,0.5"
    trained = tlbench("train", *TINY, *SWEEP, "trainable=false", rates)
    assert trained.code == 0, trained.err
    runs = [Run.finished(Path("my sweep", str(number))) for number in range(3)]
    answer = tlbench("soup", "my sweep")
    assert answer.code == 0, answer.err
    made = Run.finished(Path("my sweep", "soup"))
    taken, expected = greedy(runs)
    assert [Path(folder).name for folder in made.manifest["soup"]] == [str(n) for n in taken]
    for found, mean in zip(weights(made), expected, strict=True):
        np.testing.assert_allclose(found, mean, rtol=1e-5, atol=1e-6)
    assert made.metrics["epochs"] == 3
    assert made.metrics["val_accuracy"] >= max(run.metrics["val_accuracy"] for run in runs)
    assert made.config().strategy.name == "soup"
    evaluated = tlbench("evaluate", "my sweep/soup")
    assert evaluated.code == 0
    assert "equals the record" in evaluated.out
    table = tlbench("report", "my sweep")
    assert "strategy=soup" in table.out
    again = tlbench("soup", "my sweep")
    assert again.code != 0
    assert "--out DIR" in again.error_lines[-1]
    other = tlbench("soup", "my sweep", "--out", "other")  # the first soup is none of its runs
    assert other.code == 0, other.err
    np.testing.assert_array_equal(Run.finished(Path("other")).tested()[1], made.tested()[1])
    longer = tlbench("train", "resume=other", "epochs=9")
    assert longer.code == 2
    assert "backbone.weights=" in longer.error_lines[-1]


def test_what_cannot_be_averaged_is_left_out_and_said(tlbench: Command) -> None:
    words = (*TINY, "trainable=false", "epochs=1", "head.widths=[]", "hydra.run.dir")
    for folder, other in (("a", "seed=0"), ("b", "data.split_seed=7"), ("c", "head.widths=[4]")):
        answer = tlbench("train", *words[:-1], f"hydra.run.dir=runs/{folder}", other)
        assert answer.code == 0, answer.err
    answer = tlbench("soup", "runs")
    assert answer.code != 0
    assert "A soup needs two runs at least" in answer.error_lines[-1]
    assert not Path("runs", "soup").exists()
    said = " ".join(answer.err.split())
    assert "another network than" in said
    assert "their splits are others" in said


@pytest.mark.parametrize("words", [("nowhere",), ("--out", "x"), ("runs", "more")])
def test_a_command_that_names_no_sweep_is_refused_in_one_line(
    tlbench: Command, words: tuple[str, ...]
) -> None:
    answer = tlbench("soup", *words)
    assert answer.code == 2
    assert len(answer.error_lines) == 1
