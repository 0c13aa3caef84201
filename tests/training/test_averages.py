"""Averages of weights: what is validated and kept, while the weights themselves are trained on and saved."""

import csv
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import TINY, Answer
from tlbench.networks.hardware import keras
from tlbench.runs.run import Run
from tlbench.training.callbacks import Keeper

Command = Callable[..., Answer]

# All that the averages could be at odds with: blocks of their own rates, two stages, statistics that move.
WORDS = (
    *(*TINY, "strategy=probe_finetune", "epochs=3", "batch_size=32", "batch_norm.statistics=batch"),
    *("optimizer=adamw", "optimizer.ema=0.9", "optimizer.layer_decay=0.6", "schedule=cosine"),
    *("optimizer.clipnorm=1", "head.dropout=0.2", "microbatch=12", "hydra.run.dir=run"),
)


def history(folder: str) -> list[dict[str, str]]:
    clocks = ("seconds", "images_per_second")
    with Path(folder, "history.csv").open() as file:
        return [{k: v for k, v in row.items() if k not in clocks} for row in csv.DictReader(file)]


def weights(folder: str) -> list[np.ndarray]:
    return keras.models.load_model(Path(folder, "model.keras")).get_weights()


@pytest.mark.parametrize(
    "more",
    [
        ("optimizer.ema=0.9", "early_stopping.patience=null"),
        ("optimizer.ema=null", "optimizer.swa=0.4", "early_stopping.patience=1"),
    ],
)
def test_a_run_that_is_stopped_goes_on_to_the_same_bits(
    tlbench: Command, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...]
) -> None:
    """Of 9 steps after the first and the fifth; at an epoch's end; just before one; and with nothing left to train."""
    words = (*WORDS, *more)
    assert tlbench("train", *words, "hydra.run.dir=whole").code == 0
    heard, stops = Keeper.on_train_batch_end, [(0, 1), (0, 5), (0, 9), (1, 8), (2, 9)]
    if "early_stopping.patience=1" in more:
        stops = stops[:3]  # it may end early

    def hear(self: Keeper, batch: int, logs: Any = None) -> None:
        if self.mid_epoch and stops and (self.state.epoch, self.first_step + batch + 1) == stops[0]:
            stops.pop(0)
            os.kill(os.getpid(), signal.SIGTERM)
        heard(self, batch, logs)

    monkeypatch.setattr(Keeper, "on_train_batch_end", hear)
    for left in range(len(stops) - 1, -1, -1):
        answer = tlbench("train", *words)
        assert (answer.code, len(stops)) == (143, left), answer.err
        words = ("resume=run",)
    answer = tlbench("train", *words)
    assert answer.code == 0, answer.err
    assert history("run") == history("whole")
    for one, other in zip(weights("run"), weights("whole"), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[list[np.ndarray]]:
    """What trains, after each step of the trainings that follow."""
    seen: list[list[np.ndarray]] = []
    heard = Keeper.on_train_batch_end

    def hear(self: Keeper, batch: int, logs: Any = None) -> None:
        seen.append([v.numpy() for v in self.model.trainable_variables])
        heard(self, batch, logs)

    monkeypatch.setattr(Keeper, "on_train_batch_end", hear)
    return seen


def test_what_is_kept_and_validated_is_the_average_of_all_steps(
    tlbench: Command, steps: list[list[np.ndarray]]
) -> None:
    """a = w after the first step, then a = 0.9 a + 0.1 w; 9 batches an epoch, three epochs."""
    words = ("strategy=single", "batch_norm.statistics=frozen", "learning_rate=0.01")
    assert tlbench("train", *WORDS, *words).code == 0
    expected = steps[0]
    for step in steps[1:]:
        expected = [0.9 * a + 0.1 * w for a, w in zip(expected, step, strict=True)]
    model = keras.models.load_model(Path("run") / "model.keras")
    kept = [v.numpy() for v in model.trainable_variables]
    for average, last, found in zip(expected, steps[-1], kept, strict=True):
        np.testing.assert_allclose(found, average, atol=1e-5)
        assert np.abs(found - last).max() > 1e-4
    last_row, metrics = history("run")[-1], Run.open(Path("run")).metrics
    assert float(last_row["val_loss"]) == pytest.approx(metrics["val_loss"], rel=1e-3)


def test_the_mean_of_the_last_steps_is_kept(
    tlbench: Command, steps: list[list[np.ndarray]]
) -> None:
    """Of 27 steps the last third, that is after step 18; statistics are recomputed for that mean."""
    words = ("strategy=single", "keep=last", "learning_rate=0.01", "schedule=constant")
    averaged = ("optimizer.ema=null", "optimizer.swa=0.3333")
    assert tlbench("train", *WORDS, *words, *averaged).code == 0
    assert len(steps) == 27
    expected = [np.mean(each, axis=0) for each in zip(*steps[18:], strict=True)]
    kept = keras.models.load_model(Path("run") / "model.keras").trainable_variables
    for mean, last, found in zip(expected, steps[-1], kept, strict=True):
        np.testing.assert_allclose(found.numpy(), mean, atol=1e-5)
        assert np.abs(found.numpy() - last).max() > 1e-4
    metrics = Run.open(Path("run")).metrics
    assert metrics["batch_norm_recalibrated"] is True
    both = tlbench("train", *WORDS, "optimizer.swa=0.5")
    assert both.code != 0
    assert "optimizer.ema averages already" in both.error_lines[-1]


def test_a_head_on_features_keeps_its_averages_too(tlbench: Command) -> None:
    words = (*WORDS, "strategy=single", "trainable=false", "early_stopping.patience=2")
    assert tlbench("train", *words).code == 0
    rows, metrics = history("run"), Run.open(Path("run")).metrics
    best = min(float(row["val_loss"]) for row in rows)
    assert metrics["val_loss"] == pytest.approx(best, rel=1e-3)
