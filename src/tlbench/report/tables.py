"""Rows as text: the terminal's table, Markdown, CSV and JSON. No TensorFlow."""

import csv
import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from tlbench.base.files import CsvLines, inert
from tlbench.base.text import printable
from tlbench.report.rows import Row
from tlbench.runs.published import FIGURES as PUBLISHED
from tlbench.runs.published import NOT_COMPARED, TOLERANCE
from tlbench.runs.results import FIGURES, Result

# In Markdown: \ ` * ~ [ ] < > & | ! anywhere, the colon of a URL, www., the @ of an address, _ at a word's edge.
ACTIVE = re.compile(r"[\\`*~\[\]<>&|!@]|:(?=//)|(?<=www)\.|(?<!\w)_|_(?!\w)", re.I)


# ---------------------------------------------------------------- figures as text


def count(value: float) -> str:
    """1234567 -> "1,234,567"."""
    return f"{value:,.0f}"


def share(value: float) -> str:
    """0.86614 -> "0.8661"."""
    return f"{value:.4f}"


def clock(seconds: float) -> str:
    """Minutes and seconds, and hours where there are any: "1:02:03"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def size(bytes_: float) -> str:
    """Bytes as megabytes: 48866784 -> "48.9 MB"."""
    return f"{bytes_ / 1e6:,.1f} MB"


@dataclass(frozen=True)
class Column:
    """A figure of the table; a narrow terminal does without the columns of the highest `rank`."""

    key: str
    heading: str
    short: str
    show: Callable[[float], str]
    rank: int


COLUMNS = (
    Column("parameters", "parameters", "params", count, 1),
    Column("accuracy", "train", "train", share, 2),
    Column("val_accuracy", "val", "val", share, 3),
    Column("epochs", "epochs", "ep", count, 8),
    Column("evaluation", "test", "test", share, 0),
    Column("interval", "95 % interval", "95 %", share, 6),
    Column("mean_average_precision", "mAP", "mAP", share, 1),
    Column("micro_f1", "micro F1", "\N{MICRO SIGN}F1", share, 5),
    Column("balanced_accuracy", "balanced accuracy", "bal.", share, 4),
    Column("macro_f1", "macro F1", "F1", share, 5),
    Column("features_seconds", "features time", "feat.", clock, 11),
    Column("training_seconds", "training time", "time", clock, 7),
    Column("evaluation_seconds", "evaluation time", "eval.", clock, 12),
    Column("images_per_second", "images/s", "img/s", count, 9),
    Column("size", "size", "size", size, 10),
)
OF_CLASSES = ("balanced_accuracy", "macro_f1")  # what tells more where classes differ in size
OF_SEVERAL = ("mean_average_precision", "micro_f1")  # where an image may have several classes


def columns_of(rows: Sequence[Row]) -> list[Column]:
    """The columns of a table of these rows."""
    uneven = any(row.uneven for row in rows)
    several = any(row.figures["mean_average_precision"] is not None for row in rows)
    left_out = (() if uneven else OF_CLASSES) + (() if several else OF_SEVERAL)
    return [column for column in COLUMNS if column.key not in left_out]


def figure(column: Column, value: float | None) -> str:
    """A value as its column shows it, "-" where there is none."""
    return "-" if value is None else column.show(value)


def interval(row: Row) -> str:
    """The interval of the test accuracy as its last three decimals: ".859-.873"."""
    return "" if row.interval is None else bounds(row.interval)


def bounds(interval: tuple[float, float]) -> str:
    """(0.8591, 0.8734) -> ".859-.873"."""
    low, high = (f"{bound:.3f}".removeprefix("0") for bound in interval)
    return f"{low}-{high}"


def difference(key: str, ours: float | None, theirs: float) -> str:
    """Ours minus the published figure, signed."""
    if ours is None:
        return "-"
    gap = ours - theirs
    if key in ("parameters", "epochs"):
        return f"{gap:+,.0f}" if gap else "="
    return f"{gap:+.4f}"


def verdict(misses: Sequence[str]) -> str:
    """PASS, or FAIL with the figures that miss."""
    return f"FAIL {missed(misses)}" if misses else "PASS"


def missed(misses: Sequence[str]) -> str:
    """The names of figures as the heads of the table have them."""
    return ", ".join({"evaluation": "test"}.get(name, name) for name in misses)


def why_unfinished(row: Row) -> str:
    """The status of a run without figures, its reason and its folder."""
    run = row.first
    if run.status == "damaged":
        return f"damaged: {run.reason}"
    return f"{run.status}{f': {run.reason}' if run.reason else ''} ({run.folder})"


def not_compared(rows: Sequence[Row]) -> str:
    """Why published rows are missing beside runs of the report's configurations, if they are."""
    asked = [row for row in rows if row.completed and row.first.published]
    return NOT_COMPARED if any(row.verdict(TOLERANCE) is None for row in asked) else ""


# ---------------------------------------------------------------- terminal


class Terminal:
    """The table at whatever width it is printed: headings shorten, then columns go."""

    def __init__(
        self, rows: Sequence[Row], tolerance: float = TOLERANCE, *, asked: str = ""
    ) -> None:
        """asked: the key of a column that stays, however little room there is."""
        self.rows, self.tolerance, self.asked = rows, tolerance, asked

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        name_width, columns, short = self._fit(options.max_width)
        finished = [row for row in self.rows if row.completed]
        if finished:
            yield self._figures(finished, columns, name_width, short=short)
        if len(finished) < len(self.rows):
            yield self._unfinished(name_width)
        if note := not_compared(self.rows):
            yield Text(note, style="hint")

    def _fit(self, width: int) -> tuple[int, list[Column], bool]:
        """The width of the names, the columns beside them, and whether headings are short."""
        names = max((len(row.name) for row in self.rows), default=3)
        words = (len(word) for row in self.rows for word in row.name.split())
        wanted = min(max(17, *words, 0), 32)  # "  FAIL parameters"; names fold between their words
        columns = columns_of(self.rows)
        while True:
            spare = [column for column in columns if column.key != self.asked]
            for short in (False, True):
                taken = sum(self._width(column, short=short) + 2 for column in columns)
                if taken + wanted <= width or (short and not spare):
                    return max(3, min(max(names, wanted), width - taken)), columns, short
            columns.remove(max(spare, key=lambda column: column.rank))

    def _width(self, column: Column, *, short: bool) -> int:
        heading = column.short if short else column.heading
        cells = [line[column.key] for row in self.rows for line in self._lines(row)]
        return max(len(text) for text in (heading, *cells))

    def _figures(
        self, rows: Sequence[Row], columns: Sequence[Column], name_width: int, *, short: bool
    ) -> Table:
        view = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
        view.add_column("run", width=name_width, overflow="fold")
        for column in columns:
            heading = column.short if short else column.heading
            view.add_column(heading, justify="right", no_wrap=True)
        for row in rows:
            for i, line in enumerate(self._lines(row)):
                style = _style(line["run"]) if i else ""
                cells = [line["run"], *(line[column.key] for column in columns)]
                view.add_row(*(Text(cell) for cell in cells), style=style)
        return view

    def _lines(self, row: Row) -> list[dict[str, str]]:
        """A row's line and those below it: deviations over seeds, published row, differences."""
        if not row.completed:
            return []
        blank = {column.key: "" for column in COLUMNS}
        shown = {c.key: figure(c, row.figures.get(c.key)) for c in COLUMNS}
        lines = [{**shown, "run": row.name, "interval": interval(row)}]
        if len(row.runs) > 1:
            spread = {c.key: figure(c, row.spread[c.key]) for c in COLUMNS if c.key in FIGURES}
            same = {key: "" for key in FIGURES if not row.spread[key]}
            lines.append({**blank, **spread, **same, "run": f"  std of {row.count}"})
        misses, published = row.verdict(self.tolerance), row.first.published
        if misses is not None and published is not None:
            theirs = {c.key: c.show(published[c.key]) for c in COLUMNS if c.key in PUBLISHED}
            gaps = {key: difference(key, row.figures[key], published[key]) for key in PUBLISHED}
            lines.append({**blank, **theirs, "run": "  published"})
            lines.append({**blank, **gaps, "run": f"  {verdict(misses)}"})
        return lines

    def _unfinished(self, name_width: int) -> Table:
        view = Table.grid(padding=(0, 2, 0, 0))
        view.add_column(width=name_width, overflow="fold")
        view.add_column(overflow="fold")
        for row in self.rows:
            if not row.completed:
                style = "warn" if row.first.status == "running" else "bad"
                view.add_row(Text(row.name), Text(why_unfinished(row), style=style))
        return view

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(1, options.max_width)


def _style(label: str) -> str:
    return {"PASS": "good", "FAIL": "bad"}.get(label.strip()[:4], "hint")


# ---------------------------------------------------------------- files


def markdown(rows: Sequence[Row], tolerance: float = TOLERANCE) -> str:
    """The whole table in Markdown, the published rows and the verdicts in it."""
    columns = columns_of(rows)
    heads = ["run", *(column.heading for column in columns)]
    lines = [_markdown(heads), "|---" + "|--:" * len(columns) + "|"]
    for row in rows:
        if not row.completed:
            words = (_as_text(row.name), _as_text(why_unfinished(row)))
            lines.append(_markdown([*words, *[""] * (len(columns) - 1)]))
            continue
        name = _as_text(row.name) + (f" ({row.count})" if len(row.runs) > 1 else "")
        lines.append(_markdown([name, *(mean_and_spread(row, column) for column in columns)]))
        misses, published = row.verdict(tolerance), row.first.published
        if misses is not None and published is not None:
            theirs = [c.show(published[c.key]) if c.key in PUBLISHED else "" for c in columns]
            gaps = [
                difference(c.key, row.figures[c.key], published[c.key])
                if c.key in PUBLISHED
                else ""
                for c in columns
            ]
            lines.append(_markdown(["published", *theirs]))
            lines.append(_markdown([f"difference: **{verdict(misses)}**", *gaps]))
    note = not_compared(rows)
    return "\n".join([*lines, *(["", note] if note else [])]) + "\n"


def mean_and_spread(row: Row, column: Column) -> str:
    """A figure with its standard deviation over seeds: "0.8288 ± 0.0031"."""
    if column.key == "interval":
        return interval(row)
    shown = figure(column, row.figures[column.key])
    deviation = row.spread[column.key]
    return f"{shown} ± {column.show(deviation)}" if deviation else shown


def _markdown(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _as_text(name: str) -> str:
    """A name in Markdown: what would be a link, an image, HTML or emphasis in it stays text."""
    return ACTIVE.sub(r"\\\g<0>", printable(" ".join(name.split())))


def comma_separated(rows: Sequence[Row]) -> str:
    """CSV with a line for each row, figures unrounded, empty where a row has none."""
    records = [
        {
            key: inert(value) if isinstance(value, str) else value
            for key, value in _record(row).items()
        }
        for row in rows
    ]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(CsvLines(text), list(records[0]) if records else ["run"])
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def columns(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """What the table shows, unrounded: a list for each column, a value for each row."""
    records = [_record(row) for row in rows]
    return {key: [record[key] for record in records] for key in records[0]} if records else {}


def _record(row: Row) -> dict[str, Any]:
    low, high = row.interval or (None, None)
    return {
        "run": row.name,
        "status": row.first.status,
        "reason": row.first.reason,
        "runs": len(row.runs),
        **row.figures,
        "evaluation_low": low,
        "evaluation_high": high,
        **{f"{key}_std": row.spread[key] for key in FIGURES},
        "folder": " ".join(str(run.folder) for run in row.runs),
    }


def json_text(rows: Sequence[Row], tolerance: float, comparison: object = None) -> str:
    """Everything the table shows, and each run behind a row, as JSON."""
    records = [
        {
            **_record(row),
            "folder": [str(run.folder) for run in row.runs],
            "seeds": [run.settings.get("seed") for run in row.runs],
            **_against_published(row, tolerance),
        }
        for row in rows
    ]
    value = {"rows": records, **({"comparison": comparison} if comparison else {})}
    return json.dumps(value, indent=2) + "\n"


def _against_published(row: Row, tolerance: float) -> dict[str, Any]:
    misses, published = row.verdict(tolerance), row.first.published
    if misses is None or published is None:
        return {}
    gaps: dict[str, float | None] = {}
    for key in PUBLISHED:
        ours = row.figures[key]
        gaps[key] = None if ours is None else ours - published[key]
    return {"published": published, "difference": gaps, "pass": not misses, "misses": misses}


def unreadable(results: Sequence[Result]) -> list[str]:
    """One line for each run that is damaged."""
    return [run.reason for run in results if run.status == "damaged"]
