"""A bench as one self-contained HTML page: no network, no scripts. No TensorFlow.

Whatever comes from a configuration (names, paths, reasons) goes through `text`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tlbench.bench import probes, table
from tlbench.bench.cells import PRETRAINED
from tlbench.bench.rows import Row, mean_ranks, points, unreadable
from tlbench.data import oddities
from tlbench.report import charts
from tlbench.report.html import chip, document, grid, note, text

FACTS = ("processor", "cpus", "gpus", "versions", "command")


def html(rows: Sequence[Row], about: Mapping[str, Any]) -> str:
    """The page: for each data set the table, what it says, and the curves."""
    parts = [
        "<header><h1>Which backbone, how much data</h1>"
        f"<p>tlbench {text(about['version'])}, {text(about['made'])}.</p></header>"
    ]
    names = list(dict.fromkeys(row.cell.data for row in rows))
    for name in names:
        parts.append(_data_set([row for row in rows if row.cell.data == name], name))
    if len(names) > 1:
        parts.append(_ranks(rows))
    parts.append(_about(about))
    return document("tlbench bench", "".join(parts))


def tables(rows: Sequence[Row]) -> str:
    """The tables alone, as HTML for a notebook."""
    names = list(dict.fromkeys(row.cell.data for row in rows))
    parts = []
    for name in names:
        numbered = [(i, row) for i, row in enumerate(rows, 1) if row.cell.data == name]
        parts.append(
            f"<b>{text(name)}</b>{_table([(i, row) for i, row in numbered if row.cell.right])}"
        )
    return "".join(parts)


def _data_set(rows: Sequence[Row], name: str) -> str:
    numbered = [(i, row) for i, row in enumerate(rows, 1) if row.cell.right]
    lines = [*table.sentences(rows, name), *table.reasons(rows, name)]
    said = "".join(f"<li>{text(line)}</li>" for line in lines)
    return (
        f"<section><h2>{text(name)}</h2>{_unreadable(rows, name)}{_table(numbered)}"
        f'<p class="note">{_notes(numbered)}</p><h3>What it says</h3><ul>{said}</ul>'
        f'<h3>How accuracy grows, and what it costs</h3><div class="charts">{_charts(numbered)}</div>'
        "</section>"
    )


def _unreadable(rows: Sequence[Row], name: str) -> str:
    lines = unreadable(rows, name)
    if not lines:
        return ""
    more = f" and {len(lines) - oddities.SHOWN:,} more" if len(lines) > oddities.SHOWN else ""
    return note(f"{oddities.unreadable(lines)}: {' '.join(lines[: oddities.SHOWN])}{more}")


def _table(numbered: Sequence[tuple[int, Row]]) -> str:
    few = table.shots([row for _, row in numbered])
    heads = [
        *("backbone", *map(text, few), "all images", "k-NN", "to the best", "p", "img/s"),
        *("ms", "parameters", "image", "strength", "pretrained on"),
    ]
    return grid(heads, (_line(number, row, few) for number, row in numbered), "named")


def _line(number: int, row: Row, few: Sequence[str]) -> list[str]:
    facts = row.cell.facts
    mark = f" <b>{table.NOT_BETTER}</b>" if row.unbeaten else ""
    mark += f" {table.AS_GOOD}" if row.may_be_best(probes.ALL) else ""
    name = text(row.cell.name)
    name = f"<b>{name}</b>" if row.best else name
    gap = row.gaps.get(probes.ALL)
    return [
        f"{chip(number)}{name}{mark}",
        *(_share(row, probe) for probe in (*few, probes.ALL, probes.NEIGHBOURS)),
        _figure(gap.mean if gap else None, "+.3f"),
        _figure(gap.p if gap else None, ".2g"),
        _figure(facts.get("images_per_second"), ",.0f"),
        _figure(facts.get("latency_ms"), ".1f"),
        _figure(facts.get("parameters"), ",.0f"),
        _figure(facts.get("image_size"), "d"),
        _figure(facts.get("strength"), ".2g"),
        text(facts.get("pretrained_on", "")),
    ]


def _share(row: Row, probe: str) -> str:
    """A mean, the best of its column bold, one that may be as good marked; smaller below it its interval."""
    found = row.estimates.get(probe)
    if found is None:
        return ""
    mark = f"{table.AS_GOOD} " if row.may_be_best(probe) else ""
    mean = f"<b>{found.mean:.3f}</b>" if row.best_by(probe) else f"{mark}{found.mean:.3f}"
    return f"{mean}<br><small>{table.interval(found)}</small>"


def _figure(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _notes(numbered: Sequence[tuple[int, Row]]) -> str:
    images = numbered[0][1].cell.images if numbered else {}
    tests = next((m.shape[1] for _, row in numbered for m in row.cell.right.values()), 0)
    draws = max((len(m) for _, row in numbered for m in row.cell.right.values()), default=0)
    return (
        f"{images.get(probes.ALL, 0):,} training images at most, {tests:,} test images. Few-shot columns: ridge "
        f"regression on so many images of each class, {draws} draws, the same for every row; all images: logistic "
        "regression, its strength chosen on the validation images. Small figures: 95 % intervals, over draws and "
        f"test images. Bold: the best of a column; {table.AS_GOOD} may be as good, in pairs, p at least 0.05 "
        "(adjusted by Holm). To the best, p: on all images (McNemar's test). "
        "img/s: features, many images at a time; ms: the whole model, one image."
    )


def _charts(numbered: Sequence[tuple[int, Row]]) -> str:
    pretrained = [(n, row) for n, row in numbered if row.cell.kind == PRETRAINED]
    drawn = [
        charts.learning("Accuracy by training images", [_learnt(n, row) for n, row in pretrained])
    ]
    for key, title, axis, more in (
        ("images_per_second", "Accuracy and speed", "features of images/s, more is better", True),
        ("latency_ms", "Accuracy and latency", "ms for one image, less is better", False),
        ("parameters", "Accuracy and size", "parameters, less is better", False),
    ):
        marks = [
            charts.Point(n, row.cell.name, row.cell.facts[key], found.mean, (found.low, found.high))
            for n, row in pretrained
            if (found := row.estimates[probes.ALL]) and row.cell.facts.get(key)
        ]
        drawn.append(charts.against_cost(title, axis, marks, more_is_better=more, unit="count"))
    return "".join(f"<figure>{chart}</figure>" for chart in drawn if chart)


def _learnt(number: int, row: Row) -> charts.Learnt:
    """The accuracies that were found, and the law through them up to twice the images."""
    sizes, right = points(row.cell)
    found = [(float(n), float(each.mean())) for n, each in zip(sizes, right, strict=True)]
    if row.curve is None:
        return charts.Learnt(number, row.cell.name, found, [], [], [])
    ahead = np.geomspace(sizes[0], 2 * sizes[-1], 25)
    low, high = row.curve.band(ahead)
    fitted = [(float(n), 1 - row.curve.error(n)) for n in ahead]
    return charts.Learnt(number, row.cell.name, found, fitted, list(1 - high), list(1 - low))


def _ranks(rows: Sequence[Row]) -> str:
    found = sorted(mean_ranks(rows).items(), key=lambda pair: pair[1])
    lines = [[text(name), f"{rank:.2f}"] for name, rank in found]
    body = grid(["backbone", "mean rank"], lines) if lines else note("No backbone has every row.")
    return f"<section><h2>Over all data sets</h2>{body}</section>"


def _about(about: Mapping[str, Any]) -> str:
    lines = "".join(
        f"<dt>{name}</dt><dd>{text(about[name])}</dd>" for name in FACTS if about.get(name)
    )
    return f"<section><h2>How it was measured</h2><dl>{lines}</dl></section>"
