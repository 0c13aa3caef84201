"""Labels of images: the number of one class each, (images,); or of several, (images, classes) of 0 and 1."""

from collections.abc import Sequence

import numpy as np

SEPARATOR = "|"  # between the names of several classes, in every table that is written


def several(labels: np.ndarray) -> bool:
    """Whether an image may have several classes, or none."""
    return labels.ndim == 2


def counts(labels: np.ndarray, classes: int) -> np.ndarray:
    """How many images each class has, (classes,)."""
    if several(labels):
        return np.asarray(labels.sum(axis=0, dtype=np.int64))
    return np.bincount(labels, minlength=classes)


def name(label: np.ndarray, class_names: Sequence[str]) -> str:
    """What an image is, in words: its class, or the names of its classes; "" where it has none."""
    if not label.ndim:
        return class_names[int(label)]
    return SEPARATOR.join(class_names[i] for i in np.flatnonzero(label).tolist())


def names(labels: np.ndarray, class_names: Sequence[str]) -> list[str]:
    """The same for each image."""
    return [name(label, class_names) for label in labels]


def kinds(labels: np.ndarray) -> np.ndarray:
    """A number for each image, (images,), equal where labels are."""
    return np.unique(labels, axis=0, return_inverse=True)[1].ravel()


def leading(labels: np.ndarray) -> np.ndarray:
    """One class for each image, (images,), by which images may be drawn: of several the rarest.

    An image without a class stands in one of its own, behind the others.
    """
    if not several(labels):
        return labels
    order = np.argsort(counts(labels, labels.shape[1]), kind="stable")
    rarest = order[labels[:, order].argmax(axis=1)]
    return np.where(labels.any(axis=1), rarest, labels.shape[1])
