"""What the measured rows say together: estimates with their intervals, the best, and what beats nothing."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tlbench.bench import curve, probes, uncertainty
from tlbench.bench.cells import MAJORITY, PIXELS, PRETRAINED, RANDOM, SHUFFLED, Cell
from tlbench.bench.curve import Curve
from tlbench.bench.uncertainty import Estimate

ZERO = (MAJORITY, PIXELS, RANDOM, SHUFFLED)  # what a backbone has to beat
SURE = 0.05  # p below which a difference is taken for one


@dataclass(frozen=True)
class Row:
    """One row of the table."""

    cell: Cell
    estimates: dict[str, Estimate]  # by probe
    gaps: dict[str, Estimate]  # by probe: to the best backbone; none for that one itself
    unbeaten: list[str]  # rows without pretraining that it is not surely better than
    curve: Curve | None

    @property
    def best(self) -> bool:
        """Whether it is the best of its data set."""
        return self.best_by(probes.ALL)

    def best_by(self, probe: str) -> bool:
        """Whether no pretrained row of the data set is better by a probe."""
        measured = self.cell.kind == PRETRAINED and probe in self.estimates
        return measured and probe not in self.gaps

    def may_be_best(self, probe: str) -> bool:
        """Whether it is not surely worse than the best by a probe; p is adjusted for the number of rows."""
        return probe in self.gaps and self.gaps[probe].p >= SURE

    @property
    def accuracy(self) -> float:
        """On all training images; -1 where it was not measured."""
        return self.estimates[probes.ALL].mean if probes.ALL in self.estimates else -1.0


def rows(cells: Sequence[Cell], seed: int) -> list[Row]:
    """A row for each cell: data sets in their order, pretrained backbones first, the best of them on top."""
    found = []
    for data in dict.fromkeys(cell.data for cell in cells):
        here = [cell for cell in cells if cell.data == data]
        found += sorted(_of_one(here, seed), key=lambda r: (r.cell.kind != PRETRAINED, -r.accuracy))
    return found


def _of_one(cells: Sequence[Cell], seed: int) -> list[Row]:
    """Rows of one data set, not ordered."""
    zeros = [cell for cell in cells if cell.kind in ZERO and cell.right]
    gaps = _gaps([cell for cell in cells if cell.kind == PRETRAINED and cell.right])
    return [
        Row(
            cell,
            {name: uncertainty.share(right) for name, right in cell.right.items()},
            gaps=gaps.get(id(cell), {}),
            unbeaten=_unbeaten(cell, zeros),
            curve=curve.fit(*points(cell), seed)
            if cell.kind == PRETRAINED and cell.right
            else None,
        )
        for cell in cells
    ]


def _gaps(cells: Sequence[Cell]) -> dict[int, dict[str, Estimate]]:
    """By the cell's id and by probe: the difference to the best, its p adjusted for the number of rows."""
    found: dict[int, dict[str, Estimate]] = {id(cell): {} for cell in cells}
    for probe in {name for cell in cells for name in cell.right}:
        have = [cell for cell in cells if probe in cell.right]
        best = max(have, key=lambda cell: float(cell.right[probe].mean()))
        others = [cell for cell in have if cell is not best]
        gaps = [uncertainty.difference(c.right[probe], best.right[probe]) for c in others]
        adjusted = uncertainty.holm([gap.p for gap in gaps])
        for cell, gap, p in zip(others, gaps, adjusted, strict=True):
            found[id(cell)][probe] = replace(gap, p=p)
    return found


def _unbeaten(cell: Cell, zeros: Sequence[Cell]) -> list[str]:
    """Rows without pretraining that a pretrained one is not surely better than."""
    if cell.kind != PRETRAINED or not cell.right:
        return []
    found = []
    for zero in zeros:
        if zero.kind == RANDOM and zero.backbone != cell.backbone:
            continue
        gap = uncertainty.difference(cell.right[probes.ALL], zero.right[probes.ALL])
        if gap.mean <= 0 or gap.p >= SURE:
            found.append(zero.name)
    return found


def points(cell: Cell) -> tuple[list[int], list[np.ndarray]]:
    """Numbers of training images and the answers there, the fewest first, each number once."""
    names = [n for n in cell.right if n == probes.CURVE or n.startswith(probes.SHARE)]
    found = {cell.images[name]: cell.right[name] for name in names}
    sizes = sorted(found)
    return sizes, [found[size] for size in sizes]


def mean_ranks(found: Sequence[Row]) -> dict[str, float]:
    """Of backbones that were measured on every data set: the mean of their places, 1 the best."""
    places: dict[str, list[int]] = {}
    data = list(dict.fromkeys(row.cell.data for row in found))
    for name in data:
        here = [row for row in found if row.cell.data == name and row.cell.kind == PRETRAINED]
        here = [row for row in here if row.cell.right]
        for place, row in enumerate(sorted(here, key=lambda row: -row.accuracy), 1):
            places.setdefault(row.cell.backbone, []).append(place)
    whole = {name: each for name, each in places.items() if len(each) == len(data)}
    return {name: sum(each) / len(each) for name, each in whole.items()}


def unreadable(found: Sequence[Row], data: str) -> list[str]:
    """A line for each picture that could not be read of a data set."""
    return next(
        (list(r.cell.unreadable) for r in found if r.cell.data == data and r.cell.right), []
    )


def record(row: Row) -> dict[str, Any]:
    """A row as plain figures: a line of bench.csv."""
    facts = row.cell.facts
    names = (
        *("pretrained_on", "parameters", "features", "image_size", "images_per_second"),
        *("latency_ms", "engine", "precision", "strength", "features_seconds", "probing_seconds"),
    )
    figures: dict[str, Any] = {
        **{"data": row.cell.data, "row": row.cell.name, "kind": row.cell.kind},
        **{name: facts.get(name) for name in names},
    }
    for probe, estimate in row.estimates.items():
        figures[probe] = estimate.mean
        figures |= {f"{probe} low": estimate.low, f"{probe} high": estimate.high}
        figures[f"{probe} images"] = row.cell.images[probe]
        if probe in row.gaps:
            figures |= {
                f"{probe} to the best": row.gaps[probe].mean,
                f"{probe} p": row.gaps[probe].p,
            }
    figures["not surely better than"] = "; ".join(row.unbeaten)
    figures["twice the images"] = curve.say(row.curve) if row.cell.kind == PRETRAINED else ""
    return figures | {"reason": row.cell.reason}
