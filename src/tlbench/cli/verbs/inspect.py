"""`tlbench inspect data=...`: what a data set holds and what is wrong with it, before anything is trained."""

from datetime import datetime
from pathlib import Path
from typing import Any

from tlbench.base.text import counted
from tlbench.cli import quiet, signals
from tlbench.cli.arguments import Parser, needs_keras, with_data

ABOUT = "a look at a data set before training: counts, copies, doubtful labels"
EXAMPLE = "tlbench inspect data=image_folder data.root=photos"

SHOWN_CLASSES = 10


def run(words: list[str]) -> int:
    asked = _parser().parse_intermixed_args(words)
    from tlbench.base import console
    from tlbench.cli import targets
    from tlbench.config.compose import compose
    from tlbench.config.words import command

    doubt = any(word.startswith("backbone=") for word in asked.words)
    cfg = compose(["head=logistic", "trainable=false", *with_data(asked.words)], asked.config_dir)
    folder = Path(asked.out) if asked.out else _folder(cfg.data.name)
    targets.check_folder("--out", folder)
    if doubt or needs_keras(cfg.data.source):
        quiet.import_tensorflow()
    from tlbench.inspection import inspect

    typed = command("inspect", *asked.words)
    with signals.heard():
        found = inspect.inspect(cfg, doubt=doubt)
        inspect.write(found, folder, typed)
    _show(found)
    console.out.print("written to", console.path(folder), soft_wrap=True)
    if found.problems and found.dataset.files is not None:
        obeyed = command(
            "train", *_data(asked.words), f"data.corrections={folder / inspect.CORRECTIONS}"
        )
        console.out.print(
            f"fill in keep, relabel or drop, then  {obeyed}",
            style="hint",
            soft_wrap=True,
            markup=False,
        )
    return 0


def _folder(name: str) -> Path:
    return Path("outputs") / f"{datetime.now():%Y-%m-%d_%H-%M-%S}_inspect_{name}"


def _data(words: list[str]) -> list[str]:
    return [word for word in words if word.startswith("data")]


def candidates(words: list[str]) -> list[str]:
    if words[-1].startswith("-"):
        return _parser().candidates(words)
    from tlbench.cli import hydra

    return hydra.candidates(words)


def _parser() -> Parser:
    parser = Parser(
        "inspect",
        "Say what a data set holds (classes, splits, sizes, colour modes) and what is wrong\n"
        "with it: pictures that cannot be read, are blank or dark, equal or alike, within\n"
        "and across splits and classes. With backbone=...: labels that may be wrong,\n"
        "pictures unlike all others, and pairs that are alike to the network alone (the\n"
        "inspect extra). Writes a page with thumbnails and corrections.csv, which\n"
        "data.corrections=... obeys once you have filled it in.",
        example=f"{EXAMPLE}\ntlbench inspect data=table data.table=labels.csv backbone=mobilenetv3",
    )
    parser.add_argument(
        "words", metavar="data...=...", nargs="*", help="data and backbone, as for train"
    )
    parser.add_argument(
        "--out", metavar="DIR", help="where to; without it a new folder in outputs/"
    )
    parser.add_argument(
        "--config-dir", metavar="DIR", help="a folder of your own YAML, as for train"
    )
    return parser


# ---------------------------------------------------------------- what is shown


def _show(found: Any) -> None:
    from tlbench.base import console

    console.out.print(_facts(found))
    console.out.print(_classes(found))
    console.out.print(_problems(found))


def _facts(found: Any) -> Any:
    from rich.table import Table

    from tlbench.inspection import facts

    about, dataset = found.facts, found.dataset
    grid = Table.grid(padding=(0, 2))
    splits = ", ".join(f"{len(rows):,} {name}" for name, rows in dataset.splits.items())
    rows = {
        "pictures": f"{about.counts.sum():,} in {len(dataset.class_names):,} classes: {splits}",
        "width": f"{facts.spread(about.sizes[:, 0])} pixels",
        "height": f"{facts.spread(about.sizes[:, 1])} pixels",
        "modes": ", ".join(f"{name} {count:,}" for name, count in about.modes.most_common(6)),
        "formats": ", ".join(f"{name} {count:,}" for name, count in about.formats.most_common(6)),
        "unreadable": f"{len(dataset.unreadable):,}" if dataset.unreadable else "",
        "imbalance": f"the largest class is {about.imbalance:,.1f} times the smallest",
    }
    for name, value in rows.items():
        if value:
            grid.add_row(name, value)
    return grid


def _classes(found: Any) -> Any:
    """The largest and the smallest classes."""
    from tlbench.base.columns import Column, FittedTable
    from tlbench.base.text import printable
    from tlbench.data.datasets import SPLITS

    counts, names = found.facts.counts, found.dataset.class_names
    order = sorted(range(len(names)), key=lambda i: -counts[i].sum())
    left_out = max(0, len(order) - 2 * SHOWN_CLASSES)
    shown = order if not left_out else [*order[:SHOWN_CLASSES], *order[-SHOWN_CLASSES:]]
    rows = [
        [printable(names[i]), *(f"{count:,}" for count in counts[i]), f"{counts[i].sum():,}"]
        for i in shown
    ]
    columns = [
        Column("class", fold=True),
        *(Column(name, "right", rank=rank) for rank, name in enumerate(SPLITS, 1)),
        Column("all", "right"),
    ]
    what = counted(left_out, "class between them is", "classes between them are")
    caption = f"{what} left out" if left_out else ""
    return FittedTable(columns, rows, title="classes, the largest first", caption=caption)


def _problems(found: Any) -> Any:
    from tlbench.base.columns import Column, FittedTable
    from tlbench.inspection.problems import KINDS

    counted = {kind: found.count(kind) for kind in KINDS}
    rows = [
        [kind, f"{times:,}", f"{pictures:,}"]
        for kind, (times, pictures) in counted.items()
        if times
    ]
    columns = [Column("problem"), Column("times", "right"), Column("pictures", "right")]
    if not rows:
        return "no problem was found"
    return FittedTable(columns, rows, title="problems, the worst first")
