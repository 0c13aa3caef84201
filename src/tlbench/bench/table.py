"""Rows of a bench as text: the terminal's table, CSV, and the sentences below them. No TensorFlow."""

import csv
import io
from collections.abc import Sequence

from rich.text import Text

from tlbench.base.columns import Column, FittedTable
from tlbench.base.files import CsvLines, inert
from tlbench.base.text import printable
from tlbench.bench import curve, probes
from tlbench.bench.cells import PRETRAINED
from tlbench.bench.rows import SURE, Row, mean_ranks, record
from tlbench.bench.uncertainty import Estimate

AS_GOOD, NOT_BETTER = "=", "!"  # marks behind a row's name


def shots(rows: Sequence[Row]) -> list[str]:
    """The few-shot probes that any row has, the fewest first."""
    names = {name for row in rows for name in row.estimates if name.endswith(probes.SHOT)}
    return sorted(names, key=lambda name: int(name.removesuffix(probes.SHOT)))


def table(rows: Sequence[Row], data: str) -> FittedTable:
    """The rows of one data set."""
    here = [row for row in rows if row.cell.data == data]
    few = shots(here)
    columns = [
        *(Column("backbone", fold=True), Column("pretrained on", rank=5, fold=True)),
        *(Column("params", "right", rank=4), Column("img/s", "right", rank=2)),
        Column("ms", "right", rank=3),
        *(Column(name, "right", rank=1 if place else 0) for place, name in enumerate(few)),
        *(Column(probes.ALL, "right"), Column("95 %", "right", rank=2)),
        *(Column(probes.NEIGHBOURS, "right", rank=2), Column("strength", "right", rank=6)),
        Column("p", "right", rank=3),
    ]
    return FittedTable(columns, [_line(row, few) for row in here if row.cell.right], title=data)


def _line(row: Row, few: Sequence[str]) -> list[str | Text]:
    facts, found = row.cell.facts, row.estimates
    mark = (
        f" {NOT_BETTER}" if row.unbeaten else f" {AS_GOOD}" if row.may_be_best(probes.ALL) else ""
    )
    gap = row.gaps.get(probes.ALL)
    style = "good" if row.best else "" if row.cell.kind == PRETRAINED else "hint"
    cells = [
        printable(row.cell.name) + mark,
        printable(facts.get("pretrained_on", "")),
        _figure(facts.get("parameters"), ",.0f"),
        _figure(facts.get("images_per_second"), ",.0f"),
        _figure(facts.get("latency_ms"), ".1f"),
        *(_share(found.get(name)) for name in few),
        _share(found.get(probes.ALL)),
        interval(found[probes.ALL]) if probes.ALL in found else "",
        _share(found.get(probes.NEIGHBOURS)),
        _figure(facts.get("strength"), ".2g"),
        _figure(gap.p if gap else None, ".2g"),
    ]
    return [Text(cell, style=style) for cell in cells]


def interval(found: Estimate) -> str:
    """0.853-0.881"""
    return f"{found.low:.3f}-{found.high:.3f}"


def _share(found: Estimate | None) -> str:
    return "" if found is None else f"{found.mean:.3f}"


def _figure(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def sentences(rows: Sequence[Row], data: str) -> list[str]:
    """What a person should take from the rows of one data set."""
    here = [row for row in rows if row.cell.data == data]
    said = []
    for row in here:
        if row.best:
            said.append(f"{row.cell.backbone}: {curve.say(row.curve)}")
    equal = [row.cell.backbone for row in here if row.may_be_best(probes.ALL)]
    if equal:
        said.append(f"{AS_GOOD} may be as good as the best, p >= {SURE}: {', '.join(equal)}.")
    for row in here:
        if row.unbeaten:
            said.append(
                f"{NOT_BETTER} {row.cell.backbone} is not surely better than {' or '.join(row.unbeaten)}: "
                "its features bring nothing here."
            )
    return said


def reasons(rows: Sequence[Row], data: str, *, failed: bool = True) -> list[str]:
    """Why rows of one data set have no figures, a line each; failed: those that have failed among them."""
    missing = [row.cell for row in rows if row.cell.data == data and row.cell.reason]
    return [f"{cell.name}: {cell.reason}" for cell in missing if failed or not cell.failed]


def ranks(rows: Sequence[Row]) -> str:
    """Mean ranks over several data sets, in a line."""
    found = sorted(mean_ranks(rows).items(), key=lambda pair: pair[1])
    return "Mean rank: " + ", ".join(f"{name} {rank:.1f}" for name, rank in found)


def as_csv(rows: Sequence[Row]) -> str:
    """A line for each row, a column for each figure."""
    records = [record(row) for row in rows]
    names = list(dict.fromkeys(name for each in records for name in each))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(CsvLines(text), names)
    writer.writeheader()
    for each in records:
        writer.writerow({k: inert(v) if isinstance(v, str) else v for k, v in each.items()})
    return text.getvalue()
