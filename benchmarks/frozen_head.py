"""Training only the head for 5 epochs: the whole `tlbench train` process against the same training in
plain Keras.

Each round runs plain Keras once and, for each engine that is installed, tlbench twice: with an empty
cache of features, and again with the cache that the first run left. Features are computed in float32
and, where the processor has something faster, in the precision that `features.precision=auto` chooses.
The default size takes some ten minutes on two cores; the larger the data, the less start-up counts,
so the goals are meant for --full, where plain Keras, which would take many hours, is measured on a
slice.
"""

import argparse
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import measure
import work
from work import NETWORKS, Sizes, Work

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
    for name in args.networks:
        with tempfile.TemporaryDirectory() as folder:
            todo = _work(args, name, Path(folder))
            todo.write_images()
            found = _rounds(todo, args, Path(folder))
        rows += [_row(todo, found[0], series) for series in found]
        goals |= _goals(todo, found)
    sizes, slice_ = _sizes(args)
    notes = [f"{sizes} training/validation/test images of 32 x 32, {args.epochs} epochs."]
    if sizes != slice_:
        notes.append(
            f"Plain Keras is extrapolated: start-up and a rate of images a second measured on {slice_} images "
            "in 2 epochs, times the images of the whole. tlbench's runs are whole."
        )
    name = "frozen_head_full" if args.full else "frozen_head"
    measure.publish(args, name, COLUMNS, rows, notes=notes, goals=goals if args.full else None)


def _rounds(todo: Work, args: argparse.Namespace, folder: Path) -> list[Series]:
    """Every side in every round; the first series is plain Keras."""
    found = {"plain": Series("plain Keras", "none", "none", todo.sizes.passes(todo.epochs))}
    for number in range(args.repeats):
        measure.say(f"{todo.network.application}: round {number + 1} of {args.repeats}")
        found["plain"].outcomes.append(todo.plain())
        for engine in args.engines:
            if _pair(todo, engine, "auto", folder, found):
                _pair(todo, engine, "float32", folder, found)
    return list(found.values())


def _pair(todo: Work, engine: str, precision: str, folder: Path, found: dict[str, Series]) -> bool:
    """A run with an empty cache and one that finds it; whether there was a precision to choose."""
    place = folder / "pair"
    for state in ("empty", "found"):
        outcome = todo.tlbench(place / "cache", place / state, engine, precision)
        facts = work.facts_of(place / state)
        label = f"{engine}, {facts['precision']}" + (" (auto)" if precision == "auto" else "")
        fresh = Series("tlbench", label, state, facts["images_computed"])
        found.setdefault(f"{label} {state}", fresh).outcomes.append(outcome)
    shutil.rmtree(place)
    return bool(facts["measured"])


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
        "1" if own else measure.times(measure.ratio(plain.seconds, series.seconds)),
    ]


def _goals(todo: Work, found: list[Series]) -> dict[str, str]:
    """The best engine of each kind of run, for the table of goals."""
    plain, *others = found
    cells = {}
    for name, cache, lower in (
        ("first float32", "empty", False),
        ("first lower", "empty", True),
        ("again", "found", None),
    ):
        fit = [
            s for s in others if s.cache == cache and lower in (None, "float32" not in s.features)
        ]
        best = max((measure.ratio(plain.seconds, s.seconds) for s in fit), default=None)
        text = "no precision below float32 was taken" if best is None else measure.times(best)
        cells[f"{todo.network.name} {name}"] = f"{text} ({todo.sizes} images)"
    most = max(series.peak for series in others)
    size = sum(vars(todo.sizes).values()) * todo.network.features * 4
    cells[f"{todo.network.name} memory"] = (
        f"{measure.gib(most)} against {measure.gib(plain.peak)} + {measure.gib(size)}"
    )
    return cells


def _work(args: argparse.Namespace, name: str, folder: Path) -> Work:
    sizes, measured = _sizes(args)
    return Work(NETWORKS[name], folder, sizes, measured, args.epochs, args.image_size)


def _sizes(args: argparse.Namespace) -> tuple[Sizes, Sizes]:
    """What tlbench trains on, and what plain Keras really runs of it."""
    return (work.FULL, Sizes(*args.slice)) if args.full else (Sizes(*args.images),) * 2


def _arguments() -> argparse.Namespace:
    parser = measure.parser(__doc__)
    parser.add_argument("--full", action="store_true", help=f"{work.FULL} images")
    least = list(vars(work.LEAST).values())
    parser.add_argument("--images", type=int, nargs=3, default=least, help="of each split")
    parser.add_argument(
        "--slice", type=int, nargs=3, default=[900, 100, 200], help="of --full, for plain Keras"
    )
    parser.add_argument(
        "--networks", nargs="+", choices=NETWORKS, default=["resnet50", "mobilenetv3"]
    )
    parser.add_argument("--engines", nargs="+", default=work.engines())
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--image-size", type=int, default=224, help="a multiple of 32")
    args = parser.parse_args()
    if args.tiny:
        args.repeats, args.epochs, args.image_size = 1, 2, 32
        args.networks, args.engines = ["vgg16"], ["tensorflow"]
    return args


if __name__ == "__main__":
    main()
