"""Figures of each class by itself, from what images are and what they were taken for. No TensorFlow."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tlbench.base.intervals import wilson

PerClass = dict[str, dict[str, Any]]


def figures(labels: np.ndarray, taken: np.ndarray, class_names: Sequence[str]) -> PerClass:
    """Precision, recall with its 95 % interval, F1 and images of each class, by its name.

    A figure is None where a class has no images or no predictions. labels, taken: (images,) numbers of classes, or
    (images, classes) of 0 and 1.
    """
    from sklearn.metrics import precision_recall_fscore_support

    precision, recall, f1, support = precision_recall_fscore_support(
        labels, taken, labels=np.arange(len(class_names)), zero_division=np.nan
    )
    return {
        name: {
            "precision": number(precision[i]),
            "recall": number(recall[i]),
            "recall_interval": list(wilson(recall[i], support[i])) if support[i] else None,
            "f1": number(f1[i]),
            "images": int(support[i]),
        }
        for i, name in enumerate(class_names)
    }


def mean(found: PerClass, figure: str) -> float | None:
    """Of the classes that have images; a class without predictions has 0. None where no class has any."""
    tested = [entry[figure] or 0.0 for entry in found.values() if entry["images"]]
    return float(np.mean(tested)) if tested else None


def number(value: float) -> float | None:
    """A figure as JSON has it."""
    return None if np.isnan(value) else float(value)
