"""Data sets: loads one, splits it once, and records what it holds."""

import functools
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tlbench.base import labels
from tlbench.base.errors import DataError
from tlbench.base.text import counted
from tlbench.config.schema import Data
from tlbench.data import corrections, groups, several, sources
from tlbench.data.images import FileImages, Images
from tlbench.data.resize import Resize
from tlbench.data.sources import Contents
from tlbench.data.splits import split
from tlbench.runs import listing

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Dataset:
    """Images with labels, and the rows of each split; the splits share no row.

    labels: (images,), int64 in 0 to classes-1; or (images, classes) of 0 and 1, where an image may have several;
    unreadable: a line for each file that was left out; files: by what name people know each image, None: by its
    number; groups: (images,), equal where images belong together, None: each by itself; columns: what else is said of
    each image; weights: (images,) float64 above 0, what each counts in training, None: all alike; corrected: what
    corrections changed, for the manifest.
    """

    class_names: list[str]
    images: Images
    labels: np.ndarray
    splits: dict[str, np.ndarray]  # rows of "train", "validation" and "test"
    unreadable: list[str]
    files: Sequence[str] | None = None
    groups: np.ndarray | None = None
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    weights: np.ndarray | None = None
    corrected: Mapping[str, Any] | None = None

    @functools.cached_property
    def sha256(self) -> str:
        """64 hexadecimal digits over images, labels, weights, class names and splits."""
        digest = hashlib.sha256("\0".join(self.class_names).encode())
        for array in (self.images.ids, self.labels, *(self.splits[name] for name in SPLITS)):
            digest.update(array.tobytes())
        if self.weights is not None:
            digest.update(self.weights.tobytes())
        return digest.hexdigest()

    @property
    def fingerprint(self) -> str:
        """The first 16 digits of `sha256`: enough to tell data sets apart."""
        return self.sha256[:16]

    @property
    def contents(self) -> str:
        """16 hexadecimal digits over images, labels and class names, however they are split."""
        digest = hashlib.sha256("\0".join(self.class_names).encode())
        rows = np.concatenate([self.splits[name] for name in SPLITS])
        order = rows[np.lexsort((labels.kinds(self.labels)[rows], self.images.ids[rows]))]
        digest.update(self.images.ids[order].tobytes())
        digest.update(self.labels[order].tobytes())
        return digest.hexdigest()[:16]

    @property
    def test_sha256(self) -> str:
        """64 hexadecimal digits over class names, test images and their labels, whatever is trained on."""
        digest = hashlib.sha256("\0".join(self.class_names).encode())
        digest.update(self.images.ids[self.splits["test"]].tobytes())
        digest.update(self.labels_of("test").tobytes())
        return digest.hexdigest()

    @property
    def repeated(self) -> int:
        """How many images of the splits are equal to another one before them."""
        ids = self.images.ids[np.concatenate(list(self.splits.values()))]
        return len(ids) - len(np.unique(ids))

    @property
    def contradictory(self) -> int:
        """How many different images of the splits stand in more than one class, or have not always the same ones."""
        rows = np.concatenate(list(self.splits.values()))
        kinds = labels.kinds(self.labels)[rows]
        pairs = np.unique(np.rec.fromarrays([self.images.ids[rows], kinds]))
        return len(pairs) - len(np.unique(self.images.ids[rows]))

    @property
    def seen(self) -> np.ndarray:
        """Which test images are training images too, (test images,) bool."""
        return np.isin(self.ids_of("test"), self.ids_of("train"))

    @property
    def straddling(self) -> int:
        """How many groups have images in more than one split: the data set itself has split them."""
        if self.groups is None:
            return 0
        return sum(
            count > 1
            for count in Counter(
                group for rows in self.splits.values() for group in np.unique(self.groups[rows])
            ).values()
        )

    def file(self, row: int) -> str:
        """What people call an image: its path below data.root, or its number in the data set."""
        return self.files[row] if self.files is not None else str(row)

    def label(self, row: int) -> str:
        """What an image is, in words."""
        return labels.name(self.labels[row], self.class_names)

    def listing(self) -> str:
        """CSV with path, split and label of every image, its group and what else is said of it.

        Raises DataError where images have no paths.
        """
        if self.files is None:
            raise DataError("These images have no paths: there is no table of them to write.")
        groups = {} if self.groups is None else {"group": self.groups.tolist()}
        columns = {**groups, **self.columns}  # a table's own names of groups say more
        return listing.splits(self.files, self.labels, self.splits, self.class_names, columns)

    def ids_of(self, split: str) -> np.ndarray:
        """The images' digests of one split, in its order."""
        return self.images.ids[self.splits[split]]

    def labels_of(self, split: str) -> np.ndarray:
        """The labels of one split, in its order."""
        return self.labels[self.splits[split]]


def load(cfg: Data, resize: Resize, given: Contents | None = None) -> Dataset:
    """Read, check and split a data set.

    resize: of image files; given: images and labels that are there already, in the place of what the source
    would read. Raises DataError naming what is missing, unreadable or too small.
    """
    names, loaded = _checked(cfg, given or sources.read(cfg, resize))
    loaded = replace(loaded, groups=groups.of(cfg, loaded))
    if len(names) < 2:
        raise DataError(
            f"{cfg.root or cfg.name} holds {counted(len(names), 'class', 'classes')} ({', '.join(names) or 'none'}). "
            "A classifier needs at least 2: one folder a class."
        )
    splits = split(cfg, loaded, names)
    _check_trained(names, loaded.labels[splits["train"]])
    _check_weights(loaded.weights)
    return _dataset(names, loaded, splits)


def at(dataset: Dataset, resize: Resize, cfg: Data) -> Dataset:
    """The same data at another size; image files are decoded when they are asked for, all else is read again."""
    if not isinstance(dataset.images, FileImages):
        return load(cfg, resize)
    return replace(dataset, images=dataset.images.at(resize))


def load_for_testing(
    cfg: Data, resize: Resize, test_ids: np.ndarray | None, *, every: bool
) -> Dataset:
    """As `load`, for a model that is there already; the other splits are empty, and one class will do.

    The test images are all of them (`every`), else those with `test_ids` where all of these are there, else
    the split that the data set brings or draws.
    """
    names, loaded = _checked(cfg, sources.read(cfg, resize))
    everything = np.flatnonzero(loaded.part != corrections.DROPPED)
    test = everything if every else _rows_of(test_ids, loaded)
    if test is None:
        loaded = replace(loaded, groups=groups.of(cfg, loaded))
        test = split(cfg, loaded, names)["test"]
    none = np.array([], np.int64)
    splits = {"train": none, "validation": none, "test": test}
    return _dataset(names, loaded, splits)


def _dataset(names: list[str], loaded: Contents, splits: dict[str, np.ndarray]) -> Dataset:
    return Dataset(
        *(names, loaded.images, loaded.labels, splits, list(loaded.unreadable)),
        *(loaded.files, loaded.groups, loaded.columns, loaded.weights, loaded.corrected),
    )


def _rows_of(wanted: np.ndarray | None, loaded: Contents) -> np.ndarray | None:
    """The rows that hold the wanted images, in their order; None where one is missing."""
    ids = loaded.images.ids
    if wanted is None or not len(wanted) or not np.isin(wanted, ids).all():
        return None
    order = np.lexsort(
        (loaded.part != "test", ids)
    )  # of equal images first what is bound to be tested
    first, behind = (np.searchsorted(ids, wanted, side, sorter=order) for side in ("left", "right"))
    # The second of equal images is the second that was tested, as far as there are so many.
    by_id = np.argsort(wanted, kind="stable")
    again = np.empty(len(wanted), np.int64)
    again[by_id] = np.arange(len(wanted)) - np.searchsorted(wanted[by_id], wanted[by_id])
    return order[np.minimum(first + again, behind - 1)]


def _checked(cfg: Data, loaded: Contents) -> tuple[list[str], Contents]:
    """Class names and what the source holds, checked against each other."""
    names = list(cfg.class_names or loaded.class_names or [])
    _check_task(cfg, loaded.labels, names)
    _check_classes(names, loaded.labels)
    if cfg.corrections is not None:
        loaded = corrections.obeyed(cfg.corrections, loaded, names)
    return names, loaded


def _check_task(cfg: Data, found: np.ndarray, names: list[str]) -> None:
    if labels.several(found):
        several.check_names(names)
    if labels.several(found) == (cfg.task == "multilabel"):
        return
    if cfg.task == "multilabel":
        raise DataError(
            f"task=multilabel needs images that may have several classes, and those of {cfg.name} have one each. "
            "Expected data=table, or labels given in Python."
        )
    raise DataError(f"The images of {cfg.name} may have several classes: add task=multilabel")


def _check_trained(names: list[str], found: np.ndarray) -> None:
    if not len(found):
        raise DataError(
            "There is nothing to train on: every image is bound to validation or testing, by its folder, its table or "
            "the name of its shard."
        )
    if missing := np.flatnonzero(labels.counts(found, len(names)) == 0).tolist():
        raise DataError(
            f"Class '{names[missing[0]]}' has images, but none to train on{_others(missing)}. "
            "Add some to its training folder or leave the class out."
        )


def _check_weights(weights: np.ndarray | None) -> None:
    if weights is None:
        return
    wrong = weights[~((weights > 0) & np.isfinite(weights))]
    if len(wrong):
        raise DataError(
            f"{len(wrong)} of {len(weights)} images have a weight that cannot be used, the first {wrong[0]:g}. "
            "Expected numbers above 0."
        )


def _check_classes(names: list[str], found: np.ndarray) -> None:
    largest = found.shape[1] - 1 if labels.several(found) else found.max(initial=0)
    if len(found) and largest >= len(names):
        raise DataError(
            f"Labels go up to {largest}, but data.class_names has {len(names)} names. "
            "Choose the data set that fits these files, or list every class."
        )
    if missing := np.flatnonzero(labels.counts(found, len(names)) == 0).tolist():
        raise DataError(
            f"Class '{names[missing[0]]}' has no readable image{_others(missing)}. "
            "Add images or leave the class out."
        )


def _others(missing: Sequence[int]) -> str:
    """How many classes lack the same as the first of them."""
    if len(missing) == 1:
        return ""
    return f", nor {counted(len(missing) - 1, 'other class', 'other classes')}"
