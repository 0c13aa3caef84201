"""`tlbench report [PATH...]`: many runs -> one table, files, a page, a verdict."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlbench.base.errors import ConfigError, RunError, suggest
from tlbench.base.text import counted
from tlbench.cli.arguments import OUTPUTS, Parser
from tlbench.runs import layout
from tlbench.runs.published import TOLERANCE

if TYPE_CHECKING:
    from tlbench.report.comparison import Comparison
    from tlbench.report.rows import Row
    from tlbench.runs.results import Result

ABOUT = "set finished runs in one table, beside the published one"
EXAMPLE = "tlbench report --sort evaluation --html report.html"
EXAMPLES = """\
tlbench report
tlbench report outputs --sort evaluation --where backbone=mobilenetv3
tlbench report --html report.html --markdown table.md
tlbench report --compare 'MobileNetV3(exp)' 'MobileNetV3(All)'
tlbench report --check --tolerance 0.01
"""
# What --sort takes, and the figure it means: the table's headings in one word each.
SORTABLE = {
    "run": "run",
    **{"parameters": "parameters", "epochs": "epochs", "size": "size"},
    **{"train": "accuracy", "val": "val_accuracy", "test": "evaluation"},
    **{"time": "training_seconds", "images/s": "images_per_second"},
    # As metrics.json and the published table have them:
    **{key: key for key in ("accuracy", "val_accuracy", "evaluation")},
    **{key: key for key in ("balanced_accuracy", "macro_f1")},
    **{key: key for key in ("mean_average_precision", "micro_f1")},
}
FORMATS = ("markdown", "csv", "json")


def run(words: list[str]) -> int:
    """0: shown; 1: the check failed, or some of the runs cannot be read."""
    asked = parse(words)
    from tlbench.base import console
    from tlbench.report import comparison, rows, tables

    found = _collect(asked)
    table = rows.rows(rows.where(found, asked.where), merge=not asked.each)
    if not table:
        raise RunError(
            f"No run has {' and '.join(asked.where)}. Without --where: {counted(len(found), 'run')}."
        )
    if asked.sort:
        table = rows.ordered(table, SORTABLE[asked.sort], reverse=asked.reverse)
    compared = _compare(asked, table, found)
    _write(asked, _texts(asked, table, compared))
    if not _to_stdout(asked):
        sorted_by = SORTABLE.get(asked.sort, "")
        console.out.print(tables.Terminal(table, asked.tolerance, asked=sorted_by))
        if compared:
            console.out.print("", comparison.view(compared), sep="\n")
    damaged = tables.unreadable(found)
    for line in damaged:
        console.err.print(f"tlbench: {line}", style="warn", markup=False, soft_wrap=True)
    failed = asked.check and not _passes(table, asked.tolerance)
    return 1 if failed or damaged else 0


def candidates(words: list[str]) -> list[str]:
    return _parser().candidates(words)


def _parser() -> Parser:
    parser = Parser(
        "report",
        "Set every run below the paths in one table, and beside the report.",
        example=EXAMPLES,
    )
    add = parser.add_argument
    add(
        "paths",
        nargs="*",
        type=Path,
        metavar="PATH",
        help="run folders, or folders of them (outputs/)",
    )
    columns = ", ".join(SORTABLE)
    add("--sort", choices=SORTABLE, metavar="COLUMN", help=f"the best first: {columns}")
    add("--reverse", action="store_true", help="with --sort: the best last")
    add(
        "--where",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="only runs with this setting",
    )
    add("--each", action="store_true", help="a row for each run, seeds apart")
    for name in FORMATS:
        add(
            f"--{name}",
            nargs="?",
            const="-",
            metavar="FILE",
            help=f"write {name}, to stdout without FILE",
        )
    add("--html", metavar="FILE", help="write one self-contained page with figures")
    add(
        "--compare",
        nargs=2,
        metavar=("A", "B"),
        help="test A against B: names in the table, or folders",
    )
    add(
        "--check",
        action="store_true",
        help="exit 1 when a run misses its published row, or none can be compared",
    )
    add(
        "--tolerance",
        type=float,
        default=TOLERANCE,
        metavar="SHARE",
        help=f"of the test accuracy against the published one ({TOLERANCE})",
    )
    return parser


def parse(words: list[str]) -> Any:
    """The words after `report`. Raises ConfigError for what does not fit."""
    from tlbench.base import files

    asked = _parser().parse_args(words)
    for name in FORMATS:
        if (file := getattr(asked, name)) and file != "-" and files.is_stdout(Path(file)):
            setattr(asked, name, "-")
    if asked.reverse and not asked.sort:
        raise ConfigError("--reverse goes with --sort COLUMN.")
    if not 0 <= asked.tolerance <= 1:
        raise ConfigError(f"--tolerance {asked.tolerance} is not valid. Expected 0 to 1.")
    if len(_to_stdout(asked)) > 1:
        raise ConfigError(f"Only one of {', '.join(_to_stdout(asked))} can go to stdout.")
    named = [str(Path(file)) for name in (*FORMATS, "html") if (file := getattr(asked, name))]
    if len(set(named)) < len(named):
        raise ConfigError("Each format needs a file of its own.")
    for name in (*FORMATS, "html"):
        _check_file(name, getattr(asked, name))
    return asked


def _to_stdout(asked: Any) -> list[str]:
    return [f"--{name}" for name in FORMATS if getattr(asked, name) == "-"]


def _check_file(name: str, file: str | None) -> None:
    """Refuse a file that cannot be written before anything is."""
    if file is None or (file == "-" and name != "html"):
        return
    from tlbench.cli import targets

    if Path(file).is_dir():
        raise ConfigError(
            f"--{name} {file} is a folder. Give it a file, and PATHs before the flags."
        )
    targets.check_file(f"--{name}", file)


def _collect(asked: Any) -> "list[Result]":
    """The runs below the paths; without paths those to compare, or outputs/.

    Raises RunError when there is none, or none of them can be read.
    """
    from tlbench.report import tables
    from tlbench.runs import results

    paths = asked.paths or [OUTPUTS]
    folders = [Path(name) for name in asked.compare or () if layout.is_run(Path(name))]
    if not asked.paths and len(folders) == 2:
        paths = folders
    elif not asked.paths and not OUTPUTS.is_dir():
        raise RunError(f"There is no {OUTPUTS}/ here. Give folders with runs: tlbench report PATH")
    found = results.collect(paths)
    damaged = tables.unreadable(found)
    if len(damaged) == len(found):
        more = f" ({len(damaged) - 1} more like it.)" if len(damaged) > 1 else ""
        raise RunError(damaged[0] + more)
    return found


def _compare(asked: Any, table: "Sequence[Row]", found: "Sequence[Result]") -> "Comparison | None":
    """What --compare asks for, by names in the table or folders."""
    if not asked.compare:
        return None
    from tlbench.report import comparison, rows

    chosen = []
    for name in asked.compare:
        row = comparison.pick(table, name) or comparison.pick(rows.rows(found, merge=False), name)
        if row is None:
            raise ConfigError(
                f"--compare: no run '{name}'. {suggest(name, [r.name for r in table])}"
            )
        chosen.append(row)
    return comparison.compare(*chosen)


def _texts(asked: Any, table: "Sequence[Row]", compared: "Comparison | None") -> dict[str, str]:
    """File ("-": stdout) -> what belongs there; all of it is made before any is written."""
    from tlbench.report import tables

    texts = {}
    if asked.markdown:
        texts[asked.markdown] = tables.markdown(table, asked.tolerance)
    if asked.csv:
        texts[asked.csv] = tables.comma_separated(table)
    if asked.json:
        pair = compared and compared.as_json()
        texts[asked.json] = tables.json_text(table, asked.tolerance, pair)
    if asked.html:
        from tlbench.report import page

        texts[asked.html] = page.html(table, asked.tolerance, compared)
    return texts


def _write(asked: Any, texts: dict[str, str]) -> None:
    from tlbench.base import console
    from tlbench.cli import targets

    options = {getattr(asked, name): f"--{name}" for name in (*FORMATS, "html")}
    for file, text in texts.items():
        if file == "-":
            sys.stdout.write(text.encode("utf-8", "replace").decode())
        else:
            with targets.writing(options[file], file) as target:
                target.write(text)
            console.err.print(f"wrote {file}", style="hint", markup=False, soft_wrap=True)


def _passes(table: "Sequence[Row]", tolerance: float) -> bool:
    """Say how the rows of the report's configurations stand. None to compare is no pass."""
    from tlbench.base import console
    from tlbench.report import tables

    verdicts = {row.name: row.verdict(tolerance) for row in table}
    compared = {name: misses for name, misses in verdicts.items() if misses is not None}
    failed = [f"{name} ({tables.missed(misses)})" for name, misses in compared.items() if misses]
    if not compared:
        line = "check: FAIL, no run can be compared with the published table"
    elif failed:
        line = f"check: FAIL, {len(failed)} of {len(compared)}: {'; '.join(failed)}"
    else:
        line = f"check: PASS, {len(compared)} compared"
    style = "good" if compared and not failed else "bad"
    console.err.print(line, style=style, markup=False, soft_wrap=True)
    return bool(compared) and not failed
