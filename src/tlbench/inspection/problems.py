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
# By what the network sees, where they do not look alike.
SEEN = "alike to the network"
SEEN_OTHER, SEEN_ACROSS = f"{SEEN}, in another class", f"{SEEN}, in another split"
KINDS = (
    *(EQUAL_OTHER, ALIKE_OTHER, ACROSS, SEEN_OTHER, SEEN_ACROSS),
    *(WRONG, EQUAL, BLANK, VERY_DARK, OUTLIER, ALIKE, SEEN),
)


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
    split = _splits(dataset)
    for members in _sets(part, rows):
        if not unequal & set(members):
            continue  # they are equal: said already
        note = "some are mirrored" if turned & set(members) else ""
        kind = _where(dataset, split, members, (ALIKE_OTHER, ACROSS, ALIKE))
        yield Problem(kind, members, ("",) * len(members), note)


def of_pairs(
    dataset: Dataset, first: np.ndarray, second: np.ndarray, notes: Sequence[str]
) -> list[Problem]:
    """Pairs of pictures that a network sees alike, (pairs,) rows each, with what is said of each pair."""
    split, kinds = _splits(dataset), (SEEN_OTHER, SEEN_ACROSS, SEEN)
    return [
        Problem(_where(dataset, split, pair, kinds), pair, ("", ""), note)
        for pair, note in zip(zip(first.tolist(), second.tolist(), strict=True), notes, strict=True)
    ]


def _splits(dataset: Dataset) -> dict[int, str]:
    """The split of each row that is in one."""
    return {row: name for name, some in dataset.splits.items() for row in some.tolist()}


def _where(
    dataset: Dataset, split: dict[int, str], members: tuple[int, ...], kinds: tuple[str, str, str]
) -> str:
    """Of three kinds the one for pictures of several classes, of several splits, or of neither."""
    across, apart, inside = kinds
    if len({dataset.label(row) for row in members}) > 1:
        return across
    return apart if len({split[row] for row in members}) > 1 else inside


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
