"""What a training makes small: the form of the loss, and what each image counts in it."""

from typing import Any

import numpy as np

from tlbench.base.errors import ConfigError, suggest
from tlbench.config import schema
from tlbench.config.schema import Config
from tlbench.data.datasets import Dataset
from tlbench.networks.hardware import keras


def loss(cfg: schema.Loss) -> keras.losses.Loss:
    """Of labels that are numbers of classes, and probabilities."""
    smoothing = cfg.label_smoothing
    if cfg.name == "focal":
        return _OfNumbers(
            keras.losses.CategoricalFocalCrossentropy(
                alpha=cfg.alpha, gamma=cfg.gamma, label_smoothing=smoothing
            )
        )
    if smoothing:
        return _OfNumbers(keras.losses.CategoricalCrossentropy(label_smoothing=smoothing))
    return keras.losses.SparseCategoricalCrossentropy()


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
    labels = dataset.labels_of("train")
    drawn = balanced(labels) if cfg.data.sampling == "balanced" else np.ones(len(rows))
    each = np.ones(len(rows)) if dataset.weights is None else dataset.weights[rows]
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
    return np.array([float((asked or {}).get(name, 1)) for name in names])[labels]


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
    if monitor == "val_auc" and len(np.unique(dataset.labels_of("validation"))) < 2:
        raise ConfigError(
            f"early_stopping.monitor={monitor} needs validation images of two classes at least. Set it to val_loss."
        )
