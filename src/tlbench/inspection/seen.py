"""Pictures that a network sees alike though they look unlike: one thing drawn or taken anew.

Each picture is a point on the unit sphere: square roots of its features, standardised, along their principal directions
at equal weight. Two are alike that are each other's nearest, and nearer than CLOSER of what is usual around them, the
mean distance to the USUAL nearest (Lowe's ratio test). That is asked of every two splits and within each, so that a
picture with many copies in its own split still finds the one in another.

Measured by EfficientNet-Lite0 on 7,562 emoji, each drawn by two makers, a maker a split: of the pairs at CLOSER 94 %
are one emoji, and 12 % of the pictures find theirs (at 0.9: 90 and 21 %; at 0.7: 95 and 6 %); with a split for
validation, 92 and 13 % (benchmarks/own_data.py). Of 800 of scikit-learn's digits, which are no copies, 8 % are called
so. One limit for all on the cosine of plain features was right of 70 % where it found 0.5 % of the pairs, and among
each other's nearest of 90 % where it found 2 %: what is near in a crowd is not so elsewhere.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tlbench.probing import spectrum, threads
from tlbench.probing.design import Design, Table
from tlbench.probing.neighbours import unit

CLOSER = 0.8  # of the usual distance
USUAL = 10  # nearest pictures whose mean distance is the usual one
BLOCK = 2**22  # pairs compared at once


@dataclass(frozen=True)
class Seen:
    """Pairs of rows that are seen alike, the closest first: (pairs,) each; share: of the usual distance."""

    first: np.ndarray
    second: np.ndarray
    share: np.ndarray


def pairs(features: Table, parts: Sequence[np.ndarray], together: np.ndarray) -> Seen:
    """Rows of features that are alike, between every two parts and within each.

    features: (rows, width); parts: the rows of each; together: (rows,), equal where rows are known to be copies, of
    which no pair is sought.
    """
    if len(features) < 2:
        nothing = np.empty(0, np.int64)
        return Seen(nothing, nothing, np.empty(0))
    points = _points(features)
    sides = itertools.combinations_with_replacement([part for part in parts if len(part)], 2)
    found = [_between(points, one, other, together) for one, other in sides]
    first, second, share = (np.concatenate(some) for some in zip(*found, strict=True))
    order = np.argsort(share, kind="stable")
    return Seen(first[order], second[order], share[order])


def _points(features: Table) -> np.ndarray:
    """The place of each row, (rows, directions) float32 of length 1."""
    values = np.asarray(features[:])
    design = Design([np.sign(values) * np.sqrt(np.abs(values))], np.zeros(len(values), int), 1)
    found = spectrum.of(design)
    # A direction that hardly varies keeps its small weight: it holds what tells copies apart, and noise.
    weights = (1 / np.sqrt(found.values + 1)).astype(np.float32)
    along = [found.along_own(design, where, block) for where, block in design.blocks()]
    return unit(np.concatenate(along).astype(np.float32) * weights)


@dataclass(frozen=True)
class _Nearest:
    """The nearest of other rows: its place among them, its distance, and what is usual; (rows,) each."""

    place: np.ndarray
    distance: np.ndarray
    usual: np.ndarray


def _between(
    points: np.ndarray, one: np.ndarray, other: np.ndarray, together: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of which the first is a row of one part, the second of another or the same."""
    there = _nearest(points, one, other, together)
    back = there if one is other else _nearest(points, other, one, together)
    here = np.arange(len(one))
    mutual = back.place[there.place] == here
    if one is other:
        mutual &= here < there.place  # each pair once
    with np.errstate(invalid="ignore"):  # where there is no other row
        share = 2 * there.distance / (there.usual + back.usual[there.place])
    kept = mutual & (share <= CLOSER)
    return one[kept], other[there.place[kept]], share[kept]


def _nearest(
    points: np.ndarray, rows: np.ndarray, others: np.ndarray, together: np.ndarray
) -> _Nearest:
    columns = points[others].T
    usual = min(USUAL, len(others))
    step = max(1, BLOCK // len(others))

    def of_block(start: int) -> tuple[np.ndarray, ...]:
        here = rows[start : start + step]
        distance = np.maximum(1 - points[here] @ columns, 0)
        distance[together[here][:, None] == together[others]] = np.inf  # itself, too
        place = distance.argmin(axis=1)
        nearest = np.take_along_axis(distance, place[:, None], axis=1)[:, 0]
        distance.partition(usual - 1, axis=1)
        around = np.ma.masked_invalid(distance[:, :usual]).mean(axis=1).filled(np.inf)
        return place, nearest, around

    parts = threads.each(of_block, range(0, len(rows), step))
    return _Nearest(*(np.concatenate(part) for part in zip(*parts, strict=True)))
