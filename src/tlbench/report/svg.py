"""Charts as inline SVG for the page: text that scales, colours from its style sheet, no scripts.

A row of the table keeps its number and its colour class in every chart. No TensorFlow.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from tlbench.base.console import PALETTE

WIDTH, HEIGHT = 360, 250
LEFT, RIGHT, TOP, BOTTOM = 44, 24, 30, 38
DASHES = ("", "6 3", "2 3", "8 3 2 3")
CLOCK = [c * u for u in (1, 60, 3600) for c in (1, 2, 5, 10, 20, 30)]  # readable times, in seconds


@dataclass(frozen=True)
class Line:
    """The curve of row `number` (from 1); points: (x, y)."""

    number: int
    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Point:
    """Row `number` at a cost, with its accuracy and the interval of it where there is one."""

    number: int
    name: str
    cost: float
    accuracy: float
    interval: tuple[float, float] | None


def text(value: object) -> str:
    """Anything as HTML text: escaped, and without what UTF-8 cannot hold."""
    return escape(str(value).encode("utf-8", "replace").decode())


def color_class(number: int) -> str:
    """The style sheet's class for the colour of a row."""
    return f"c{(number - 1) % len(PALETTE)}"


# ---------------------------------------------------------------- charts


def curves(title: str, lines: Sequence[Line], *, share: bool) -> str:
    """Curves over epochs, each with its number at its end. share: values are shares, 0-1."""
    finite = [(x, y) for line in lines for x, y in line.points if math.isfinite(y)]
    if not finite:
        return ""
    xs, ys = [x for x, _ in finite], [y for _, y in finite]
    low, high = _padded(min(ys), max(ys), floor=0.0, ceiling=1.0 if share else None)
    x = _scale(min(xs) if min(xs) < max(xs) else min(xs) - 0.5, max(xs), LEFT, WIDTH - RIGHT)
    y = _scale(low, high, HEIGHT - BOTTOM, TOP)
    parts = [_axes(title, "epoch", [(x(t), f"{t:g}") for t in _whole(min(xs), max(xs))])]
    parts.append(_levels(y, low, high))
    ends: dict[int, list[float]] = {}
    for line in lines:
        points = [(x(px), y(py)) for px, py in line.points if math.isfinite(py)]
        if not points:
            continue
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
        dash = DASHES[(line.number - 1) // len(PALETTE) % len(DASHES)]
        style = f"{color_class(line.number)} line"
        last = points[-1]
        parts.append(
            f'<g class="{style}"><title>{text(line.name)}</title>'
            f'<polyline points="{path}" stroke-dasharray="{dash}"/>'
            f'<circle cx="{last[0]:.1f}" cy="{last[1]:.1f}" r="2.5"/></g>'
        )
        ends.setdefault(line.number, []).append(last[1])
    labels = [(sum(levels) / len(levels), number) for number, levels in ends.items()]
    for level, number in _spread(labels, 11):
        parts.append(_text(WIDTH - RIGHT + 5, level + 4, str(number), "label"))
    return _svg(title, WIDTH, HEIGHT, parts)


def against_cost(
    title: str, axis: str, points: Sequence[Point], *, more_is_better: bool, unit: str
) -> str:
    """Accuracy against a cost on a logarithmic axis; the Pareto front filled and joined.

    unit: "time", or "count" for plain numbers.
    """
    points = [point for point in points if point.cost > 0]
    if not points:
        return ""
    costs = [point.cost for point in points]
    bounds = [b for point in points for b in (point.interval or (point.accuracy,))]
    low, high = _padded(min(bounds), max(bounds), floor=0.0, ceiling=1.0)
    start, end = math.log10(min(costs)), math.log10(max(costs))
    margin = max(0.12, 0.08 * (end - start))
    line = _scale(start - margin, end + margin, LEFT, WIDTH - RIGHT)
    y = _scale(low, high, HEIGHT - BOTTOM, TOP)

    def x(cost: float) -> float:
        return line(math.log10(cost))

    values = _log_ticks(10 ** (start - margin), 10 ** (end + margin), unit)
    marks = _apart([(x(value), _amount(value, unit)) for value in values])
    parts = [_axes(title, axis, marks), _levels(y, low, high)]
    front = pareto(points, more_is_better=more_is_better)
    parts.append(_front([(x(p.cost), y(p.accuracy)) for p in front]))
    for point in sorted(points, key=lambda point: point in front):
        parts.append(_mark(point, x(point.cost), y, solid=point in front))
    return _svg(title, WIDTH, HEIGHT, parts)


def pareto(points: Sequence[Point], *, more_is_better: bool) -> list[Point]:
    """The points that no other beats in both, from the cheapest to the most accurate."""
    sign = -1 if more_is_better else 1
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (sign * p.cost, -p.accuracy)):
        if not front or point.accuracy > front[-1].accuracy:
            front.append(point)
    return front


def confusion(counts: np.ndarray, names: Sequence[str]) -> str:
    """Share of each true class (row) predicted as each class (column), as depth of colour."""
    classes, few = len(names), len(names) <= 30
    cell = float(np.clip(360 / classes, 22, 30)) if few else max(4.0, 540 / classes)
    left = 14 + (min(24, max(map(len, names))) * 6.4 if few else 0)
    side = classes * cell
    bottom = left if few else 16
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    parts = [f'<rect class="frame" x="{left:.1f}" y="2" width="{side:.1f}" height="{side:.1f}"/>']
    told = counts > 0 if few else shares >= 0.02
    parts.append(_faint(counts.astype(bool) & ~told, left, cell))
    for row, column in zip(*np.nonzero(told), strict=True):
        amount, depth = int(counts[row, column]), float(shares[row, column])
        place = f'x="{left + column * cell:.1f}" y="{2 + row * cell:.1f}"'
        hint = f"{names[row]} taken for {names[column]}: {amount:,} ({depth:.0%})"
        box = f'width="{cell:.1f}" height="{cell:.1f}" fill-opacity="{max(0.05, depth):.2f}"'
        title = f"<title>{text(hint)}</title>"
        kind = "hit" if row == column else "miss"
        parts.append(f'<rect class="{kind}" {place} {box}>{title}</rect>')
        if few:
            style = "count deep" if depth > 0.55 else "count"
            at = (left + (column + 0.5) * cell, 2 + (row + 0.5) * cell + 3)
            parts.append(_text(*at, str(amount), style))
    for i, name in enumerate(names if few else []):
        middle = (i + 0.5) * cell
        parts.append(_text(left - 4, 2 + middle + 3, _short(name), "tick end"))
        if left < 30:  # names this short need no turning
            parts.append(_text(left + middle, side + 14, _short(name), "tick middle"))
            continue
        turn = f"translate({left + middle + 3:.1f} {side + 6:.1f}) rotate(-90)"
        parts.append(f'<text class="tick end" transform="{turn}">{text(_short(name))}</text>')
    width, height = left + side + 4, side + bottom
    if not few:
        parts.append(_text(left + side / 2, side + 13, "predicted class", "tick middle"))
    return _svg("confusion matrix", width, height, parts, fixed=True)


def _faint(cells: np.ndarray, left: float, cell: float) -> str:
    """Cells of next to no share as one shape: a hundred classes have thousands of them."""
    square = f"h{cell:g}v{cell:g}h-{cell:g}z"
    corners = (
        f"M{left + column * cell:.1f} {2 + row * cell:.1f}{square}"
        for row, column in zip(*np.nonzero(cells), strict=True)
    )
    return f'<path class="miss" fill-opacity=".06" d="{"".join(corners)}"/>'


# ---------------------------------------------------------------- parts


def _svg(
    title: str, width: float, height: float, parts: Sequence[str], *, fixed: bool = False
) -> str:
    size = f' style="width:{width:.0f}px"' if fixed else ""
    return (
        f'<svg role="img" aria-label="{text(title)}" viewBox="0 0 {width:.0f} {height:.0f}"{size}>'
        f"{''.join(parts)}</svg>"
    )


def _text(x: float, y: float, words: str, style: str) -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}">{text(words)}</text>'


def _axes(title: str, x_label: str, marks: Sequence[tuple[float, str]]) -> str:
    base = HEIGHT - BOTTOM
    parts = [
        _text(LEFT, 14, title, "title"),
        f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{base}" y2="{base}"/>',
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, x_label, "tick middle"),
        *(_text(x, base + 15, label, "tick middle") for x, label in marks),
    ]
    return "".join(parts)


def _levels(y: Callable[[float], float], low: float, high: float) -> str:
    """Horizontal grid lines with their values."""
    parts = []
    marks = ticks(low, high)
    digits = max(0, -math.floor(math.log10(marks[1] - marks[0]))) if len(marks) > 1 else 2
    for mark in marks:
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(mark):.1f}" '
            f'y2="{y(mark):.1f}"/>'
        )
        parts.append(_text(LEFT - 6, y(mark) + 4, f"{mark:.{digits}f}", "tick end"))
    return "".join(parts)


def _front(places: Sequence[tuple[float, float]]) -> str:
    """The edge of what is reached at each cost: across, then up."""
    if len(places) < 2:
        return ""
    path = f"M{places[0][0]:.1f} {places[0][1]:.1f}"
    path += "".join(f"H{x:.1f}V{y:.1f}" for x, y in places[1:])
    return f'<path class="front" d="{path}"/>'


def _mark(point: Point, x: float, y: Callable[[float], float], *, solid: bool) -> str:
    """A numbered disc, filled on the front, with the interval as a line through it."""
    middle = y(point.accuracy)
    whisker = ""
    if point.interval:
        low, high = map(y, point.interval)
        whisker = (
            f'<line class="whisker" x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>'
        )
    style = f"{color_class(point.number)} mark {'solid' if solid else 'hollow'}"
    return (
        f'<g class="{style}"><title>{text(point.name)}: {point.accuracy:.4f}</title>{whisker}'
        f'<circle cx="{x:.1f}" cy="{middle:.1f}" r="8.5"/>'
        f"{_text(x, middle + 3.6, str(point.number), 'number')}</g>"
    )


# ---------------------------------------------------------------- scales


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    span = (high - low) or 1.0
    return lambda value: start + (value - low) / span * (end - start)


def _padded(low: float, high: float, *, floor: float, ceiling: float | None) -> tuple[float, float]:
    """A range with some room around it, within its natural limits."""
    room = 0.08 * (high - low) or 0.05
    top = high + room if ceiling is None else min(ceiling, high + room)
    return max(floor, low - room), top


def ticks(low: float, high: float, at_most: int = 6) -> list[float]:
    """Round numbers within a range, at most so many."""
    power = 10 ** math.floor(math.log10((high - low) / at_most))
    step = next(f * power for f in (1, 2, 5, 10, 20) if (high - low) / (f * power) <= at_most - 1)
    first = math.ceil(low / step - 1e-9)
    return [step * i for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _whole(low: float, high: float) -> list[float]:
    """Whole numbers for an axis of epochs."""
    if low == high:
        return [low]
    return [tick for tick in ticks(low, high, 8) if tick == round(tick) and tick >= low]


def _log_ticks(low: float, high: float, unit: str) -> list[float]:
    """Round values for a logarithmic axis, in their order."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    fine = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    options = CLOCK + [t for t in fine if t < 1 or t > 1e5] if unit == "time" else fine
    within = sorted(t for t in options if low <= t <= high)
    return within if len(within) > 1 else ticks(low, high)


def _apart(marks: Sequence[tuple[float, str]], room: float = 44) -> list[tuple[float, str]]:
    """The marks that can be read: none nearer than `room` to the one before it."""
    kept: list[tuple[float, str]] = []
    for place, label in marks:
        if not kept or place - kept[-1][0] >= room:
            kept.append((place, label))
    return kept


def _amount(value: float, unit: str) -> str:
    """A mark's value in words as short as they get: 20 s, 5 min, 2 h; 200k, 26M."""
    sizes = ((3600, " h"), (60, " min"), (1, " s")) if unit == "time" else ((1e6, "M"), (1e3, "k"))
    for size, suffix in sizes:
        if value >= size:
            return f"{value / size:.3g}{suffix}"
    return f"{value:.3g}{' s' if unit == 'time' else ''}"


def _spread(ends: Sequence[tuple[float, int]], room: float) -> list[tuple[float, int]]:
    """Labels moved apart vertically so that each has its room, in their order."""
    placed: list[tuple[float, int]] = []
    for level, number in sorted(ends):
        placed.append((max(level, placed[-1][0] + room) if placed else level, number))
    overflow = max(0.0, placed[-1][0] - (HEIGHT - BOTTOM)) if placed else 0.0
    for i in range(len(placed) - 1, -1, -1):  # push those back up that left the chart
        limit = placed[i + 1][0] - room if i + 1 < len(placed) else HEIGHT - BOTTOM
        if overflow:
            placed[i] = (min(placed[i][0], limit), placed[i][1])
    return placed


def _short(name: str) -> str:
    return name if len(name) <= 24 else name[:23] + "…"
