"""Training on images that mix: labels are shares of classes, and all that is measured stays what it is."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from helpers import MOBILENET, TINY, Answer, make_config, resize_to
from tlbench.data import datasets
from tlbench.networks.hardware import keras
from tlbench.training import inputs, losses

Command = Callable[..., Answer]


def batches(*words: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Images and labels of the first batch, as they are and with the words."""
    dataset = datasets.load(make_config(*MOBILENET).data, resize_to(32))
    found = []
    for extra in ((), words):
        cfg = make_config(*MOBILENET, "batch_size=20", *extra)
        source = inputs.from_images(keras.Sequential(), dataset, cfg)
        batch = next(iter(inputs.shuffled(source, dataset, cfg, range(1))))
        found.append([part.numpy() for part in batch])
    return found[0], found[1]


def test_labels_are_shares_of_the_two_that_were_mixed() -> None:
    (images, labels), (mixed, shares) = batches("augment.mixup=1")
    assert shares.shape == (20, 10)
    np.testing.assert_allclose(shares.sum(-1), 1, rtol=1e-6)
    for place, (own, other) in enumerate(zip(labels, labels[::-1], strict=True)):
        left = shares[place, own]
        expected = left * images[place].astype(float) + (1 - left) * images[::-1][place]
        if own != other:  # else nobody can tell
            np.testing.assert_allclose(mixed[place], expected, atol=0.51)
            np.testing.assert_allclose(shares[place, other], 1 - left, atol=1e-6)


def test_what_is_validated_on_is_not_mixed() -> None:
    cfg = make_config(*MOBILENET, "augment.cutmix=1")
    dataset = datasets.load(cfg.data, resize_to(32))
    source = inputs.from_images(keras.Sequential(), dataset, cfg)
    rows = dataset.splits["validation"]
    images, labels = next(iter(inputs.in_order(source, dataset, rows, 64)))
    np.testing.assert_array_equal(images.numpy(), dataset.images.batch(rows[:64]))
    np.testing.assert_array_equal(labels.numpy(), np.eye(10)[dataset.labels[rows[:64]]])


@pytest.mark.parametrize(
    "loss", [[], ["loss.label_smoothing=0.1"], ["loss=focal"]], ids=["plain", "smooth", "focal"]
)
def test_whole_shares_cost_what_numbers_of_classes_do(loss: list[str]) -> None:
    cfg = make_config(*MOBILENET, *loss)
    dataset = datasets.load(cfg.data, resize_to(8))
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(10), 30).astype(np.float32)
    numbers = rng.integers(0, 10, 30)
    of_numbers = losses.loss(cfg.loss, dataset)(numbers, probabilities)
    of_shares = losses.loss(cfg.loss, dataset, shares=True)(
        np.eye(10, dtype=np.float32)[numbers], probabilities
    )
    assert float(of_shares) == pytest.approx(float(of_numbers), rel=1e-5)


@pytest.mark.parametrize(
    "words", [["augment.cutmix=1", "data.sampling=balanced"], ["augment.mixup=0.2", "loss=focal"]]
)
def test_a_run_whose_images_mix_is_as_any_other(tlbench: Command, words: list[str]) -> None:
    answer = tlbench("train", *TINY, *words, "hydra.run.dir=run")
    assert answer.code == 0, answer.err
    with (Path("run") / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert all(0 <= float(row["accuracy"]) <= 1 for row in rows)
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    assert tlbench("evaluate", "run").code == 0
