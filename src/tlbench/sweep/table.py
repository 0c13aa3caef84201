"""The end of a sweep, whichever launcher ran it: its runs in one table, as a page and as curves."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rich.text import Text

from tlbench.base import console
from tlbench.base.errors import RunError
from tlbench.base.files import write_text
from tlbench.report import rows, tables
from tlbench.runs import layout, results
from tlbench.runs.published import TOLERANCE
from tlbench.runs.results import Result, natural

log = logging.getLogger(__name__)

MOST_CURVES = 50  # in the picture of a sweep; the page shows them all


def of_folder(folder: Path) -> None:
    """Set the runs in a sweep's folder in one table."""
    runs = sorted((path.parent for path in folder.glob(f"*/{layout.MANIFEST}")), key=natural)
    show([results.read(run) for run in runs], folder)


def show(found: Sequence[Result], folder: Path) -> None:
    """The table of all jobs on the terminal; table, page and curves in the sweep's folder."""
    with _costs_itself("the table"):
        _make(rows.rows(found), folder)


def _make(table: list[rows.Row], folder: Path) -> None:
    parts: dict[str, Callable[[], None]] = {
        layout.TABLE: lambda: write_text(folder / layout.TABLE, tables.markdown(table)),
        layout.PAGE: lambda: _write_page(table, folder / layout.PAGE),
        layout.SWEEP_CURVES: lambda: _draw_curves(table, folder / layout.SWEEP_CURVES),
        "the table": lambda: console.show(tables.Terminal(table)),
    }
    for name, make in parts.items():
        with _costs_itself(name):
            make()
    files = [name for name in parts if (folder / name).is_file()]
    words = Text.assemble((f"{', '.join(files)} and runs in ", "hint"), console.path(folder))
    console.show(words, soft_wrap=True)


@contextlib.contextmanager
def _costs_itself(name: str) -> Iterator[None]:
    """What cannot be drawn after hours of work costs itself, and nothing else."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        log.warning("%s cannot be made (%s)", name, reason)


def _write_page(table: list[rows.Row], path: Path) -> None:
    from tlbench.report import page  # and with it Matplotlib, which a sweep needs at its end only

    write_text(path, page.html(table, TOLERANCE))


def _draw_curves(table: list[rows.Row], path: Path) -> None:
    histories = []
    for row in table:
        with contextlib.suppress(RunError):  # it has no epochs: it failed
            histories.append((row.name, row.first.run.epochs()))
    if histories:
        from tlbench.runs import plots

        plots.all_curves(histories[:MOST_CURVES], path)
