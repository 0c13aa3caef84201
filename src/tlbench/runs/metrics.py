"""Metrics from predictions: what a classifier got right, and what it took for what. No TensorFlow."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tlbench.base.errors import ConfigError

CALIBRATION_BINS = 15
UNEVEN = (
    1.5  # times as many test images of one class as of another: accuracy alone then says too little
)


def metrics(
    labels: np.ndarray, probabilities: np.ndarray, class_names: list[str]
) -> dict[str, Any]:
    """Test metrics under the report's names, and `test_accuracy` again under its own.

    labels: (images,) in 0 to classes-1; probabilities: (images, classes), rows that sum to 1.
    `evaluation` is the accuracy, `evaluation_loss` the mean cross-entropy in nats; `top5_accuracy` is
    there from six classes on, as it says nothing below; `balanced_accuracy` and `macro_f1` are means of recall
    and F1 over the classes that have images; per-class figures are None where a class has no images or no
    predictions.
    """
    from sklearn.metrics import precision_recall_fscore_support

    predicted = probabilities.argmax(axis=1)
    classes = np.arange(len(class_names))
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predicted, labels=classes, zero_division=np.nan
    )
    return {
        "evaluation": accuracy(labels, probabilities),
        "test_accuracy": accuracy(labels, probabilities),
        "evaluation_loss": loss(labels, probabilities),
        **top5(labels, probabilities),
        "balanced_accuracy": float(np.mean(recall[support > 0])),
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


def uneven(per_class: Any) -> bool:
    """Whether the tested classes differ so much in size that figures by class belong beside the accuracy.

    per_class: what `metrics` has under that name, or what a file has in its place.
    """
    entries = per_class.values() if isinstance(per_class, dict) else ()
    sizes = [entry.get("images") for entry in entries if isinstance(entry, dict)]
    tested = [size for size in sizes if isinstance(size, int) and size > 0]
    return len(tested) > 1 and max(tested) >= UNEVEN * min(tested)


def loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean cross-entropy in nats, probabilities clipped at 1e-7 as Keras does."""
    from sklearn.metrics import log_loss

    clipped = np.clip(probabilities, 1e-7, 1, dtype=np.float64)
    shares = clipped / clipped.sum(axis=1, keepdims=True)
    return float(log_loss(labels, shares, labels=np.arange(probabilities.shape[1])))


def accuracy(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Share of images whose most probable class is the right one."""
    return float((probabilities.argmax(axis=1) == labels).mean())


def macro_f1(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean over the classes that have images of the harmonic mean of precision and recall."""
    from sklearn.metrics import f1_score

    predicted = probabilities.argmax(axis=1)
    return float(f1_score(labels, predicted, labels=np.unique(labels), average="macro"))


def auc(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean over the classes that have images of the area under the ROC curve, one class against the rest.

    labels: of two classes at least.
    """
    from sklearn.metrics import roc_auc_score

    each = [roc_auc_score(labels == c, probabilities[:, c]) for c in np.unique(labels)]
    return float(np.mean(each))


# What early_stopping.monitor may name beyond loss and accuracy.
MONITORED: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "val_macro_f1": macro_f1,
    "val_auc": auc,
}


def less_is_better(monitor: str) -> bool:
    """Whether the best epoch is the one of the least value."""
    return monitor == "val_loss"


def unseen(labels: np.ndarray, probabilities: np.ndarray, seen: np.ndarray) -> dict[str, Any]:
    """How many of the images the model was trained on, and its accuracy without them.

    seen: (images,) bool. The accuracy is None where no image is left.
    """
    without = None if seen.all() else accuracy(labels[~seen], probabilities[~seen])
    return {"test_images_trained_on": int(seen.sum()), "unseen_accuracy": without}


def say_unseen(results: Mapping[str, Any]) -> str:
    """What `unseen` found, in words; nothing where no image was trained on."""
    count, total = results.get("test_images_trained_on"), results["test_images"]
    if not count:
        return ""
    if results["unseen_accuracy"] is None:
        return f"all {total:,} images were trained on"
    return (
        f"{results['unseen_accuracy']:.4f} without the {count:,} of {total:,} that were trained on"
    )


def top5(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """`top5_accuracy` where there are more than five classes to choose from."""
    if probabilities.shape[1] <= 5:
        return {}
    from sklearn.metrics import top_k_accuracy_score

    classes = np.arange(probabilities.shape[1])
    return {
        "top5_accuracy": float(top_k_accuracy_score(labels, probabilities, k=5, labels=classes))
    }


def confusion(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Counts, (classes, classes): rows are true classes, columns predicted ones."""
    from sklearn.metrics import confusion_matrix

    return confusion_matrix(labels, predicted, labels=np.arange(classes))


def calibration(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
    """How far confidence is from accuracy: the expected calibration error and its bins.

    The error is the mean over images of |accuracy - confidence| of their bin, 15 equal ones over the
    probability of the predicted class (Guo et al. 2017). Empty bins have None for both.
    """
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    # A confidence on an edge belongs to the bin below it; 0 to the first.
    which = np.clip(np.ceil(confidence * CALIBRATION_BINS) - 1, 0, CALIBRATION_BINS - 1).astype(int)
    counts, correct_sum, confidence_sum = (
        np.bincount(which, weights, CALIBRATION_BINS) for weights in (None, correct, confidence)
    )
    filled = np.maximum(counts, 1)
    accuracies, confidences = correct_sum / filled, confidence_sum / filled
    return {
        "calibration_error": float(np.sum(counts * abs(accuracies - confidences)) / len(labels)),
        "bins": [
            {
                "from": i / CALIBRATION_BINS,
                "to": (i + 1) / CALIBRATION_BINS,
                "images": int(counts[i]),
                "accuracy": float(accuracies[i]) if counts[i] else None,
                "confidence": float(confidences[i]) if counts[i] else None,
            }
            for i in range(CALIBRATION_BINS)
        ],
    }


def most_confused(counts: np.ndarray, class_names: Sequence[str]) -> list[dict[str, Any]]:
    """Every mistake that was made, the most frequent first; counts: what `confusion` returns.

    `share` is of the images of the true class.
    """
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    rows, columns = np.nonzero(wrong)
    order = np.argsort(-wrong[rows, columns], kind="stable")
    totals = counts.sum(axis=1)
    return [
        {
            "true": class_names[i],
            "predicted": class_names[j],
            "images": int(wrong[i, j]),
            "share": float(wrong[i, j] / totals[i]),
        }
        for i, j in zip(rows[order], columns[order], strict=True)
    ]


def most_mistaken(counts: np.ndarray, most: int) -> np.ndarray:
    """The classes that were taken for others, or others for them, most often, in their order; counts: as above."""
    mistakes = counts.sum(axis=0) + counts.sum(axis=1) - 2 * counts.diagonal()
    return np.sort(np.argsort(-mistakes, kind="stable")[:most])


def worst_mistakes(labels: np.ndarray, probabilities: np.ndarray, most: int) -> np.ndarray:
    """Rows of the wrong predictions that the classifier was surest of, the surest first."""
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    sureness = probabilities[wrong].max(axis=1)
    return wrong[np.argsort(-sureness, kind="stable")][:most]


def superclass_accuracy(
    labels: np.ndarray,
    probabilities: np.ndarray,
    class_names: Sequence[str],
    superclasses: Mapping[str, Sequence[str]],
) -> float:
    """Share of images whose predicted class lies in the same superclass as the true one.

    Raises ConfigError unless each class stands in exactly one superclass.
    """
    listed = [name for members in superclasses.values() for name in members]
    if sorted(listed) != sorted(class_names):
        odd = sorted(set(listed) ^ set(class_names)) or [n for n in listed if listed.count(n) > 1]
        raise ConfigError(
            f"data.superclasses does not hold each class once: {', '.join(odd[:10])}."
        )
    above = {name: i for i, members in enumerate(superclasses.values()) for name in members}
    to = np.array([above[name] for name in class_names])
    return float((to[probabilities.argmax(axis=1)] == to[labels]).mean())


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
