"""What a training makes small: the form of the loss, and what each image counts in it."""

from typing import Any

import numpy as np

from tlbench.base import labels as labels_
from tlbench.base.errors import ConfigError, suggest
from tlbench.config import schema
from tlbench.config.schema import Config
from tlbench.data.datasets import Dataset
from tlbench.networks.hardware import keras
from tlbench.runs.multilabel import HALF


def loss(cfg: schema.Loss, dataset: Dataset, *, shares: bool = False) -> keras.losses.Loss:
    """Of labels as a data set has them, or shares of classes, and probabilities."""
    of_numbers = (lambda of_shares: of_shares) if shares else _OfNumbers
    smoothing = cfg.label_smoothing
    if labels_.several(dataset.labels):
        return _OfSeveral(_binary(cfg), _of_presence(cfg.class_weights, dataset))
    if cfg.name == "focal":
        return of_numbers(
            keras.losses.CategoricalFocalCrossentropy(
                alpha=cfg.alpha, gamma=cfg.gamma, label_smoothing=smoothing
            )
        )
    if smoothing or shares:
        return of_numbers(keras.losses.CategoricalCrossentropy(label_smoothing=smoothing))
    return keras.losses.SparseCategoricalCrossentropy()


def accuracy(dataset: Dataset) -> keras.metrics.Metric | str:
    """The share of images that are right, while training: of several classes all must be, each at one half."""
    if not labels_.several(dataset.labels):
        return "accuracy"

    def right(y_true: Any, y_pred: Any) -> Any:
        same = keras.ops.equal(keras.ops.cast(y_true, y_pred.dtype) > HALF, y_pred >= HALF)
        return keras.ops.cast(keras.ops.all(same, axis=-1), "float32")

    return keras.metrics.MeanMetricWrapper(right, name="accuracy")


def _binary(cfg: schema.Loss) -> keras.losses.Loss:
    if cfg.name == "focal":
        return keras.losses.BinaryFocalCrossentropy(
            apply_class_balancing=True,
            alpha=cfg.alpha,
            gamma=cfg.gamma,
            label_smoothing=cfg.label_smoothing,
        )
    return keras.losses.BinaryCrossentropy(label_smoothing=cfg.label_smoothing)


class _OfSeveral(keras.losses.Loss):
    """A loss of each class by itself, the images that have it weighed against those that have not; their mean."""

    def __init__(self, of_each: keras.losses.Loss, weights: np.ndarray) -> None:
        super().__init__()
        self.of_each, self.weights = of_each, weights.astype(np.float32)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        each = self.of_each.call(y_true[..., None], y_pred[..., None])
        return keras.ops.mean(each * (1 + y_true * (self.weights - 1)), axis=-1)


def _of_presence(asked: Any, dataset: Dataset) -> np.ndarray:
    """What an image that has a class counts against one that has not, (classes,)."""
    if asked == "balanced":
        found = dataset.labels_of("train")
        there = labels_.counts(found, found.shape[1])
        return np.maximum(len(found) - there, 1) / np.maximum(there, 1)
    return _by_name(asked, dataset.class_names)


class _OfNumbers(keras.losses.Loss):
    """A loss of one-hot labels, for labels that are numbers of classes."""

    def __init__(self, of_one_hot: keras.losses.Loss) -> None:
        super().__init__()
        self.of_one_hot = of_one_hot

    def call(self, y_true: Any, y_pred: Any) -> Any:
        numbers = keras.ops.cast(keras.ops.reshape(y_true, (-1,)), "int32")
        return self.of_one_hot.call(keras.ops.one_hot(numbers, y_pred.shape[-1]), y_pred)


def weights(dataset: Dataset, cfg: Config, *, solved: bool = False) -> np.ndarray | None:
    """What each image counts, (images,) float64, on average 1 in training; None where all count alike.

    solved: for a head without epochs, which cannot draw the rarer classes more often: their images count more.
    """
    rows = dataset.splits["train"]
    labels = labels_.leading(dataset.labels_of("train"))
    drawn = balanced(labels) if cfg.data.sampling == "balanced" else np.ones(len(rows))
    each = np.ones(len(rows)) if dataset.weights is None else dataset.weights[rows]
    if not labels_.several(dataset.labels):  # else they are in the loss
        each = each * _of_classes(cfg.loss.class_weights, dataset.class_names, labels)
    each = each * (drawn if solved else 1) * len(rows) / (each @ drawn)
    if np.allclose(each, 1, rtol=1e-12, atol=0):
        return None
    found = np.ones(len(dataset.labels))
    found[rows] = each
    return found


def balanced(labels: np.ndarray) -> np.ndarray:
    """For each image of one of C classes images / (C * images of its class), as scikit-learn has it; mean 1."""
    counts = np.bincount(labels)
    return len(labels) / (np.count_nonzero(counts) * counts[labels])


def _of_classes(asked: Any, names: list[str], labels: np.ndarray) -> np.ndarray:
    if asked == "balanced":
        return balanced(labels)
    return _by_name(asked, names)[labels]


def _by_name(asked: Any, names: list[str]) -> np.ndarray:
    return np.array([float((asked or {}).get(name, 1)) for name in names])


def check(dataset: Dataset, cfg: Config) -> None:
    """Raise ConfigError for what the settings ask of the data and it does not have."""
    if isinstance(cfg.loss.class_weights, dict):
        for name in cfg.loss.class_weights:
            if name not in dataset.class_names:
                raise ConfigError(
                    f"loss.class_weights: unknown class '{name}'. {suggest(name, dataset.class_names)}"
                )
    if cfg.head.solver == "nearest" and dataset.weights is not None:
        raise ConfigError(
            "These images have weights, but votes of head.solver=nearest count alike. Choose another head, such as "
            "head=class_mean, or leave the weights out."
        )
    monitor = cfg.early_stopping.monitor
    kinds = len(np.unique(dataset.labels_of("validation"), axis=0))
    if monitor == "val_auc" and kinds < 2:
        raise ConfigError(
            f"early_stopping.monitor={monitor} needs validation images of two classes at least. Set it to val_loss."
        )
