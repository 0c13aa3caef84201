"""Many heads over one backbone: `tlbench train --multirun head.widths=...` against training each of them
in plain Keras.

tlbench runs a process a head; the first computes the features, the others find them. Plain Keras runs
the backbone again for each head, so a slice of one of its jobs is really run. The default, a tenth of
CIFAR-100's images in its proportions, takes some ten minutes a round on two cores, --full four times that.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

import measure
import work
from work import Work

COLUMNS = (
    "network",
    "side",
    "features",
    "heads",
    "whole sweep",
    "peak memory of a process",
    "images through the backbone",
    "times plain Keras",
)


def main() -> None:
    args = _arguments()
    rows: list[list[str]] = []
    goals: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        for todo in work.works(args, Path(folder)):
            plain, swept, facts = _rounds(todo, args, Path(folder))
            gain = measure.times(
                measure.ratio([args.heads * p.seconds for p in plain], [s.seconds for s in swept])
            )
            rows += [_plain_row(todo, args.heads, plain), _row(todo, args, swept, facts, gain)]
            kind = "float32" if facts["precision"] == "float32" else "lower"
            goals[f"{todo.network.name} sweep {kind}"] = (
                f"{gain} ({args.heads} heads, {todo.sizes} images)"
            )
    notes = [
        *work.size_notes(todo),
        "Plain Keras's sweep is one such job, times the number of heads.",
    ]
    name = "head_sweep_full" if args.full else "head_sweep"
    measure.publish(args, name, COLUMNS, rows, notes=notes, goals=goals)


def _rounds(todo: Work, args: argparse.Namespace, folder: Path) -> tuple[list, list, dict]:
    """A plain job and a sweep in turns; what the first run of the last sweep says of its features."""
    plain, swept, facts = [], [], {}
    sweep = "head.widths=" + ",".join(f"[{16 * (i + 1)}]" for i in range(args.heads))
    for number in range(args.repeats):
        measure.say(f"{todo.network.application}: round {number + 1} of {args.repeats}")
        plain.append(todo.plain())
        place = folder / str(number)
        words = ["--multirun", sweep, f"n_jobs={args.jobs}"]
        cache = place / "cache"
        swept.append(todo.tlbench(cache, place / "run", args.engine, args.precision, words))
        runs = [work.facts_of(p.parent) for p in place.glob("run/*/manifest.json")]
        facts = runs[0] | {"images_computed": sum(run["images_computed"] for run in runs)}
        shutil.rmtree(place)
    return plain, swept, facts


def _plain_row(todo: Work, heads: int, plain: list[measure.Outcome]) -> list[str]:
    return [
        todo.network.application,
        "plain Keras (extrapolated)",
        "none",
        str(heads),
        measure.seconds(heads * measure.median([p.seconds for p in plain])),
        measure.gib(max(p.peak_bytes for p in plain)),
        f"{heads * todo.sizes.passes(todo.epochs):,}",
        "1",
    ]


def _row(
    todo: Work, args: argparse.Namespace, swept: list[measure.Outcome], facts: dict, gain: str
) -> list[str]:
    return [
        todo.network.application,
        f"tlbench, {args.jobs} at a time",
        f"{facts['engine']}, {facts['precision']}",
        str(args.heads),
        measure.seconds(measure.median([s.seconds for s in swept])),
        measure.gib(max(s.peak_bytes for s in swept)),
        f"{facts['images_computed']:,}",
        gain,
    ]


def _arguments() -> argparse.Namespace:
    parser = measure.parser(__doc__)
    work.add_sizes(parser)
    parser.add_argument("--heads", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=1, help="tlbench's jobs at the same time")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--precision", default="auto")
    args = parser.parse_args()
    if args.tiny:
        args.repeats, args.heads, args.engine = 1, 2, "tensorflow"
    return args


if __name__ == "__main__":
    main()
