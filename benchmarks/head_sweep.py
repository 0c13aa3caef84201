"""Many heads over one backbone: `tlbench train --multirun head.widths=...` against training each of them
in plain Keras.

tlbench runs a process a head; the first computes the features, the others find them. Plain Keras runs
the backbone again for each head, so one of its jobs is really run and its time multiplied by the number
of heads. The default, 4 heads on few images, takes some ten minutes on two cores; --full has 45,000
training images and 20 heads.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

import measure
import work
from work import NETWORKS, Sizes, Work

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
    for name in args.networks:
        with tempfile.TemporaryDirectory() as folder:
            sizes = work.FULL if args.full else Sizes(*args.images)
            measured = Sizes(*args.slice) if args.full else sizes
            todo = Work(NETWORKS[name], Path(folder), sizes, measured, args.epochs, args.image_size)
            todo.write_images()
            plain, swept, facts = _rounds(todo, args, Path(folder))
        gain = measure.times(
            measure.ratio([args.heads * p.seconds for p in plain], [s.seconds for s in swept])
        )
        rows += [_plain_row(todo, args.heads, plain), _row(todo, args, swept, facts, gain)]
        kind = "float32" if facts["precision"] == "float32" else "lower"
        goals[f"{name} sweep {kind}"] = f"{gain} ({args.heads} heads, {sizes} images)"
    notes = [f"{sizes} training/validation/test images of 32 x 32, {args.epochs} epochs."]
    notes.append("Plain Keras's sweep is extrapolated: one of its jobs, times the number of heads.")
    if sizes != measured:
        notes[-1] += f" That job in turn is extrapolated from images a second on {measured} images."
    name = "head_sweep_full" if args.full else "head_sweep"
    measure.publish(args, name, COLUMNS, rows, notes=notes, goals=goals if args.full else None)


def _rounds(todo: Work, args: argparse.Namespace, folder: Path) -> tuple[list, list, dict]:
    """A plain job and a sweep in turns; what the first run of the last sweep says of its features."""
    plain, swept, facts = [], [], {}
    sweep = "head.widths=" + ",".join(f"[{16 * (i + 1)}]" for i in range(args.heads))
    for number in range(args.repeats):
        measure.say(f"{todo.network.application}: round {number + 1} of {args.repeats}")
        plain.append(todo.plain())
        place = folder / str(number)
        words = ["--multirun", sweep, f"n_jobs={args.jobs}"]
        swept.append(todo.tlbench(place / "cache", place / "run", args.engine, "auto", words))
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
    parser.add_argument("--full", action="store_true", help=f"{work.FULL} images, 20 heads")
    parser.add_argument("--heads", type=int, help="default: 4, with --full 20")
    parser.add_argument("--jobs", type=int, default=1, help="tlbench's jobs at the same time")
    least = list(vars(work.LEAST).values())
    parser.add_argument("--images", type=int, nargs=3, default=least, help="of each split")
    parser.add_argument("--slice", type=int, nargs=3, default=[900, 100, 200])
    parser.add_argument(
        "--networks", nargs="+", choices=NETWORKS, default=["resnet50", "mobilenetv3"]
    )
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--image-size", type=int, default=224, help="a multiple of 32")
    args = parser.parse_args()
    args.heads = args.heads or (20 if args.full else 4)
    if args.tiny:
        args.repeats, args.epochs, args.image_size, args.heads = 1, 2, 32, 2
        args.networks, args.engine = ["vgg16"], "tensorflow"
    return args


if __name__ == "__main__":
    main()
