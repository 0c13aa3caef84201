"""`tlbench data export data=...`: the table of a data set, with the split that a training would use."""

from pathlib import Path

from tlbench.base.errors import ConfigError
from tlbench.cli import quiet
from tlbench.cli.arguments import Parser, needs_keras, with_data

ABOUT = "the table of a data set with its split, to keep or to publish"
EXAMPLE = "tlbench data export data=image_folder data.root=photos --out photos.csv"


def run(words: list[str]) -> int:
    asked = _parser().parse_intermixed_args(words)
    wrong = [word for word in asked.data if not word.startswith("data")]
    if wrong:
        raise ConfigError(
            f"'{wrong[0]}' cannot be used here. Expected data=NAME or data.KEY=VALUE."
        )
    from tlbench.base import console
    from tlbench.cli import targets
    from tlbench.config.compose import compose
    from tlbench.data import datasets
    from tlbench.data.resize import Resize

    cfg = compose(with_data(asked.data), asked.config_dir)
    if asked.out != "-":
        targets.check_file("--out", asked.out)
    if needs_keras(cfg.data.source):
        quiet.import_tensorflow()
    dataset = datasets.load(cfg.data, Resize.of(cfg))
    table = dataset.listing()
    if asked.out == "-":
        console.out.file.write(table)
        return 0
    with targets.writing("--out", asked.out) as file:
        file.write(table)
    counts = ", ".join(f"{len(rows):,} {name}" for name, rows in dataset.splits.items())
    console.out.print(f"{counts} images: written to", console.path(Path(asked.out)), soft_wrap=True)
    root = cfg.data.root or Path(cfg.data.table or "").parent
    console.out.print("train on it", _command(asked.out, root), soft_wrap=True, style="hint")
    return 0


def _command(table: str, root: str | Path) -> str:
    from tlbench.config import words

    settings = ("data=table", words.setting("data.table", table), words.setting("data.root", root))
    return words.command("train", *settings)


def candidates(words: list[str]) -> list[str]:
    if len(words) <= 1:
        return ["export"]
    return _parser().candidates(words)


def _parser() -> Parser:
    parser = Parser(
        "data",
        "Write a table with path, split, label and group of every picture of a data set, as\n"
        "CSV: the split that a training with the same words would use. data=table reads it.",
        example=f"{EXAMPLE}\ntlbench train data=table data.table=photos.csv data.root=photos",
    )
    parser.add_argument("action", metavar="export", choices=["export"], help="write the table")
    parser.add_argument(
        "data", metavar="data...=...", nargs="*", default=[], help="a data set, as for train"
    )
    parser.add_argument("--out", metavar="FILE", default="-", help="where to; without it to stdout")
    parser.add_argument(
        "--config-dir", metavar="DIR", help="a folder of your own YAML, as for train"
    )
    return parser
