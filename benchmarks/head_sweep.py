"""Many heads over one backbone: `tlbench train --multirun head.widths=...` against training each of them
in plain Keras.

tlbench trains all heads in one process, or as many as --jobs says, that hold data, network and features once, in
float32 and, where `features.precision=auto` chooses a lower precision, in that. Plain Keras runs the backbone
again for each head, so a slice of one of its jobs is really run. The default, a tenth of CIFAR-100's images in
its proportions, takes some twenty-five minutes a round on two cores, --full four times that.
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
    "heads",
    "whole sweep",
    "CPU",
    "peak memory of a process",
    "images through the backbone",
    "times plain Keras",
    "in CPU seconds",
)


@dataclass
class Sweep:
    """A sweep's outcomes, a round each."""

    passes: int
    outcomes: list[measure.Outcome] = field(default_factory=list)


def main() -> None:
    args = _arguments()
    rows: list[list[str]] = []
    goals: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        for todo in work.works(args, Path(folder)):
            plain, sweeps = _rounds(todo, args, Path(folder))
            rows.append(_plain_row(todo, args.heads, plain))
            for label, sweep in sweeps.items():
                gains = [_gain(args.heads, plain, sweep, kind) for kind in ("seconds", "cpu")]
                rows.append(_row(todo, args, label, sweep, gains))
                kind = "float32" if "float32" in label else "lower"
                goals[f"{todo.network.name} sweep {kind}"] = gains[0]
    notes = [
        *work.size_notes(todo),
        "Plain Keras's sweep is one such job, times the number of heads.",
    ]
    name = "head_sweep_full" if args.full else "head_sweep"
    measure.publish(args, name, COLUMNS, rows, notes=notes, goals=goals)


def _rounds(
    todo: Work, args: argparse.Namespace, folder: Path
) -> tuple[list[measure.Outcome], dict[str, Sweep]]:
    """A plain job before and after the sweeps; the sweeps by the precision they had."""
    plain: list[measure.Outcome] = []
    sweeps: dict[str, Sweep] = {}
    for number in range(args.repeats):
        measure.say(f"{todo.network.application}: round {number + 1} of {args.repeats}")
        plain.append(todo.plain())
        work.in_precisions(args.precision, partial(_sweep, todo, args, folder, sweeps))
        if todo.extrapolated:
            plain.append(todo.plain())
    return plain, sweeps


def _sweep(
    todo: Work, args: argparse.Namespace, folder: Path, sweeps: dict[str, Sweep], precision: str
) -> str:
    """One sweep from an empty cache; the precision it had."""
    place = folder / "sweep"
    heads = "head.widths=" + ",".join(f"[{16 * (i + 1)}]" for i in range(args.heads))
    words = ["--multirun", heads, f"n_jobs={args.jobs}"]
    outcome = todo.tlbench(place / "cache", place / "run", args.engine, precision, words)
    runs = [work.facts_of(p.parent) for p in place.glob("run/*/manifest.json")]
    shutil.rmtree(place)
    fresh = Sweep(sum(run["images_computed"] for run in runs))
    sweeps.setdefault(work.label(runs[0], precision), fresh).outcomes.append(outcome)
    return runs[0]["precision"]


def _gain(heads: int, plain: list[measure.Outcome], sweep: Sweep, kind: str) -> str:
    """How many times as long plain Keras takes; kind: "seconds", or "cpu" for those of all cores."""
    over, under = ([getattr(one, kind) for one in some] for some in (plain, sweep.outcomes))
    return measure.times(heads * measure.gain(over, under))


def _plain_row(todo: Work, heads: int, plain: list[measure.Outcome]) -> list[str]:
    return [
        todo.network.application,
        "plain Keras (extrapolated)",
        "none",
        str(heads),
        measure.seconds(heads * measure.median([p.seconds for p in plain])),
        measure.seconds(heads * measure.median([p.cpu for p in plain])),
        measure.gib(max(p.peak_bytes for p in plain)),
        f"{heads * todo.sizes.passes(todo.epochs):,}",
        *("1", "1"),
    ]


def _row(
    todo: Work, args: argparse.Namespace, label: str, sweep: Sweep, gains: list[str]
) -> list[str]:
    return [
        todo.network.application,
        f"tlbench, {args.jobs} at a time",
        label,
        str(args.heads),
        measure.seconds(measure.median([s.seconds for s in sweep.outcomes])),
        measure.seconds(measure.median([s.cpu for s in sweep.outcomes])),
        measure.gib(max(s.peak_bytes for s in sweep.outcomes)),
        f"{sweep.passes:,}",
        *gains,
    ]


def _arguments() -> argparse.Namespace:
    parser = measure.parser(__doc__)
    work.add_sizes(parser)
    parser.add_argument("--heads", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=1, help="tlbench's jobs at the same time")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--precision", choices=["auto", "float32"], help="only this; default: both")
    args = parser.parse_args()
    if args.tiny:
        args.repeats, args.heads, args.engine, args.precision = 1, 2, "tensorflow", "auto"
    return args


if __name__ == "__main__":
    main()
