"""A step in parts is the step of the whole batch."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from helpers import TINY, Answer

Command = Callable[..., Answer]

# Weights of images, a last step of 20 of 50 images in parts of 16 and 4, and statistics that do not move.
WORDS = (
    *(*TINY, "strategy=single", "trainable=true", "batch_size=50", "batch_norm.statistics=frozen"),
    *("optimizer=sgd", "loss.class_weights={3:5}", "data.limit=300", "learning_rate=0.001"),
    "precision=float32",
)


def run(tlbench: Command, folder: str, *words: str) -> tuple[np.ndarray, list[dict[str, str]]]:
    answer = tlbench("train", *WORDS, *words, f"hydra.run.dir={folder}")
    assert answer.code == 0, answer.err
    with np.load(Path(folder, "checkpoint", "latest.npz")) as saved:
        names = [name for name in saved.files if name.startswith(("network/", "optimizer/"))]
        state = np.concatenate([saved[name].ravel() for name in names])
    with Path(folder, "history.csv").open() as file:
        return state, list(csv.DictReader(file))


@pytest.mark.parametrize("size", [16, 50])
def test_parts_make_the_step_of_the_whole(tlbench: Command, size: int) -> None:
    whole, rows = run(tlbench, "whole")
    parts, again = run(tlbench, "parts", f"microbatch={size}")
    np.testing.assert_allclose(parts, whole, atol=1e-5)
    for name in ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"):
        found, expected = ([float(row[name]) for row in told] for told in (again, rows))
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_seed_repeats_parts_to_the_bit_with_all_that_has_a_state(tlbench: Command) -> None:
    words = ("microbatch=16", "head.dropout=0.2", "optimizer.ema=0.9", "optimizer.layer_decay=0.5")
    one, other = (run(tlbench, name, *words, "batch_norm.statistics=batch") for name in "ab")
    np.testing.assert_array_equal(one[0], other[0])


def test_less_than_an_image_is_refused(tlbench: Command) -> None:
    answer = tlbench("train", *WORDS, "microbatch=0")
    assert answer.code == 2
    assert "microbatch=0 is not valid. Expected at least 1, or null." in answer.err
