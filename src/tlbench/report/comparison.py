"""Two configurations on one test set: is the difference of their accuracies more than chance?"""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Group
from rich.text import Text

from tlbench.base.columns import Column, FittedTable
from tlbench.base.errors import RunError
from tlbench.config.identity import SEED
from tlbench.report.rows import Row
from tlbench.report.statistics import mcnemar, paired_interval, resampled
from tlbench.runs import metrics
from tlbench.runs.results import Result

CERTAIN = 0.05  # of McNemar's p, below which a difference is called one


@dataclass(frozen=True)
class Pair:
    """Two runs on the same test images. Accuracies and difference (a - b) are shares, 0-1."""

    seed: int | None
    fold: int | None
    a: float
    b: float
    only_a: int  # images that only a got right
    only_b: int
    images: int
    trained: int  # images that a was trained on

    @property
    def difference(self) -> float:
        return self.a - self.b

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the paired difference."""
        return paired_interval(self.only_a, self.only_b, self.images)

    @property
    def p(self) -> float:
        """McNemar's exact two-sided p."""
        return mcnemar(self.only_a, self.only_b)


@dataclass(frozen=True)
class Comparison:
    """Configuration a against b: one pair of runs, or one for each seed they share."""

    a: str
    b: str
    pairs: tuple[Pair, ...]

    @property
    def of_folds(self) -> bool:
        """Whether the pairs are parts of one cross-validation."""
        folds = {pair.fold for pair in self.pairs}
        return len(self.pairs) > 1 and None not in folds and len(folds) == len(self.pairs)

    def as_json(self) -> dict[str, Any]:
        """Plain values, the derived ones included."""
        pairs = [
            {**asdict(p), "difference": p.difference, "interval": p.interval, "p": p.p}
            for p in self.pairs
        ]
        return {"a": self.a, "b": self.b, "pairs": pairs}


def compare(a: Row, b: Row) -> Comparison:
    """Set two rows of the table against each other, seed by seed and fold by fold where both have several.

    Raises RunError when they were not tested on the same images, or have no seed and fold in common.
    """
    for row in (a, b):
        if not row.completed:
            raise RunError(f"{row.name} is {row.first.status}: it has no predictions to compare.")
    matched = _matched(a, b)
    if not all(ours.tested_like(theirs) for ours, theirs in matched):
        raise RunError(
            f"{a.name} and {b.name} were tested on different images: they cannot be compared."
        )
    return Comparison(a.name, b.name, tuple(_pair(*runs) for runs in matched))


def _matched(a: Row, b: Row) -> list[tuple[Result, Result]]:
    """Pairs of runs: the only ones there are, or those with the same seed and fold."""
    if len(a.runs) == len(b.runs) == 1:
        return [(a.first, b.first)]
    ours, theirs = ({(run.settings.get(SEED), run.fold): run for run in row.runs} for row in (a, b))
    shared = [key for key in ours if key in theirs]
    if not shared:
        raise RunError(
            f"{a.name} and {b.name} share no seed and fold. Compare two run folders instead."
        )
    return [(ours[key], theirs[key]) for key in shared]


def _pair(a: Result, b: Result) -> Pair:
    (labels, ours), (others, theirs) = (result.run.tested() for result in (a, b))
    if not np.array_equal(labels, others):
        raise RunError(f"{a.folder} and {b.folder} were tested on different images.")
    right_a, right_b = (
        metrics.right(labels, given, result.run.thresholds)
        for given, result in ((ours, a), (theirs, b))
    )
    return Pair(
        seed=a.settings.get(SEED),
        fold=a.fold,
        a=float(right_a.mean()),
        b=float(right_b.mean()),
        only_a=int((right_a & ~right_b).sum()),
        only_b=int((right_b & ~right_a).sum()),
        images=len(labels),
        trained=int(a.data.get("images", {}).get("train", 0)),
    )


# ---------------------------------------------------------------- words


COLUMNS = (
    *(Column("seed", "right", rank=1), Column("fold", "right", rank=1)),
    *(Column("A", "right", rank=3), Column("B", "right", rank=3), Column("A - B", "right")),
    Column("95 % interval", "right", rank=2),
    *(Column("only A", "right", rank=4), Column("only B", "right", rank=4), Column("p", "right")),
)


def view(found: Comparison) -> Group:
    """The comparison for the terminal: a line for each pair, and what it says."""
    table = FittedTable(COLUMNS, [cells(pair) for pair in found.pairs])
    title = Text.assemble(("A ", "title"), found.a, ("   B ", "title"), found.b)
    return Group(title, table, Text(conclusion(found)))


def cells(pair: Pair) -> list[str]:
    """A pair as text, in the order of the table's columns."""
    low, high = pair.interval
    return [
        *("-" if number is None else str(number) for number in (pair.seed, pair.fold)),
        *(f"{pair.a:.4f}", f"{pair.b:.4f}", f"{pair.difference:+.4f}"),
        f"{low:+.4f} to {high:+.4f}",
        *(f"{pair.only_a:,}", f"{pair.only_b:,}", p_value(pair.p)),
    ]


def p_value(p: float) -> str:
    """McNemar's p with what digits it deserves."""
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}"


def conclusion(found: Comparison) -> str:
    """One sentence: which is better, or that these images do not tell."""
    gaps, images = [pair.difference for pair in found.pairs], found.pairs[0].images
    sure = [pair for pair in found.pairs if pair.p < CERTAIN]
    if found.of_folds:
        return _of_folds(found)
    if len(found.pairs) > 1:
        wins = [sum(sign * pair.difference > 0 for pair in sure) for sign in (1, -1)]
        return (
            f"Mean difference {statistics.fmean(gaps):+.4f} (std {statistics.stdev(gaps):.4f}) "
            f"over {len(gaps)} seeds; A is better in {wins[0]}, B in {wins[1]} (p < {CERTAIN})."
        )
    if not sure:
        return f"{images:,} test images do not tell them apart (p {p_value(found.pairs[0].p)})."
    better, worse = (found.a, found.b) if gaps[0] > 0 else (found.b, found.a)
    return (
        f"{better} is better than {worse} on these {images:,} test images "
        f"(McNemar's exact p {p_value(found.pairs[0].p)})."
    )


def _of_folds(found: Comparison) -> str:
    """What folds say together: their training images overlap, so they are not independent of each other."""
    gaps, first = [pair.difference for pair in found.pairs], found.pairs[0]
    low, high, p = resampled(gaps, first.images / max(first.trained, 1))
    mean = statistics.fmean(gaps)
    verdict = (
        f"{found.a if mean > 0 else found.b} is better"
        if p < CERTAIN
        else "They are not told apart"
    )
    return (
        f"{verdict}: mean difference {mean:+.4f} ({low:+.4f} to {high:+.4f}) over {len(gaps)} folds, "
        f"p {p_value(p)} (t test corrected for folds that overlap)."
    )


def pick(rows: Sequence[Row], name: str) -> Row | None:
    """The row of that name, or the run in that folder (its path or its last part) as a row."""
    for row in rows:
        if row.name.casefold() == name.casefold():
            return row
    every = [(row, run) for row in rows for run in row.runs]
    for runs in (
        [(row, run) for row, run in every if run.folder.resolve() == Path(name).resolve()],
        [(row, run) for row, run in every if run.folder.name == name],
    ):
        if len(runs) == 1:
            row, run = runs[0]
            seed = f" seed={run.settings.get('seed')}" if len(row.runs) > 1 else ""
            return Row(row.name + seed, (run,))
    return None
