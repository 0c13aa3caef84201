"""Figures of a classifier whose images have any number of classes. No TensorFlow.

labels: (images, classes) of 0 and 1; probabilities: (images, classes), each by itself; thresholds: (classes,), from
which on a class is said to be there.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tlbench.runs import per_class

HALF = 0.5  # the threshold where none has been chosen


def thresholds(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """For each class the threshold of the best F1, (classes,); of a class that is never there, one half.

    It stands midway between the two probabilities that it parts, and of equally good ones nearest to one half.
    """
    return np.array([_threshold(*pair) for pair in zip(labels.T, probabilities.T, strict=True)])


def _threshold(there: np.ndarray, given: np.ndarray) -> float:
    if not there.any():
        return HALF
    order = np.argsort(-given, kind="stable")
    given = given[order].astype(np.float64)
    taken = np.arange(1, len(given) + 1)
    f1 = 2 * np.cumsum(there[order], dtype=np.int64) / (taken + there.sum())
    ends = np.append(np.flatnonzero(np.diff(given)), len(given) - 1)  # equal ones go together
    below = np.append(given, 0.0)[ends + 1]
    middle = (given[ends] + below) / 2
    best = np.flatnonzero(f1[ends] >= f1[ends].max() - 1e-12)
    return float(middle[best[np.argmin(abs(middle[best] - HALF))]])


def metrics(
    labels: np.ndarray, probabilities: np.ndarray, class_names: list[str], thresholds: np.ndarray
) -> dict[str, Any]:
    """Test metrics. `evaluation`, the accuracy, is the share of images whose classes are all right.

    Means over classes leave out those that no image has; `micro_f1` counts the answers of all classes together.
    """
    from sklearn.metrics import f1_score

    taken = probabilities >= thresholds
    exact = float((taken == labels).all(axis=1).mean())
    by_class = per_class.figures(labels, taken, class_names)
    average = average_precisions(labels, probabilities)
    for entry, precision, threshold in zip(by_class.values(), average, thresholds, strict=True):
        entry |= {"average_precision": per_class.number(precision), "threshold": float(threshold)}
    return {
        "evaluation": exact,
        "test_accuracy": exact,
        "evaluation_loss": loss(labels, probabilities),
        "mean_average_precision": per_class.mean(by_class, "average_precision"),
        "macro_f1": per_class.mean(by_class, "f1"),
        "micro_f1": float(f1_score(labels, taken, average="micro", zero_division=0)),
        "test_images": len(labels),
        "per_class": by_class,
    }


def chosen(figures: Mapping[str, Any], class_names: Sequence[str]) -> np.ndarray | None:
    """The thresholds that `metrics` has told, (classes,); None where an image has one class."""
    classes = figures.get("per_class")
    if not isinstance(classes, dict) or "threshold" not in next(iter(classes.values()), ()):
        return None
    return np.array([classes[name]["threshold"] for name in class_names], np.float64)


def loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean binary cross-entropy over images and classes in nats, probabilities clipped at 1e-7 as Keras does."""
    given = np.clip(probabilities, 1e-7, 1 - 1e-7, dtype=np.float64)
    return float(-np.mean(np.where(labels, np.log(given), np.log1p(-given))))


def average_precisions(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Area under the curve of precision against recall of each class, (classes,); NaN where no image has it."""
    from sklearn.metrics import average_precision_score

    return np.array(
        [
            average_precision_score(there, given) if there.any() else np.nan
            for there, given in zip(labels.T, probabilities.T, strict=True)
        ]
    )


def macro_f1(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean F1 at one half over the classes that some image has."""
    from sklearn.metrics import f1_score

    tested = np.flatnonzero(labels.any(axis=0))
    taken = probabilities >= HALF
    return float(f1_score(labels, taken, labels=tested, average="macro", zero_division=0))


def confusion(labels: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """Counts of each class, (classes, 2, 2): rows are whether it is there, columns whether that was said."""
    from sklearn.metrics import multilabel_confusion_matrix

    return multilabel_confusion_matrix(labels, taken)


def mistakes(
    labels: np.ndarray, probabilities: np.ndarray, thresholds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Image and class of every wrong answer, the surest first."""
    taken = probabilities >= thresholds
    images, classes = np.nonzero(taken != labels)
    surest = np.argsort(-sureness(probabilities, taken)[images, classes], kind="stable")
    return images[surest], classes[surest]


def sureness(probabilities: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """The probability of what was said of each class: that it is there, or that it is not."""
    return np.where(taken, probabilities, 1 - probabilities)


def absent(name: str) -> str:
    """What an image is that a class is missing in."""
    return f"not {name}"
