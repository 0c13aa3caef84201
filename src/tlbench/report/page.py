"""Rows as one self-contained HTML page: no network, no scripts. No TensorFlow.

Whatever comes from a run (names, paths, reasons, settings) goes through `text`.
"""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from tlbench import __version__
from tlbench.base.errors import RunError
from tlbench.base.intervals import wilson
from tlbench.config.identity import SEED, counts
from tlbench.report import charts, comparison, tables
from tlbench.report.comparison import Comparison
from tlbench.report.html import chip, document, grid, note, text
from tlbench.report.rows import Row
from tlbench.report.tables import Column
from tlbench.runs import metrics, plots
from tlbench.runs.layout import CURVES_OF_HISTORY
from tlbench.runs.published import FIGURES as PUBLISHED
from tlbench.runs.published import TOLERANCE
from tlbench.runs.results import Result, is_number

Numbered = tuple[int, Row]  # a row and the number it carries through the page, from 1

SILENT = ("data.superclasses.",)  # settings that explain no result, beside those that do not count


def html(rows: Sequence[Row], tolerance: float, compared: Comparison | None = None) -> str:
    """The page: the table, then figures for each test set, then the runs themselves."""
    numbered = list(enumerate(rows, 1))
    finished = [(number, row) for number, row in numbered if row.completed]
    parts = [_header(rows), _results(numbered, tolerance)]
    if compared:
        parts.append(_comparison(compared))
    sets = _by_test_set(finished)
    for members in sets:
        parts.append(_test_set(members))
    if len(finished) > 1:
        parts.append(_differences(finished))
    parts.append(_runs(numbered))
    return document("tlbench report", "".join(parts))


def table(rows: Sequence[Row]) -> str:
    """The table alone, as HTML for a notebook."""
    return _results(list(enumerate(rows, 1)), TOLERANCE)


def _by_test_set(finished: Sequence[Numbered]) -> list[list[Numbered]]:
    """Rows that were tested on the same images, together: only their accuracies compare."""
    sets: list[list[Numbered]] = []
    for number, row in finished:
        alike = (members for members in sets if row.first.tested_like(members[0][1].first))
        if (members := next(alike, None)) is None:
            sets.append(members := [])
        members.append((number, row))
    return sets


# ---------------------------------------------------------------- the table


def _header(rows: Sequence[Row]) -> str:
    runs = sum(len(row.runs) for row in rows)
    open_ = sum(not row.completed for row in rows)
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    unfinished = f", {open_} of them without a result" if open_ else ""
    plural = "" if runs == 1 else "s"
    return (
        "<header><h1>Transfer learning, run by run</h1>"
        f"<p>{runs} run{plural}{unfinished}. tlbench {text(__version__)}, {made}.</p></header>"
    )


def _results(numbered: Sequence[Numbered], tolerance: float) -> str:
    columns = tables.columns_of([row for _, row in numbered])
    heads = "".join(f"<th>{column.heading}</th>" for column in columns)
    body = "".join(_result(number, row, columns, tolerance) for number, row in numbered)
    why = tables.not_compared([row for _, row in numbered])
    return (
        '<section id="results"><h2>Results</h2>'
        f'<div class="scroll"><table class="figures"><thead><tr><th>run</th>{heads}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>{note(why)}</section>"
    )


def _result(number: int, row: Row, columns: Sequence[Column], tolerance: float) -> str:
    head = f"<th>{chip(number)}{text(row.name)}{_count(row)}</th>"
    if not row.completed:
        why = text(tables.why_unfinished(row))
        return f'<tr class="open">{head}<td colspan="{len(columns)}"><div>{why}</div></td></tr>'
    cells = (_figure(tables.mean_and_spread(row, column)) for column in columns)
    line = f"<tr>{head}{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
    misses, published = row.verdict(tolerance), row.first.published
    if misses is None or published is None:
        return line
    theirs, gaps = [], []
    for column in columns:
        known = column.key in PUBLISHED
        theirs.append(f"<td>{column.show(published[column.key]) if known else ''}</td>")
        missed = ' class="missed"' if column.key in misses else ""
        gaps.append(f"<td{missed}>{text(_gap(row, published, column.key)) if known else ''}</td>")
    style, sign = ("fail", "✗") if misses else ("pass", "✓")
    word = f'<span class="verdict {style}">{sign} {tables.verdict(misses)}</span>'
    return (
        f'{line}<tr class="sub"><th>published</th>{"".join(theirs)}</tr>'
        f'<tr class="sub"><th>difference {word}</th>{"".join(gaps)}</tr>'
    )


def _figure(shown: str) -> str:
    """A mean, and smaller its deviation."""
    value, sign, deviation = text(shown).partition(" ± ")
    return f"{value} <small>± {deviation}</small>" if sign else value


def _gap(row: Row, published: Mapping[str, Any], key: str) -> str:
    return tables.difference(key, row.figures[key], published[key])


def _count(row: Row) -> str:
    return f" <small>mean of {row.count}</small>" if len(row.runs) > 1 else ""


def _comparison(found: Comparison) -> str:
    heads = ("seed", "A", "B", "A - B", "95 % interval", "only A right", "only B right", "p")
    lines = [[text(cell) for cell in comparison.cells(pair)] for pair in found.pairs]
    return (
        f'<section id="comparison"><h2>A against B</h2><p>A: {text(found.a)}<br>B: {text(found.b)}'
        f"</p>{grid(heads, lines)}<p>{text(comparison.conclusion(found))}</p></section>"
    )


# ---------------------------------------------------------------- figures of a test set


def _test_set(members: Sequence[Numbered]) -> str:
    data = members[0][1].first.data
    images, classes = data.get("images") or {}, data.get("class_names") or []
    counts = f"{len(classes)} classes, {images.get('test', 0):,} test images"
    legend = "".join(f"<li>{chip(n)}{text(row.name)}</li>" for n, row in members)
    curves, missing = _curves(members)
    return (
        f'<section class="set"><h2>{text(data.get("name", "data"))} <small>{counts}</small></h2>'
        f'<ul class="legend">{legend}</ul>'
        f'<h3>Accuracy against cost</h3><div class="charts">{_costs(members)}</div>'
        '<p class="note">Filled: no other is both cheaper and more accurate (the Pareto front). '
        "Lines through the marks are 95 % intervals.</p>"
        f'<h3>Training</h3><div class="charts two">{curves}</div>{missing}'
        f"{_per_class(members, classes, 'f1', 'F1')}{_per_class(members, classes, 'recall', 'Recall')}"
        f"{_confusions(members, classes)}</section>"
    )


def _costs(members: Sequence[Numbered]) -> str:
    drawn = []
    for key, title, axis, more in (
        ("training_seconds", "Training time", "time, less is better", False),
        ("parameters", "Parameters", "parameters, less is better", False),
        ("images_per_second", "Speed", "images/s in training, more is better", True),
        ("latency_ms", "Latency", "ms for one image, less is better", False),
    ):
        points = []
        for number, row in members:
            cost, accuracy = row.figures[key], row.figures["evaluation"]
            if cost is not None and accuracy is not None:
                points.append(charts.Point(number, row.name, cost, accuracy, row.interval))
        unit = "time" if key == "training_seconds" else "count"
        drawn.append(charts.against_cost(title, axis, points, more_is_better=more, unit=unit))
    return _figures(drawn)


def _curves(members: Sequence[Numbered]) -> tuple[str, str]:
    """Four charts of all runs together, and a note for each run without its epochs."""
    histories: list[tuple[int, Row, list[dict[str, float | str]]]] = []
    missing = []
    for number, row in members:
        for run in row.runs:
            try:
                histories.append((number, row, run.run.epochs()))
            except RunError as error:
                missing.append(note(str(error)))
    drawn = []
    for key, title in zip(
        CURVES_OF_HISTORY,
        ("Training accuracy", "Validation accuracy", "Training loss", "Validation loss"),
        strict=True,
    ):
        lines = [
            (n, row.name, [(float(e["epoch"]), float(e[key])) for e in epochs])
            for n, row, epochs in histories
        ]
        drawn.append(charts.curves(title, lines, share="accuracy" in key))
    return _figures(drawn), "".join(missing)


def _figures(drawn: Iterable[str]) -> str:
    return "".join(f"<figure>{chart}</figure>" for chart in drawn if chart)


def _per_class(members: Sequence[Numbered], classes: Sequence[str], figure: str, title: str) -> str:
    """A figure of the classes in every row, the hardest class first, the best of each marked."""
    found = {name: [_of_class(row, name, figure) for _, row in members] for name in classes}
    lines = []
    hardest = sorted(found.items(), key=lambda item: _average(item[1]))
    for name, values in hardest[: plots.MANY]:
        best = max((value for value in values if value is not None), default=None)
        cells = [_heat(value, best=value == best and len(values) > 1) for value in values]
        if figure == "recall":
            cells = [c + _surely(row, name) for c, (_, row) in zip(cells, members, strict=True)]
        lines.append([text(name), *cells])
    heads = ["class", *(chip(number) for number, _ in members)]
    rest = len(classes) - plots.MANY
    more = note(f"And {rest:,} better ones, in the runs' metrics.json.") if rest > 0 else ""
    open_ = " open" if figure == "f1" else ""
    return (
        f"<details{open_}><summary>{title} by class, the hardest first</summary>"
        f"{grid(heads, lines, 'classes')}{more}</details>"
    )


def _surely(row: Row, name: str) -> str:
    """The 95 % interval of a class's recall in a single run."""
    recall, images = (_of_class(row, name, figure) for figure in ("recall", "images"))
    if len(row.runs) > 1 or recall is None or not images or not 0 <= recall <= 1:
        return ""
    return f" <small>{tables.bounds(wilson(recall, int(images)))}</small>"


def _of_class(row: Row, name: str, figure: str) -> float | None:
    """Mean over a row's runs; a class that no run has images of has none."""
    values = []
    for run in row.runs:
        per_class = run.metrics.get("per_class")
        entry = per_class.get(name) if isinstance(per_class, dict) else None
        value = entry.get(figure) if isinstance(entry, dict) else None
        values += [value] if is_number(value) else []
    return statistics.fmean(values) if values else None


def _average(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else 2.0


def _heat(value: float | None, *, best: bool) -> str:
    if value is None:
        return "-"
    mark = "<b>" if best else "<span>"
    return f'<i style="--share:{value:.3f}"></i>{mark}{value:.3f}</{mark[1:]}'


def _confusions(members: Sequence[Numbered], classes: Sequence[str]) -> str:
    parts = [
        f"<details{' open' if position == 0 else ''}><summary>{chip(number)}Confusion matrix "
        f"of {text(row.name)}</summary>{_confusion(row, classes)}</details>"
        for position, (number, row) in enumerate(members)
    ]
    return f"<h3>What was taken for what</h3>{''.join(parts)}"


def _confusion(row: Row, classes: Sequence[str]) -> str:
    try:
        counts = _counts(row, len(classes))
    except RunError as error:
        return note(str(error))
    left_out = f": {hidden}" if (hidden := plots.hidden_classes(len(classes))) else ""
    words = f"columns predicted ones{left_out}; the deeper the colour, the larger the share of the true class"
    words = f"Rows are true classes, {words}."
    if counts.ndim == 3:
        words = (
            f"An image may have several classes: each is found, missed, or said in vain{left_out}."
        )
    drawing = charts.confusion(counts, classes)
    return f'<div class="scroll">{drawing}</div><p class="note">{words}</p>'


def _counts(row: Row, classes: int) -> np.ndarray:
    """Confusion counts as `metrics.confusion` has them, summed over the runs of a row."""
    counts = []
    for run in row.runs:
        labels, probabilities = run.run.tested()
        if probabilities.shape[1] != classes:
            raise RunError(f"{run.folder / 'predictions.npz'} has other classes than the run.")
        taken = metrics.taken(probabilities, run.run.thresholds)
        counts.append(metrics.confusion(labels, taken, classes))
    return np.sum(counts, axis=0)


# ---------------------------------------------------------------- settings and runs


def _differences(finished: Sequence[Numbered]) -> str:
    """The settings that are not the same in all rows."""
    keys = sorted({key for _, row in finished for key in row.first.settings})
    lines = []
    for key in keys:
        if key == SEED or key.startswith(SILENT) or not counts(key):
            continue
        values = [_setting(row.first.settings.get(key, "-")) for _, row in finished]
        if len(set(values)) > 1:
            lines.append([f"<code>{text(key)}</code>", *map(text, values)])
    heads = ["setting", *(chip(number) for number, _ in finished)]
    body = grid(heads, lines, "settings") if lines else note("All runs have the same settings.")
    return f'<section id="differences"><h2>What differs</h2>{body}</section>'


def _setting(value: Any) -> str:
    """A value as YAML would show it, a long list by its beginning."""
    if isinstance(value, list):
        more = f", ... {len(value)} in all" if len(value) > 6 else ""
        return f"[{', '.join(map(str, value[:3] if more else value))}{more}]"
    return (
        "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    )


def _runs(numbered: Sequence[Numbered]) -> str:
    parts = [_run(number, row.name, run) for number, row in numbered for run in row.runs]
    return f'<section id="runs"><h2>Runs</h2>{"".join(parts)}</section>'


def _run(number: int, name: str, run: Result) -> str:
    manifest = run.manifest
    hardware, versions = manifest.get("hardware") or {}, manifest.get("versions") or {}
    facts = {
        "folder": run.folder,
        "status": f"{run.status}: {run.reason}" if run.reason else run.status,
        "command": manifest.get("command"),
        "seed": run.settings.get(SEED),
        "started": manifest.get("started"),
        "machine": ", ".join(
            str(v) for k in ("processor", "device", "precision") if (v := hardware.get(k))
        ),
        "versions": ", ".join(f"{k} {v}" for k, v in versions.items()),
    }
    lines = "".join(
        f"<dt>{key}</dt><dd>{text(value)}</dd>"
        for key, value in facts.items()
        if value not in (None, "")
    )
    return (
        f"<details><summary>{chip(number)}{text(name)} <small>{text(run.folder.name)}</small>"
        f"</summary><dl>{lines}</dl></details>"
    )
