"""Training only the head for 5 epochs: the whole `tlbench train` process against the same training in
plain Keras.

Each round runs plain Keras before and after tlbench, and tlbench twice for each engine that is
installed: with an empty cache of features, and again with the cache that the first run left. Features
are computed in float32 and, where `features.precision=auto` chooses a lower precision, in that. With
--last-layers the last of the backbone train, too, and what lies below them is computed once. The
default, a tenth of CIFAR-100's images in its proportions, takes some thirty minutes a round on two
cores, --full some five times as long. Plain Keras, which would take many hours, is measured on a slice.
"""

import argparse
import shutil
import tempfile
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import measure
import work
from work import Work

COLUMNS = (
    "network",
    "side",
    "features",
    "cache",
    "whole process",
    "peak memory",
    "images through the backbone",
    "times plain Keras",
)


@dataclass
class Series:
    """One side's outcomes, a round each."""

    side: str
    features: str
    cache: str
    passes: int
    outcomes: list[measure.Outcome] = field(default_factory=list)

    @property
    def seconds(self) -> list[float]:
        return [outcome.seconds for outcome in self.outcomes]

    @property
    def peak(self) -> float:
        return max(outcome.peak_bytes for outcome in self.outcomes)


def main() -> None:
    args = _arguments()
    rows: list[list[str]] = []
    goals: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        for todo in work.works(args, Path(folder)):
            found = _rounds(todo, args, Path(folder))
            rows += [_row(todo, found[0], series) for series in found]
            goals |= _goals(todo, found)
    kind = "last_layers" if args.last_layers else "frozen_head"
    name = f"{kind}_full" if args.full else kind
    measure.publish(args, name, COLUMNS, rows, notes=work.size_notes(todo), goals=goals)


def _rounds(todo: Work, args: argparse.Namespace, folder: Path) -> list[Series]:
    """Every side in every round, plain Keras before and after; the first series is plain Keras."""
    found = {"plain": Series("plain Keras", "none", "none", todo.sizes.passes(todo.epochs))}
    for number in range(args.repeats):
        measure.say(f"{todo.network.application}: round {number + 1} of {args.repeats}")
        found["plain"].outcomes.append(todo.plain())
        for engine in args.engines:
            pair = partial(_pair, todo, engine, folder, found)
            work.in_precisions(args.precision, pair)
        if todo.extrapolated:
            found["plain"].outcomes.append(todo.plain())
    return list(found.values())


def _pair(todo: Work, engine: str, folder: Path, found: dict[str, Series], precision: str) -> str:
    """A run with an empty cache and one that finds it; the precision they had."""
    place = folder / "pair"
    for state in ("empty", "found"):
        outcome = todo.tlbench(place / "cache", place / state, engine, precision)
        facts = work.facts_of(place / state)
        label = work.label(facts, precision)
        fresh = Series("tlbench", label, state, facts["images_computed"])
        found.setdefault(f"{label} {state}", fresh).outcomes.append(outcome)
    shutil.rmtree(place)
    return facts["precision"]


def _row(todo: Work, plain: Series, series: Series) -> list[str]:
    own = series is plain
    return [
        todo.network.application,
        series.side + (" (extrapolated)" if own and todo.extrapolated else ""),
        series.features,
        series.cache,
        measure.seconds(measure.median(series.seconds)),
        measure.gib(series.peak),
        f"{series.passes:,}",
        "1" if own else measure.times(measure.gain(plain.seconds, series.seconds)),
    ]


def _goals(todo: Work, found: list[Series]) -> dict[str, str]:
    """The best engine of each kind of run, for the table of goals."""
    plain, *others = found
    cells = {}
    if todo.last_layers:
        best = max(measure.gain(plain.seconds, s.seconds) for s in others if s.cache == "empty")
        return {f"{todo.network.name} last layers": measure.times(best)}
    for name, cache, lower in (
        ("first float32", "empty", False),
        ("first lower", "empty", True),
        ("again", "found", None),
    ):
        fit = [
            s for s in others if s.cache == cache and lower in (None, "float32" not in s.features)
        ]
        if fit:
            best = max(measure.gain(plain.seconds, s.seconds) for s in fit)
            cells[f"{todo.network.name} {name}"] = measure.times(best)
    most = max(series.peak for series in others)
    size = sum(vars(todo.sizes).values()) * todo.network.features * 4
    cells[f"{todo.network.name} memory"] = (
        f"{measure.gib(most)} against {measure.gib(plain.peak)} + {measure.gib(size)}"
    )
    return cells


def _arguments() -> argparse.Namespace:
    parser = measure.parser(__doc__)
    work.add_sizes(parser)
    parser.add_argument("--engines", nargs="+", default=work.engines())
    help_last = "train the last stage of ResNet50 or the last three blocks of MobileNetV3, too"
    parser.add_argument("--last-layers", action="store_true", help=help_last)
    parser.add_argument("--precision", choices=["auto", "float32"], help="only this; default: both")
    args = parser.parse_args()
    if args.tiny:
        args.repeats, args.engines, args.precision = 1, ["tensorflow"], "auto"
    return args


if __name__ == "__main__":
    main()
