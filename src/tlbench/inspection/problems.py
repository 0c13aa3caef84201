"""What may be wrong with pictures: each problem names its pictures, and what could be done."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tlbench.base import labels
from tlbench.data import groups
from tlbench.data.datasets import SPLITS, Dataset
from tlbench.data.near import Looks, Pairs

DARK = 16.0  # of the mean of gray values, 0-255
# Kinds, the worst first: what spoils a figure comes before what spoils a training.
EQUAL_OTHER, ALIKE_OTHER = "equal, in another class", "alike, in another class"
ACROSS, WRONG, OUTLIER = "alike, in another split", "label may be wrong", "unlike all others"
EQUAL, ALIKE, BLANK, VERY_DARK = "equal", "alike", "blank", "very dark"
KINDS = (EQUAL_OTHER, ALIKE_OTHER, ACROSS, WRONG, EQUAL, BLANK, VERY_DARK, OUTLIER, ALIKE)


@dataclass(frozen=True)
class Problem:
    """Pictures that share a problem; suggestions: a class or "drop" for each picture, "" where none is better."""

    kind: str
    rows: tuple[int, ...]
    suggestions: tuple[str, ...]
    note: str = ""


def of_pictures(dataset: Dataset, looks: Looks, alike: Pairs) -> list[Problem]:
    """What the pictures themselves show: none of it needs a network."""
    rows = np.sort(np.concatenate([dataset.splits[name] for name in SPLITS]))
    return [
        *_equal(dataset, rows),
        *_alike(dataset, alike, rows),
        *(Problem(BLANK, (int(row),), ("drop",)) for row in rows if looks.flat[row]),
        *(
            Problem(VERY_DARK, (int(row),), ("",))
            for row in rows
            if looks.brightness[row] < DARK and not looks.flat[row]
        ),
    ]


def _equal(dataset: Dataset, rows: np.ndarray) -> Iterator[Problem]:
    """Sets of equal pictures: all but the first are of no use; in several classes at most one label is right."""
    kinds = labels.kinds(dataset.labels)
    for members in _sets(np.unique(dataset.images.ids[rows], return_inverse=True)[1], rows):
        if len(set(kinds[list(members)])) > 1:
            yield Problem(EQUAL_OTHER, members, ("",) * len(members))
        else:
            yield Problem(EQUAL, members, ("", *("drop",) * (len(members) - 1)))


def _alike(dataset: Dataset, found: Pairs, rows: np.ndarray) -> Iterator[Problem]:
    """Sets of pictures that look alike though their files differ."""
    different = dataset.images.ids[found.first] != dataset.images.ids[found.second]
    inside = np.isin(found.first, rows) & np.isin(found.second, rows)
    first, second = found.first[inside], found.second[inside]
    part = groups.tied(len(dataset.images), first, second)[rows]
    turned = set(found.first[found.mirrored]) | set(found.second[found.mirrored])
    unequal = set(found.first[different]) | set(found.second[different])
    kinds = labels.kinds(dataset.labels)
    split = {row: name for name, some in dataset.splits.items() for row in some.tolist()}
    for members in _sets(part, rows):
        if not unequal & set(members):
            continue  # they are equal: said already
        note = "some are mirrored" if turned & set(members) else ""
        nothing = ("",) * len(members)
        if len(set(kinds[list(members)])) > 1:
            yield Problem(ALIKE_OTHER, members, nothing, note)
        elif len({split[row] for row in members}) > 1:
            yield Problem(ACROSS, members, nothing, note)
        else:
            yield Problem(ALIKE, members, nothing, note)


def _sets(numbers: np.ndarray, rows: np.ndarray) -> Iterator[tuple[int, ...]]:
    """Rows of one number where there are several of them."""
    order = np.argsort(numbers, kind="stable")
    ends = np.flatnonzero(np.diff(numbers[order])) + 1
    for some in np.split(order, ends):
        if len(some) > 1:
            yield tuple(rows[some].tolist())


def ordered(problems: Sequence[Problem]) -> list[Problem]:
    """Problems of the worst kind first; of one kind in the order in which they were found."""
    return sorted(problems, key=lambda problem: KINDS.index(problem.kind))
