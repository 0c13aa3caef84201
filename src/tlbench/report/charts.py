"""Charts of the page, drawn by Matplotlib as inline SVG. No TensorFlow.

A row keeps its number and its colour in every chart. Everything else is drawn in placeholders that
become variables of the style sheet, so that a chart is light or dark as its page is.
"""

import io
import math
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from matplotlib.ticker import FixedLocator, MaxNLocator
from matplotlib.transforms import ScaledTranslation

from tlbench.base.console import ORANGE, PALETTE, PURPLE, SKY
from tlbench.base.text import printable
from tlbench.runs import fonts, metrics, plots

Line = tuple[int, str, Sequence[tuple[float, float]]]  # number of the row, its name, (x, y)

WIDTH, HEIGHT = 360, 250  # pixels, as Matplotlib's points are in SVG
LABEL, FRAME = 12, 55  # heights: of a number beside a curve; of all that is above and below an axis
DASHES = ("-", "--", ":", "-.")
ROUND = [digit * 10.0**power for power in range(-3, 12) for digit in (1, 2, 5)]
CLOCK = [  # what is round as a time: fractions of a second, seconds and minutes, hours
    *(value for value in ROUND if value < 1),
    *(count * unit for unit in (1, 60) for count in (1, 2, 5, 10, 20, 30)),
    *(value * 3600 for value in ROUND if value >= 1),
]
HINT = "hint: "  # an artist whose id begins so shows the rest of it under the pointer

FG, MUTED, LINE, CARD = "#010101", "#020202", "#030303", "#040404"
PAGES_OWN = {
    **{FG: "var(--fg)", MUTED: "var(--muted)", LINE: "var(--line)", CARD: "var(--card)"},
    f"'{fonts.OWN}'": "inherit",
}
STYLE = {
    **plots.STYLE,
    "svg.fonttype": "none",  # text stays text
    "font.family": fonts.OWN,
    "savefig.bbox": None,  # charts that stand side by side are of one size
    **dict.fromkeys(("figure.facecolor", "axes.facecolor"), "none"),
    **{"text.color": FG, "axes.edgecolor": MUTED, "axes.labelcolor": MUTED},
    **{"xtick.color": MUTED, "ytick.color": MUTED, "grid.color": LINE, "grid.alpha": 1.0},
    **{"axes.grid.axis": "y", "axes.spines.left": False, "axes.xmargin": 0},
    **{"axes.titlesize": 13, "axes.titlepad": 12},  # a disc at 1.0 reaches above its axis
    **dict.fromkeys(("xtick.major.size", "ytick.major.size"), 0),
}


@dataclass(frozen=True)
class Point:
    """Row `number` at a cost, with its accuracy and the interval of it where there is one."""

    number: int
    name: str
    cost: float
    accuracy: float
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Learnt:
    """Row `number`'s accuracies at numbers of training images, and the law through them with its band."""

    number: int
    name: str
    found: Sequence[tuple[float, float]]
    fitted: Sequence[tuple[float, float]]
    low: Sequence[float]
    high: Sequence[float]


def color(number: int) -> str:
    """The colour of a row."""
    return PALETTE[(number - 1) % len(PALETTE)]


def ink(number: int) -> str:
    """What is legible on that colour."""
    return "#111111" if color(number) in (ORANGE, SKY, PURPLE) else "#ffffff"


# ---------------------------------------------------------------- charts


def curves(title: str, lines: Sequence[Line], *, share: bool) -> str:
    """Curves over epochs, each row's number where its own end. share: values are shares, 0-1."""
    ends = defaultdict(list)
    height = max(HEIGHT, FRAME + LABEL * len({number for number, _, _ in lines}))
    with matplotlib.rc_context(STYLE):
        figure, axis = _chart(title, "epoch", height)
        for number, name, points in lines:
            if finite := [(x, y) for x, y in points if math.isfinite(y)]:
                _curve(axis, number, name, finite)
                ends[number].append(finite[-1][1])
        if not ends:
            return ""
        axis.set_xlim(right=axis.dataLim.x1)  # where the numbers stand
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        _limit(axis, 1.0 if share else math.inf)
        _number(axis, {number: float(np.mean(values)) for number, values in ends.items()})
        return _inline(figure, title)


def learning(title: str, lines: Sequence[Learnt]) -> str:
    """Accuracy against the number of training images, the law through it dashed within its band."""
    with matplotlib.rc_context(STYLE):
        figure, axis = _chart(title, "training images")
        for line in lines:
            look = {"color": color(line.number), "gid": HINT + printable(line.name)}
            _curve(axis, line.number, line.name, line.found)
            if line.fitted:
                sizes, accuracies = zip(*line.fitted, strict=True)
                axis.plot(sizes, accuracies, linestyle="--", linewidth=1, **look)
                around = [*sizes, *reversed(sizes)], [*line.low, *reversed(line.high)]
                axis.fill(*around, alpha=0.12, linewidth=0, **look)  # one path, no reference
        if not lines:
            return ""
        _costs(axis, [size for line in lines for size, _ in (*line.found, *line.fitted)], "count")
        _limit(axis, 1.0)
        _number(axis, {line.number: (line.fitted or line.found)[-1][1] for line in lines})
        return _inline(figure, title)


def against_cost(
    title: str, label: str, points: Sequence[Point], *, more_is_better: bool, unit: str
) -> str:
    """Accuracy against a cost on a logarithmic axis; the Pareto front filled and joined.

    unit: "time", or "count" for plain numbers.
    """
    points = [point for point in points if point.cost > 0]
    if not points:
        return ""
    front = pareto(points, more_is_better=more_is_better)
    with matplotlib.rc_context(STYLE):
        figure, axis = _chart(title, label)
        edge = [(point.cost, point.accuracy) for point in front]
        axis.step(*zip(*edge, strict=True), where="post", color=MUTED, linestyle="--")
        for point in sorted(points, key=lambda point: point in front):
            _mark(axis, point, solid=point in front)
        _costs(axis, [point.cost for point in points], unit)
        _limit(axis, 1.0)
        return _inline(figure, title)


def pareto(points: Sequence[Point], *, more_is_better: bool) -> list[Point]:
    """The points that no other beats in both, from the cheapest to the most accurate."""
    sign = -1 if more_is_better else 1
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (sign * p.cost, -p.accuracy)):
        if not front or point.accuracy > front[-1].accuracy:
            front.append(point)
    return front


def confusion(counts: np.ndarray, names: Sequence[str]) -> str:
    """The picture of `plots.draw_confusion`; of many classes without their names, of very many the hardest."""
    shown = metrics.most_mistaken(counts, plots.MANY)
    names = [names[i] for i in shown]
    if counts.ndim == 3:
        return _of_each_class(counts[shown], names)
    few = len(names) <= plots.FEW
    side = len(names) * (float(np.clip(360 / len(names), 22, 30)) if few else 540 / len(names))
    room = 14 + (plots.longest(names) * 5.6 if few else 14)
    size = room + side + 4
    with matplotlib.rc_context({**STYLE, "axes.facecolor": CARD, "axes.edgecolor": LINE}):
        figure = Figure(figsize=(size / 72, size / 72))
        axis = figure.add_axes((room / size, room / size, side / size, side / size))
        plots.draw_confusion(axis, counts, names if few else (), shown)
        if not few:
            axis.set(xlabel="predicted class", ylabel="true class")
        return _inline(figure, "confusion matrix")


def _of_each_class(counts: np.ndarray, names: Sequence[str]) -> str:
    """The picture of `plots.draw_each_class`."""
    with matplotlib.rc_context({**STYLE, "axes.facecolor": CARD, "axes.edgecolor": LINE}):
        figure, axis = _chart("", "test images", 80 + 18 * len(names))
        plots.draw_each_class(axis, counts, names)
        return _inline(figure, "answers of each class")


# ---------------------------------------------------------------- parts


def _chart(title: str, label: str, height: float = HEIGHT) -> tuple[Figure, Any]:
    figure = Figure(figsize=(WIDTH / 72, height / 72), layout="constrained")
    axis = figure.subplots()
    axis.set(title=title, xlabel=label)
    return figure, axis


def _curve(axis: Any, number: int, name: str, points: Sequence[tuple[float, float]]) -> None:
    """A line that ends in a dot, which is all there is of it after one epoch."""
    look = {"color": color(number), "gid": HINT + printable(name)}
    dashes = DASHES[(number - 1) // len(PALETTE) % len(DASHES)]
    axis.plot(*zip(*points, strict=True), linewidth=2, linestyle=dashes, **look)
    _disc(axis, points[-1], 2.5, **look)


def _number(axis: Any, ends: dict[int, float]) -> None:
    """Each row's number beside the end of its curve, or as near to it as it can be read."""
    low, high = axis.get_ylim()
    order = sorted(ends, key=ends.__getitem__)
    places = np.array([(ends[number] - low) / (high - low) for number in order])
    room = LABEL / (axis.figure.get_figheight() * 72 - FRAME)
    for number, place in zip(order, _apart(places, room), strict=True):
        axis.text(1.02, place, str(number), transform=axis.transAxes, va="center", weight="bold")


def _apart(places: np.ndarray, room: float) -> np.ndarray:
    """Ascending places from 0 to 1, moved up and down until each has its room."""
    steps = np.arange(len(places)) * room
    loose = places - steps
    upwards = np.maximum.accumulate(loose)
    downwards = np.minimum.accumulate(loose[::-1])[::-1]
    return np.clip((upwards + downwards) / 2 + steps, steps, 1 - steps[::-1])


def _mark(axis: Any, point: Point, *, solid: bool) -> None:
    """A numbered disc, filled on the front, with the interval as a line through it."""
    tint, above = color(point.number), {"zorder": 3}  # every disc lies above every line
    hint = f"{HINT}{printable(point.name)}: {point.accuracy:.4f}"
    place = (point.cost, point.accuracy)
    axis.plot([point.cost] * 2, point.interval or [point.accuracy] * 2, color=tint)
    disc = {"facecolor": tint if solid else CARD, "edgecolor": tint, "linewidth": 2}
    _disc(axis, place, 8.5, gid=hint, **disc, **above)
    words = {"color": ink(point.number) if solid else FG, "weight": "bold", "gid": hint}
    axis.text(*place, str(point.number), ha="center", va="center", **words, **above)


def _disc(axis: Any, place: tuple[float, float], radius: float, **look: Any) -> None:
    """A disc of so many pixels. Not a marker: those are references to one that has an id."""
    at = ScaledTranslation(*place, axis.transData)
    axis.add_artist(Circle((0, 0), radius, transform=at, **look))


def _costs(axis: Any, costs: Sequence[float], unit: str) -> None:
    """A logarithmic axis, long enough for two marks at least, with few enough to be read."""
    start, end = math.log10(min(costs)), math.log10(max(costs))
    margin = max(0.12, 0.08 * (end - start), 0.4 - (end - start) / 2)
    low, high = 10 ** (start - margin), 10 ** (end + margin)
    axis.set_xscale("log")
    axis.set_xlim(low, high)
    axis.set_xticks([], minor=True)
    marks = [value for value in (CLOCK if unit == "time" else ROUND) if low <= value <= high]
    axis.xaxis.set_major_locator(FixedLocator(marks, nbins=6))
    axis.xaxis.set_major_formatter(lambda value, _: _amount(value, unit))


def _amount(value: float, unit: str) -> str:
    """A mark's value in words as short as they get: 20 s, 5 min, 2 h; 200k, 26M."""
    sizes = ((3600, " h"), (60, " min"), (1, " s")) if unit == "time" else ((1e6, "M"), (1e3, "k"))
    for size, suffix in sizes:
        if value >= size:
            return f"{value / size:.3g}{suffix}"
    return f"{value:.3g}{' s' if unit == 'time' else ''}"


def _limit(axis: Any, ceiling: float) -> None:
    """Room above and below the values, but none beyond what values there can be."""
    axis.margins(y=0.08)
    low, high = axis.get_ylim()
    axis.set_ylim(max(0.0, low), min(ceiling, high))


def _inline(figure: Figure, title: str) -> str:
    """The figure as an element of the page: no ids, references or styles beside the page's own."""
    file = io.StringIO()
    plots.write(figure, file, "svg")
    root = ElementTree.fromstring(file.getvalue())
    box = root.attrib["viewBox"]
    root.attrib = {"role": "img", "aria-label": title, "viewBox": box, "width": box.split()[2]}
    for part in [*root]:
        if part.tag.endswith(("metadata", "defs")):
            root.remove(part)
    for node in [*root.iter()]:
        node.tag = node.tag.split("}")[-1]  # HTML knows the namespaces without being told
        words = {key.split("}")[-1]: value for key, value in node.items() if key != "clip-path"}
        if (hint := words.pop("id", "")).startswith(HINT):
            node.insert(0, element := ElementTree.Element("title"))
            element.text = hint.removeprefix(HINT)
        for ours, theirs in PAGES_OWN.items():
            if "style" in words:
                words["style"] = words["style"].replace(ours, theirs)
        if "d" in words:  # a path; a tenth of a pixel is fine enough
            words["d"] = re.sub(r"(\.\d)\d+", r"\1", words["d"])
        node.attrib = words
    return ElementTree.tostring(root, encoding="unicode")
