"""Metrics from predictions: what a classifier got right, and what it took for what. No TensorFlow."""

from typing import Any

import numpy as np


def metrics(
    labels: np.ndarray, probabilities: np.ndarray, class_names: list[str]
) -> dict[str, Any]:
    """Test metrics under the report's names.

    labels: (images,) in 0 to classes-1; probabilities: (images, classes), rows that sum to 1.
    `evaluation` is the accuracy, `evaluation_loss` the mean cross-entropy in nats; per-class figures
    are None where a class has no images or no predictions.
    """
    from sklearn.metrics import precision_recall_fscore_support

    predicted = probabilities.argmax(axis=1)
    classes = np.arange(len(class_names))
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predicted, labels=classes, zero_division=np.nan
    )
    return {
        "evaluation": float((predicted == labels).mean()),
        "evaluation_loss": loss(labels, probabilities),
        "top5_accuracy": top_k_accuracy(labels, probabilities, 5),
        "macro_f1": float(np.mean(np.nan_to_num(f1[support > 0]))),
        "test_images": len(labels),
        "per_class": {
            name: {
                "precision": _number(precision[i]),
                "recall": _number(recall[i]),
                "f1": _number(f1[i]),
                "images": int(support[i]),
            }
            for i, name in enumerate(class_names)
        },
    }


def loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean cross-entropy in nats, probabilities clipped at 1e-7 as Keras does."""
    chosen = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.clip(chosen, 1e-7, 1.0)).mean())


def accuracy(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Share of images whose most probable class is the right one."""
    return float((probabilities.argmax(axis=1) == labels).mean())


def top_k_accuracy(labels: np.ndarray, probabilities: np.ndarray, k: int) -> float:
    """Share of images whose class is among the k most probable."""
    k = min(k, probabilities.shape[1])
    best = np.argpartition(probabilities, -k, axis=1)[:, -k:]
    return float((best == labels[:, None]).any(axis=1).mean())


def confusion(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Counts, (classes, classes): rows are true classes, columns predicted ones."""
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (labels, predicted), 1)
    return counts


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
