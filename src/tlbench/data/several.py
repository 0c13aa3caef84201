"""Pictures that have several classes: read from one cell of a table or a column for each, and split by proportion."""

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from tlbench.base.errors import ConfigError, DataError
from tlbench.base.labels import SEPARATOR
from tlbench.base.text import printable

THERE = {"1": 1, "true": 1, "yes": 1, "1.0": 1}
ABSENT = {"0": 0, "false": 0, "no": 0, "0.0": 0, "": 0}


def in_cells(cells: Iterable[str], separator: str) -> list[list[str]]:
    """The names in each cell, once each; an empty cell has none."""
    return [_named(cell.split(separator)) for cell in cells]


def in_columns(columns: dict[str, list[str]], where: str) -> list[list[str]]:
    """The names of the columns that say 1 of each picture. Raises DataError for what is neither 1 nor 0."""
    known = THERE | ABSENT
    for name, cells in columns.items():
        for cell in cells:
            if cell.strip().lower() not in known:
                raise DataError(
                    f"Column '{printable(name)}' of {where} holds '{printable(cell)}'. Expected 1 or 0, true "
                    "or false, whether a picture has the class; an empty cell is a 0."
                )
    told = {
        name: [known[cell.strip().lower()] for cell in cells] for name, cells in columns.items()
    }
    return [
        [name for name in told if told[name][row]] for row in range(len(next(iter(told.values()))))
    ]


def merged(files: Sequence[str], named: Sequence[list[str]]) -> tuple[list[int], list[list[str]]]:
    """The first row of each picture, and all names that any of its rows has."""
    first: dict[str, int] = {}
    found: dict[str, list[str]] = {}
    for row, (file, names) in enumerate(zip(files, named, strict=True)):
        first.setdefault(file, row)
        found[file] = list(dict.fromkeys([*found.get(file, []), *names]))
    return list(first.values()), list(found.values())


def matrix(named: Iterable[Sequence[str]], class_names: Sequence[str]) -> np.ndarray:
    """(images, classes) uint8, 1 where an image has the class."""
    number = {name: i for i, name in enumerate(class_names)}
    rows = list(named)
    labels = np.zeros((len(rows), len(number)), np.uint8)
    for row, names in enumerate(rows):
        labels[row, [number[name] for name in names]] = 1
    return labels


def given(labels: Sequence[Any], class_names: list[str] | None) -> tuple[np.ndarray, list[str]]:
    """Labels that were given in Python, (images, classes) uint8, and the classes.

    labels: a sequence of names for each image, or an array of 0 and 1 whose columns are `class_names`.
    """
    array = labels if isinstance(labels, np.ndarray) else None
    if array is None or array.ndim != 2:
        named = [_named(map(str, names)) for names in labels]
        names = class_names or sorted({name for some in named for name in some})
        if unknown := sorted({name for some in named for name in some} - set(names)):
            raise DataError(f"Label '{unknown[0]}' is not among data.class_names.")
        return matrix(named, names), names
    if not np.isin(array, (0, 1)).all():
        raise DataError("An array of labels with task=multilabel holds 0 and 1, a column a class.")
    names = class_names or [str(i) for i in range(array.shape[1])]
    if len(names) != array.shape[1]:
        raise DataError(
            f"The labels have {array.shape[1]} columns, and data.class_names has {len(names)} names."
        )
    return array.astype(np.uint8), names


# ---------------------------------------------------------------- splits


def drawn(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """About `count` rows that hold of each class about the same share (Sechidis et al. 2011)."""
    folds = _stratifiers().MultilabelStratifiedShuffleSplit(1, test_size=count, random_state=seed)
    return np.asarray(next(folds.split(labels, labels))[1])


def parts(labels: np.ndarray, count: int, seed: int) -> Iterator[np.ndarray]:
    """Rows in so many parts that hold of each class about the same share."""
    folds = _stratifiers().MultilabelStratifiedKFold(count, shuffle=True, random_state=seed)
    yield from (part for _, part in folds.split(labels, labels))


def _stratifiers() -> Any:
    try:
        from iterstrat import ml_stratifiers
    except ImportError as error:
        raise ConfigError(
            "Images of several classes are split with iterative-stratification, not installed here. Run: "
            "pip install 'tlbench[multilabel]', or name the split of each picture in a column of the table."
        ) from error
    return ml_stratifiers


# ---------------------------------------------------------------- names


def check_names(class_names: Sequence[str]) -> None:
    """Raise DataError for a name that could not be told from two in the tables that are written."""
    if odd := [name for name in class_names if SEPARATOR in name]:
        raise DataError(
            f"Class '{printable(odd[0])}' has a '{SEPARATOR}' in its name, which stands between names. Set "
            "data.separator to what does, or name the class without it."
        )


def _named(names: Iterable[str]) -> list[str]:
    whole = (unicodedata.normalize("NFC", name.strip()) for name in names)
    return list(dict.fromkeys(name for name in whole if name))
