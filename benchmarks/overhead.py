"""What tlbench costs around the training itself: from the command to the end of the first training step,
`tlbench --help`, tab completion, and peak memory, against a plain Keras script.

Both sides train a MobileNet on 32 of scikit-learn's digits for one epoch of one step, all layers and
the head only; the time runs until the line that says the epoch has ended, so tracing and the first
validation count for both. An idle Python and the import of Keras show what nobody can go below. A head on
features that are found is the shortest training there is: its CPU time is what building, tracing and saving cost. The
default takes some three minutes on two cores.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import measure
from work import NETWORKS

COLUMNS = (
    *(
        "command",
        "first epoch of one step ended",
        "whole process",
        "CPU",
        "CPU in imports of Keras",
    ),
    *("peak memory", "against"),
)
IMPORT = "python, import keras"  # in whose CPU time the others are told: that carries over to other machines
FOUND = "tlbench train, features found"  # MobileNetV3Large, a head on what is in the cache
# 32 images for training and 20 for validation, as in plain_keras.py.
STEP = ("epochs=1", "batch_size=64", "data.limit=52", "data.validation=20")
MOST = 1.39  # 5 s where the import took 3.6 s
Side = Callable[[], measure.Outcome]


def main() -> None:
    args = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        sides = _sides(args, Path(folder))
        found = measure.alternate(sides, args.repeats)
    rows = [_row(name, found) for name in found]
    starts = [
        f"{_later(found, what):+.1f} s {what}"
        for what in ("all layers", "head only")
        if f"tlbench train, {what}" in found
    ]
    goals = {"startup": ", ".join(starts)}
    notes = [
        "32 digits of 8 x 8, enlarged, MobileNet from random weights; one epoch of one step. A head on found features "
        f"is to cost at most {MOST} imports of Keras."
    ]
    measure.publish(args, "overhead", COLUMNS, rows, notes=notes, goals=goals)


def _sides(args: argparse.Namespace, folder: Path) -> dict[str, Side]:
    """Every command by its name."""
    tab = {"COMP_LINE": "tlbench train backbone=", "COMP_POINT": "23"}
    sides: dict[str, Side] = {
        "python, doing nothing": lambda: _python("-c", "pass"),
        IMPORT: lambda: _python("-c", "import keras"),
        "tlbench --help": lambda: _python("-m", "tlbench", "--help"),
        "tlbench train --help": lambda: _python("-m", "tlbench", "train", "--help"),
        "tab completion": lambda: _python("-m", "tlbench", "-sc", "query=bash", environment=tab),
    }
    if args.tiny:
        sides = {name: sides[name] for name in ("tlbench --help", "tab completion")}
    for trained in (True,) if args.tiny else (True, False):
        what = "all layers" if trained else "head only"
        sides[f"plain Keras, {what}"] = lambda t=trained: _plain(args, t)  # type: ignore[misc]
        sides[f"tlbench train, {what}"] = lambda t=trained: _tlbench(args, t, folder)  # type: ignore[misc]
    if not args.tiny:
        _found(folder)  # computes them
        sides[FOUND] = lambda: _found(folder)
    return sides


def _found(folder: Path) -> measure.Outcome:
    """A head on the cached features of the report's MobileNetV3, with random weights."""
    words = ("data=digits", "backbone=mobilenetv3", "backbone.weights=null", "trainable=false")
    with tempfile.TemporaryDirectory(dir=folder) as place:
        return _python(
            *("-m", "tlbench", "train", *words, *STEP, f"hydra.run.dir={place}/run"),
            environment={"TLBENCH_CACHE": f"{folder}/found"},
            until="^train 1/1",
        )


def _python(*words: str, **options: object) -> measure.Outcome:
    return measure.process([sys.executable, *words], **options)


def _plain(args: argparse.Namespace, trained: bool) -> measure.Outcome:
    script = str(Path(__file__).with_name("plain_keras.py"))
    words = [
        "--application",
        "small" if args.tiny else "MobileNet",
        "--image-size",
        str(args.image_size),
        "--widths",
        "16",
    ]
    words += ["--epochs", "1", "--batch-size", "64", *(["--trainable"] if trained else [])]
    return _python(script, *words, until="^epoch 1")


def _tlbench(args: argparse.Namespace, trained: bool, folder: Path) -> measure.Outcome:
    """A run with no cache to find, in a folder of its own."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        backbone = ("backbone=mobilenet", "backbone.weights=null")
        words = [
            *(NETWORKS["small"].words if args.tiny else backbone),
            "data=digits",
            "head.widths=[16]",
        ]
        words += [f"backbone.image_size={args.image_size}", f"trainable={str(trained).lower()}"]
        return _python(
            *("-m", "tlbench", "train", *words, *STEP, f"hydra.run.dir={place}/run"),
            environment={"TLBENCH_CACHE": f"{place}/cache"},
            until="^train 1/1",
        )


def _later(found: dict[str, list[measure.Outcome]], what: str) -> float:
    """Seconds that tlbench's first step comes after plain Keras's."""
    pairs = zip(found[f"tlbench train, {what}"], found[f"plain Keras, {what}"], strict=True)
    return measure.median([own.until - plain.until for own, plain in pairs])


def _row(name: str, found: dict[str, list[measure.Outcome]]) -> list[str]:
    outcomes = found[name]
    seen = measure.median([o.until for o in outcomes])
    base = found.get(name.replace("tlbench train", "plain Keras"), outcomes)
    against = ""
    if base is not outcomes:
        later = _later(found, name.partition(", ")[2])
        whole = measure.median([o.seconds - p.seconds for o, p in zip(outcomes, base, strict=True)])
        against = f"{later:+.1f} s to the first step, {whole:+.1f} s in all"
    return [
        name,
        measure.seconds(seen) if seen == seen else "",
        measure.seconds(measure.median([o.seconds for o in outcomes])),
        measure.seconds(measure.median([o.cpu for o in outcomes])),
        _imports(found, outcomes),
        measure.gib(max(o.peak_bytes for o in outcomes)),
        against,
    ]


def _imports(found: dict[str, list[measure.Outcome]], outcomes: list[measure.Outcome]) -> str:
    """CPU time as a multiple of what the import of Keras took in the same round."""
    bare = found.get(IMPORT, [])
    return (
        f"{measure.median([o.cpu / b.cpu for o, b in zip(outcomes, bare, strict=True)]):.2f}"
        if bare
        else ""
    )


def _arguments() -> argparse.Namespace:
    parser = measure.parser(__doc__)
    parser.add_argument("--image-size", type=int, default=64, help="a multiple of 8")
    args = parser.parse_args()
    if args.tiny:
        args.repeats, args.image_size = 1, 32
    return args


if __name__ == "__main__":
    main()
