"""What a training makes small: losses by hand, weights and draws against scikit-learn and against repeated rows."""

import itertools
import os
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.utils.class_weight import compute_class_weight

from helpers import BACKBONE, TINY, Answer, make_config, resize_to
from tlbench.base.errors import ConfigError, DataError
from tlbench.data import datasets
from tlbench.data.datasets import Dataset
from tlbench.data.images import ArrayImages
from tlbench.data.sources import Contents
from tlbench.features.frozen import Features
from tlbench.networks import classifiers
from tlbench.networks.hardware import keras
from tlbench.probing import logistic, spectrum
from tlbench.probing.design import Design
from tlbench.runs.run import Run
from tlbench.training import inputs, losses
from tlbench.training.callbacks import Keeper
from tlbench.training.train import train

Command = Callable[..., Answer]

HEAD = ("data=digits", *BACKBONE, "features.precision=float32", "trainable=false")


def uneven(weights: np.ndarray | None = None, times: np.ndarray | None = None) -> Contents:
    """Digits, of which three classes have 60, 20 and 6 images to train on; validation and test are even.

    weights: of the 86 images that are trained on; times: how often each of them stands there.
    """
    digits = load_digits()
    rows, part = list[int](), list[str]()
    for label, count in enumerate((60, 20, 6)):
        of_class = np.flatnonzero(digits.target == label)
        rows += of_class[:count].tolist() + of_class[80:110].tolist() + of_class[110:140].tolist()
        part += [""] * count + ["validation"] * 30 + ["test"] * 30
    chosen, parts = np.array(rows), np.array(part, dtype="U10")
    trained = parts == ""
    repeats = np.ones(len(rows), int)
    repeats[trained] = 1 if times is None else times
    counted = np.ones(len(rows))
    counted[trained] = 1 if weights is None else weights
    at = np.repeat(np.arange(len(rows)), repeats)
    gray = np.rint(digits.images[chosen[at]] * (255 / 16)).astype(np.uint8)
    images = ArrayImages.of(np.repeat(gray[..., None], 3, axis=-1))
    labels = digits.target[chosen[at]].astype(np.int64)
    own = None if weights is None else counted[at]
    return Contents(images, labels, parts[at], ["zero", "one", "two"], weights=own)


def given(*words: str) -> Any:
    """A configuration for data that is given."""
    return make_config(*HEAD, "data=given", *words)


def loaded(contents: Contents) -> Dataset:
    return datasets.load(given().data, resize_to(8), contents)


# ---------------------------------------------------------------- the form of the loss


PROBABILITIES = np.array([[0.7, 0.2, 0.1], [0.2, 0.5, 0.3], [0.1, 0.6, 0.3]], np.float32)
LABELS = np.array([0, 1, 2])
OF_LABELS = np.array([0.7, 0.5, 0.3])


def found(*words: str) -> float:
    loss = losses.loss(make_config(*words).loss, loaded(uneven()))
    return float(loss(LABELS, PROBABILITIES))


def test_cross_entropy_is_the_mean_surprise() -> None:
    assert found() == pytest.approx(-np.log(OF_LABELS).mean(), rel=1e-5)


def test_focal_loss_is_lins() -> None:
    by_hand = (-0.4 * (1 - OF_LABELS) ** 3 * np.log(OF_LABELS)).mean()
    assert found("loss=focal", "loss.gamma=3", "loss.alpha=0.4") == pytest.approx(by_hand, rel=1e-5)
    alike = found("loss=focal", "loss.gamma=0", "loss.alpha=1")
    assert alike == pytest.approx(-np.log(OF_LABELS).mean(), rel=1e-5)


def test_smoothed_labels_are_spread_over_all_classes() -> None:
    targets = 0.85 * np.eye(3)[LABELS] + 0.05  # 0.15 over three classes
    by_hand = -(targets * np.log(PROBABILITIES)).sum(axis=1).mean()
    assert found("loss.label_smoothing=0.15") == pytest.approx(by_hand, rel=1e-5)
    focal = -(targets * 0.25 * (1 - PROBABILITIES) ** 2 * np.log(PROBABILITIES)).sum(axis=1).mean()
    assert found("loss=focal", "loss.label_smoothing=0.15") == pytest.approx(focal, rel=1e-5)


# ---------------------------------------------------------------- what an image counts


def test_images_count_alike_where_nothing_says_otherwise() -> None:
    assert losses.weights(loaded(uneven()), given()) is None
    assert losses.weights(loaded(uneven(np.full(86, 7.0))), given()) is None


def test_balanced_weights_are_scikit_learns() -> None:
    dataset = loaded(uneven())
    labels = dataset.labels_of("train")
    assert np.bincount(labels).tolist() == [60, 20, 6]
    theirs = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    for words, solved in (
        (["loss.class_weights=balanced"], False),
        (["data.sampling=balanced"], True),
    ):
        ours = losses.weights(dataset, given(*words), solved=solved)
        assert ours is not None
        np.testing.assert_allclose(ours[dataset.splits["train"]], theirs[labels])
    # Drawn as often, they are not weighted on top.
    assert losses.weights(dataset, given("data.sampling=balanced")) is None


def test_weights_of_classes_and_of_images_multiply_and_keep_their_ratios() -> None:
    own = np.tile([1.0, 3.0], 43)
    dataset = loaded(uneven(own))
    rows, labels = dataset.splits["train"], dataset.labels_of("train")
    ours = losses.weights(dataset, given("loss.class_weights={two:10,one:2}"))
    assert ours is not None
    by_hand = own * np.array([1.0, 2.0, 10.0])[labels]
    np.testing.assert_allclose(ours[rows], by_hand / by_hand.mean())


def test_balanced_weights_of_a_logistic_head_are_scikit_learns_class_weight() -> None:
    dataset = loaded(uneven())
    rows, labels = dataset.splits["train"], dataset.labels_of("train")
    features = dataset.images.batch(rows)[..., 0].reshape(len(rows), -1).astype(np.float32)
    each = losses.weights(dataset, given("loss.class_weights=balanced"))
    assert each is not None
    design = Design([features], labels, 3, each[rows])
    head = next(logistic.solve(design, spectrum.of(design), [0.05]))
    share = each[rows] / each[rows].sum()
    mean = share @ features
    deviation = np.sqrt(share @ (features - mean) ** 2)
    standard = (features - mean) / np.where(deviation < 1e-6, 1, deviation)
    theirs = LogisticRegression(
        C=1 / (0.05 * len(rows)), class_weight="balanced", tol=1e-9, max_iter=9999
    )
    theirs.fit(standard, labels)
    scores = head.scores(features)
    ours = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(ours, theirs.predict_proba(standard), atol=2e-4)


@pytest.mark.parametrize("head", ["logistic", "ridge", "class_mean"])
def test_an_image_of_weight_three_is_one_that_stands_there_three_times(
    tmp_path: Path, head: str
) -> None:
    times = np.where(np.arange(86) % 4 == 0, 3, 1)
    cfg = given(f"head={head}", "loss.class_weights={two:2}")
    tested = []
    for name, contents in (("a", uneven(times.astype(float))), ("b", uneven(times=times))):
        tested.append(train(cfg, tmp_path / name, "", contents).tested()[1])
    np.testing.assert_allclose(*tested, atol=2e-4)
    plain = train(given(f"head={head}"), tmp_path / "c", "", uneven()).tested()[1]
    assert abs(plain - tested[0]).max() > 0.01


def test_an_epoch_of_weighted_images_is_one_of_repeated_images() -> None:
    """All of them in one batch, so that their order does not matter."""
    times = np.where(np.arange(86) % 4 == 0, 3, 1)
    kernels = []
    for contents in (uneven(times.astype(float)), uneven(times=times)):
        dataset = loaded(contents)
        cfg = given("head=linear", "batch_size=1000", "optimizer=sgd")
        keras.utils.set_random_seed(0)
        classifier = classifiers.build(cfg, (8, 8, 3), 3)
        pixels = dataset.images.batch(np.arange(len(dataset.labels)))
        table = pixels[..., 0].reshape(len(pixels), 64) / 255
        features = Features([table.astype(np.float32)], np.arange(len(table)), {})
        source = inputs.from_features(classifier.head, features, cfg, cheap_steps=True)
        source.network.compile(keras.optimizers.SGD(0.1), losses.loss(cfg.loss, dataset))
        batches = inputs.shuffled(source, dataset, cfg, range(20))
        source.network.fit(batches, epochs=20, steps_per_epoch=1, shuffle=False, verbose=0)
        kernels.append(source.network.get_weights()[0])
    np.testing.assert_allclose(*kernels, atol=1e-5)


# ---------------------------------------------------------------- what an epoch draws


def drawn(dataset: Dataset, cfg: Any, epochs: range, first_step: int = 0) -> list[list[int]]:
    """The rows of each step."""
    source = inputs.Source(
        keras.Sequential(), lambda rows: rows, lambda rows, _: rows, cheap_steps=True
    )
    batches = inputs.shuffled(source, dataset, cfg, epochs, first_step)
    return [rows.numpy().tolist() for rows, *_ in batches]


def test_balanced_epochs_have_every_class_and_each_of_its_images_as_often() -> None:
    dataset = loaded(uneven())
    cfg = given("data.sampling=balanced", "batch_size=10")
    steps = drawn(dataset, cfg, range(3))
    assert [len(step) for step in steps] == [*[10] * 8, 6] * 3  # 86 images, as a natural epoch
    epochs = [list(itertools.chain(*steps[i : i + 9])) for i in (0, 9, 18)]
    for rows in epochs:
        assert set(rows) <= set(dataset.splits["train"].tolist())
        of_classes = Counter(dataset.labels[rows].tolist())
        assert sorted(of_classes.values()) == [28, 29, 29]
        for label in range(3):
            often = Counter(row for row in rows if dataset.labels[row] == label)
            size = (60, 20, 6)[label]
            assert max(often.values()) == -(-of_classes[label] // size)
            assert len(often) == min(size, of_classes[label])
    assert epochs[0] != epochs[1]


def test_what_a_balanced_epoch_draws_goes_by_its_number_alone() -> None:
    dataset = loaded(uneven())
    cfg = given("data.sampling=balanced", "batch_size=10")
    steps = drawn(dataset, cfg, range(3))
    assert drawn(dataset, cfg, range(1, 3), first_step=4) == steps[13:]
    assert (
        drawn(dataset, given("data.sampling=balanced", "batch_size=10", "seed=1"), range(1))
        != steps[:9]
    )


# ---------------------------------------------------------------- whole runs


WEIGHTED = (
    *TINY,
    *("strategy=probe_finetune", "epochs=2", "batch_size=32", "features.precision=float32"),
    *("early_stopping.monitor=val_macro_f1", "early_stopping.patience=2"),
    *(
        "loss=focal",
        "loss.label_smoothing=0.1",
        "loss.class_weights={3:4}",
        "data.sampling=balanced",
    ),
)


def bits(folder: Path) -> tuple[Any, ...]:
    run = Run.open(folder)
    return run.status, run.epochs(), run.tested()[1].tobytes()


def test_weighted_balanced_and_monitored_a_stopped_run_goes_on_to_the_same_bits(
    tlbench: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert tlbench("train", *WEIGHTED, "hydra.run.dir=whole").code == 0
    ended, stepped = Keeper.on_epoch_end, Keeper.on_train_batch_end
    asked = list[str]()

    def once(where: str) -> None:
        if where not in asked:
            asked.append(where)
            os.kill(os.getpid(), signal.SIGTERM)

    def end(self: Keeper, epoch: int, logs: Any = None) -> None:
        once("on features")
        ended(self, epoch, logs)

    def step(self: Keeper, batch: int, logs: Any = None) -> None:
        if self.mid_epoch and batch == 4:
            once("in fine-tuning")
        stepped(self, batch, logs)

    monkeypatch.setattr(Keeper, "on_epoch_end", end)
    monkeypatch.setattr(Keeper, "on_train_batch_end", step)
    assert tlbench("train", *WEIGHTED, "hydra.run.dir=run").code == 143
    assert tlbench("train", "resume=run").code == 143
    answer = tlbench("train", "resume=run")
    assert answer.code == 0, answer.err
    assert asked == ["on features", "in fine-tuning"]
    assert bits(tmp_path / "run") == bits(tmp_path / "whole")
    assert keras.saving.load_model(tmp_path / "run" / "model.keras") is not None


def test_losses_of_history_and_of_metrics_are_what_they_say(
    tlbench: Command, tmp_path: Path
) -> None:
    """Weights in the trained loss alone, the loss's form in val_loss, plain cross-entropy in metrics.json."""
    words = (*HEAD, "data.limit=300", "epochs=1", "learning_rate=1e-12", "head=linear")
    forms = {"plain": (), "weighted": ("loss.class_weights={3:9}",), "focal": ("loss=focal",)}
    runs = {}
    for name, more in forms.items():
        answer = tlbench("train", *words, *more, f"hydra.run.dir={name}")
        assert answer.code == 0, answer.err
        run = Run.open(tmp_path / name)
        (epoch,) = run.epochs()
        runs[name] = (epoch["loss"], epoch["val_loss"], run.metrics["val_loss"])
    plain, weighted, focal = runs["plain"], runs["weighted"], runs["focal"]
    assert weighted[0] != pytest.approx(plain[0], rel=1e-3)
    assert weighted[1:] == pytest.approx(plain[1:], rel=1e-5)
    assert focal[0] < 0.25 * plain[0]
    assert focal[1] < 0.25 * plain[1]
    assert focal[2] == pytest.approx(plain[2], rel=1e-5)
    assert plain[1] == pytest.approx(plain[2], rel=1e-3)


def test_a_class_that_is_not_there_is_refused_with_the_one_that_was_meant(tlbench: Command) -> None:
    with pytest.raises(ConfigError, match=r"unknown class 'zerro'\. Did you mean 'zero'\?"):
        losses.check(loaded(uneven()), given("loss.class_weights={one:2,zerro:3}"))
    answer = tlbench("train", *TINY, "loss.class_weights={ten:3}", "hydra.run.dir=run")
    assert answer.code == 2
    assert "loss.class_weights: unknown class 'ten'." in answer.error_lines[-1]
    assert not Path("run").exists()


def test_weights_of_images_are_part_of_the_data() -> None:
    plain, weighted = loaded(uneven()), loaded(uneven(np.linspace(1, 2, 86)))
    assert plain.sha256 != weighted.sha256
    assert plain.test_sha256 == weighted.test_sha256
    with pytest.raises(DataError, match="1 of 266 images have a weight that cannot be used"):
        loaded(uneven(np.where(np.arange(86) == 3, -1.0, 1.0)))
    one = {**plain.splits, "validation": np.flatnonzero(plain.labels == 0)[-5:]}
    with pytest.raises(ConfigError, match="needs validation images of two classes at least"):
        losses.check(replace(plain, splits=one), given("early_stopping.monitor=val_auc"))
    with pytest.raises(ConfigError, match="nearest count alike"):
        losses.check(weighted, given("head=nearest"))
    assert replace(weighted, weights=None).sha256 == plain.sha256
