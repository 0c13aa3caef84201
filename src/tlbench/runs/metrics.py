"""Metrics from predictions: what a classifier got right, and what it took for what. No TensorFlow.

labels: (images,) in 0 to classes-1, probabilities: (images, classes), rows that sum to 1; or, where an image may have
several classes, both as `runs/multilabel` has them, and thresholds: (classes,), None: one half for each.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tlbench.base.errors import ConfigError
from tlbench.base.labels import several
from tlbench.runs import multilabel, per_class

CALIBRATION_BINS = 15
UNEVEN = (
    1.5  # times as many test images of one class as of another: accuracy alone then says too little
)


Thresholds = np.ndarray | None


def taken(probabilities: np.ndarray, thresholds: Thresholds) -> np.ndarray:
    """What images are taken for, as labels have it; thresholds: None where an image has one class."""
    if thresholds is None:
        return np.asarray(probabilities.argmax(axis=1))
    return (probabilities >= thresholds).astype(np.uint8)


def right(
    labels: np.ndarray, probabilities: np.ndarray, thresholds: Thresholds = None
) -> np.ndarray:
    """Which images are taken for what they are, (images,) bool: of several classes all must be right."""
    if several(labels):
        wrong = labels != taken(probabilities, _chosen(labels, thresholds))
        return np.asarray(~wrong.any(axis=1))
    return np.asarray(labels == taken(probabilities, None))


def _chosen(labels: np.ndarray, thresholds: Thresholds) -> np.ndarray:
    return np.full(labels.shape[1], multilabel.HALF) if thresholds is None else thresholds


def metrics(
    labels: np.ndarray,
    probabilities: np.ndarray,
    class_names: list[str],
    thresholds: Thresholds = None,
) -> dict[str, Any]:
    """Test metrics under the report's names, and `test_accuracy` again under its own.

    `evaluation` is the accuracy, `evaluation_loss` the mean cross-entropy in nats; `top5_accuracy` is
    there from six classes on, as it says nothing below; `balanced_accuracy` and `macro_f1` are means of recall
    and F1 over the classes that have images; per-class figures are None where a class has no images or no
    predictions; recall has its 95 % interval beside it.
    """
    if several(labels):
        chosen = _chosen(labels, thresholds)
        return multilabel.metrics(labels, probabilities, class_names, chosen)
    by_class = per_class.figures(labels, taken(probabilities, None), class_names)
    return {
        "evaluation": accuracy(labels, probabilities),
        "test_accuracy": accuracy(labels, probabilities),
        "evaluation_loss": loss(labels, probabilities),
        **top5(labels, probabilities),
        "balanced_accuracy": per_class.mean(by_class, "recall"),
        "macro_f1": per_class.mean(by_class, "f1"),
        "test_images": len(labels),
        "per_class": by_class,
    }


def uneven(by_class: Any) -> bool:
    """Whether the tested classes differ so much in size that figures by class belong beside the accuracy.

    by_class: what `metrics` has as `per_class`, or what a file has in its place.
    """
    entries = by_class.values() if isinstance(by_class, dict) else ()
    sizes = [entry.get("images") for entry in entries if isinstance(entry, dict)]
    tested = [size for size in sizes if isinstance(size, int) and size > 0]
    return len(tested) > 1 and max(tested) >= UNEVEN * min(tested)


def loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean cross-entropy in nats, probabilities clipped at 1e-7 as Keras does."""
    if several(labels):
        return multilabel.loss(labels, probabilities)
    from sklearn.metrics import log_loss

    clipped = np.clip(probabilities, 1e-7, 1, dtype=np.float64)
    shares = clipped / clipped.sum(axis=1, keepdims=True)
    return float(log_loss(labels, shares, labels=np.arange(probabilities.shape[1])))


def accuracy(labels: np.ndarray, probabilities: np.ndarray, thresholds: Thresholds = None) -> float:
    """Share of images that are taken for what they are."""
    return float(right(labels, probabilities, thresholds).mean())


def macro_f1(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean over the classes that have images of the harmonic mean of precision and recall."""
    if several(labels):
        return multilabel.macro_f1(labels, probabilities)
    from sklearn.metrics import f1_score

    predicted = probabilities.argmax(axis=1)
    return float(f1_score(labels, predicted, labels=np.unique(labels), average="macro"))


def auc(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean over the classes that have images of the area under the ROC curve, one class against the rest.

    labels: of two classes at least.
    """
    from sklearn.metrics import roc_auc_score

    rest = _one_against_the_rest(labels)
    varied = [c for c, there in rest.items() if not there.all()]
    return float(np.mean([roc_auc_score(rest[c], probabilities[:, c]) for c in varied]))


def mean_average_precision(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean over the classes that have images of the average precision, one class against the rest."""
    from sklearn.metrics import average_precision_score

    rest = _one_against_the_rest(labels)
    return float(np.mean([average_precision_score(rest[c], probabilities[:, c]) for c in rest]))


def _one_against_the_rest(labels: np.ndarray) -> dict[int, np.ndarray]:
    """Of each class that has images which of them it has, (images,) bool."""
    if several(labels):
        return {c: labels[:, c] > 0 for c in np.flatnonzero(labels.any(axis=0)).tolist()}
    return {c: labels == c for c in np.unique(labels).tolist()}


# What early_stopping.monitor may name beyond loss and accuracy.
MONITORED: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "val_macro_f1": macro_f1,
    "val_auc": auc,
    "val_map": mean_average_precision,
}


def less_is_better(monitor: str) -> bool:
    """Whether the best epoch is the one of the least value."""
    return monitor == "val_loss"


def unseen(right: np.ndarray, seen: np.ndarray) -> dict[str, Any]:
    """How many of the images the model was trained on, and its accuracy without them.

    right, seen: (images,) bool. The accuracy is None where no image is left.
    """
    without = None if seen.all() else float(right[~seen].mean())
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
    """Counts, (classes, classes): rows are true classes, columns predicted ones; of several labels each by itself."""
    if several(labels):
        return multilabel.confusion(labels, predicted)
    from sklearn.metrics import confusion_matrix

    return confusion_matrix(labels, predicted, labels=np.arange(classes))


def calibration(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
    """How far confidence is from accuracy: the expected calibration error and its bins.

    The error is the mean over images of |accuracy - confidence| of their bin, 15 equal ones over the
    probability of the predicted class (Guo et al. 2017). Empty bins have None for both. Of several labels each
    counts by itself: the probability that it is there against how often it is.
    """
    if several(labels):
        confidence, correct = probabilities.ravel(), labels.ravel()
    else:
        confidence, correct = probabilities.max(axis=1), right(labels, probabilities)
    # A confidence on an edge belongs to the bin below it; 0 to the first.
    which = np.clip(np.ceil(confidence * CALIBRATION_BINS) - 1, 0, CALIBRATION_BINS - 1).astype(int)
    counts, correct_sum, confidence_sum = (
        np.bincount(which, weights, CALIBRATION_BINS) for weights in (None, correct, confidence)
    )
    filled = np.maximum(counts, 1)
    accuracies, confidences = correct_sum / filled, confidence_sum / filled
    return {
        "calibration_error": float(np.sum(counts * abs(accuracies - confidences)) / labels.size),
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

    `share` is of the images of the true class. Of several labels a class is mistaken for its absence, or that for it.
    """
    if counts.ndim == 3:
        named = (_two_by_two(each, name) for each, name in zip(counts, class_names, strict=True))
        return sorted((pair for pairs in named for pair in pairs), key=lambda p: -p["images"])
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


def _two_by_two(counts: np.ndarray, name: str) -> list[dict[str, Any]]:
    """Both mistakes that can be made of one class, where they were made."""
    words = (multilabel.absent(name), name)
    return [
        {
            "true": words[there],
            "predicted": words[1 - there],
            "images": int(counts[there, 1 - there]),
            "share": float(counts[there, 1 - there] / counts[there].sum()),
        }
        for there in (1, 0)
        if counts[there, 1 - there]
    ]


def most_mistaken(counts: np.ndarray, most: int) -> np.ndarray:
    """The classes that were taken for others, or others for them, most often, in their order; counts: as above."""
    if counts.ndim == 3:
        mistakes = counts[:, 0, 1] + counts[:, 1, 0]
    else:
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
