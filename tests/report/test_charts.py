"""The charts of the page: what a reader finds in them, whatever the names, in light and in dark."""

import base64
import io
import itertools
import math
import re
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np
import pytest
from matplotlib import rc_context
from PIL import Image

from tlbench.base.console import BLUE, PALETTE, VERMILION
from tlbench.report import charts
from tlbench.report.charts import Point
from tlbench.runs import plots

EVIL = "</title><script>alert(1)</script> $x^2$ \"&' #010101 \ud800\x1b"
SHOWN = "</title><script>alert(1)</script> $x^2$ \"&' #010101 \ufffd\ufffd"


def points(*values: tuple[float, float]) -> list[Point]:
    """Rows 1, 2, ... of (cost, accuracy)."""
    return [Point(i, f"row {i}", *value, None) for i, value in enumerate(values, 1)]


def cost(found: list[Point], unit: str = "count", *, more_is_better: bool = False) -> Element:
    drawn = charts.against_cost("Cost", "less", found, more_is_better=more_is_better, unit=unit)
    return ElementTree.fromstring(drawn)


def texts(chart: Element) -> dict[str, tuple[float, float]]:
    """What is written in a chart, and where."""
    return {
        node.text or "": (float(node.attrib["x"]), float(node.attrib["y"]))
        for node in chart.iter("text")
    }


def marks(chart: Element) -> list[tuple[float, str]]:
    """The marks of the axis of costs, from the left: what stands lowest but for its title."""
    found = [(float(n.attrib["y"]), float(n.attrib["x"]), n.text or "") for n in chart.iter("text")]
    lowest = max(y for y, _, words in found if words != "less")
    return sorted((x, words) for y, x, words in found if words != "less" and y > lowest - 1)


def filled(chart: Element) -> set[str]:
    """Numbers that stand in the colours for text on a disc of a row's colour."""
    return {
        node.text or ""
        for node in chart.iter("text")
        if re.search("#(f{6}|1{6})", node.attrib["style"])
    }


def paths(chart: Element, color: str) -> list[list[tuple[float, float]]]:
    """The lines of a colour, each by its points."""
    return [
        [(float(x), float(y)) for x, y in re.findall(r"[ML] (\S+) (\S+)", node.attrib["d"])]
        for node in chart.iter("path")
        if f"fill: none; stroke: {color.lower()}"
        in re.sub("stroke-dash[^;]*; ", "", node.attrib["style"])
    ]


def picture(chart: Element) -> np.ndarray:
    """The picture in a confusion matrix, (classes, classes, 4), its first row the first class."""
    (image,) = chart.iter("image")
    data = base64.b64decode(image.attrib["href"].removeprefix("data:image/png;base64,"))
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))
    return pixels[::-1] if "scale(1 -1)" in image.attrib["transform"] else pixels


# ---------------------------------------------------------------- accuracy against cost


def test_pareto_front() -> None:
    found = points((1, 0.5), (2, 0.4), (3, 0.9), (3, 0.8), (4, 0.9))
    assert [p.number for p in charts.pareto(found, more_is_better=False)] == [1, 3]
    assert [p.number for p in charts.pareto(found, more_is_better=True)] == [5]


def test_every_row_is_where_its_figures_put_it_and_filled_on_the_front() -> None:
    found = points((1e6, 0.5), (4e6, 0.4), (1e7, 0.9), (1e7, 0.7))
    chart = cost(found)
    where = texts(chart)
    (x1, y1), (x2, y2), (x3, y3), (x4, y4) = (where[str(number)] for number in range(1, 5))
    assert x1 < x2 < x3 == x4
    assert y3 < y4 < y1 < y2  # downwards
    assert (x2 - x1) / (x3 - x1) == pytest.approx(math.log10(4), abs=0.01)
    assert filled(chart) == {"1", "3"}
    assert filled(cost(found, more_is_better=True)) == {"3"}


def test_intervals_are_lines_through_the_marks() -> None:
    chart = cost([Point(1, "a", 10, 0.5, (0.4, 0.7)), Point(2, "b", 20, 0.45, None)])
    (((x, low), (x_too, high)),) = paths(chart, PALETTE[0])
    number = texts(chart)["1"]
    assert x == x_too == pytest.approx(number[0], abs=0.2)
    assert high < number[1] < low
    assert (low - number[1]) / (low - high) == pytest.approx(1 / 3, abs=0.05)


@pytest.mark.parametrize(
    ("costs", "unit", "expected"),
    [
        ((60, 7000), "time", ["1 min", "5 min", "20 min", "1 h"]),
        ((2e5, 2.6e7), "count", ["200k", "1M", "5M", "20M"]),
        ((0.3, 2.0), "count", ["0.5", "1", "2"]),
        ((0.05, 0.4), "time", ["0.05 s", "0.1 s", "0.2 s", "0.5 s"]),
    ],
)
def test_costs_are_told_in_round_words(costs, unit, expected) -> None:
    chart = cost(points(*((value, 0.5) for value in costs)), unit)
    assert [words for _, words in marks(chart)] == expected


@pytest.mark.parametrize("unit", ["time", "count"])
@pytest.mark.parametrize("span", [1, 1.01, 2, 7, 30, 1e3, 1e6])
@pytest.mark.parametrize("start", [0.3, 45, 4_023_956])
def test_marks_of_costs_leave_each_other_room(start, span, unit) -> None:
    told = marks(cost(points((start, 0.5), (start * span, 0.6)), unit))
    assert len(told) >= 2
    for (x, words), (after, others) in itertools.pairwise(told):
        assert after - x > 5 * (len(words) + len(others)) / 2


# ---------------------------------------------------------------- curves


def test_curves_have_a_point_an_epoch_and_a_number_at_their_end() -> None:
    lines = [
        (number, "", [(float(epoch), 1 - 0.8**epoch / number) for epoch in range(1, 8)])
        for number in (1, 2, 5, 8)
    ]
    chart = ElementTree.fromstring(charts.curves("Accuracy", lines, share=True))
    where = texts(chart)
    for number in (1, 5):
        ((*_, (x, y)),) = lines_found = paths(chart, PALETTE[number - 1])
        assert len(lines_found[0]) == 7
        assert where[str(number)] == (pytest.approx(x, abs=20), pytest.approx(y, abs=20))
    plain, dashed = paths(chart, PALETTE[1])  # of rows 2 and 8
    assert (len(plain), len(dashed)) == (7, 7)
    styles = [
        n.attrib["style"] for n in chart.iter("path") if PALETTE[1].lower() in n.attrib["style"]
    ]
    assert sum("stroke-dasharray" in style for style in styles) == 1


@pytest.mark.parametrize("rows", [2, 9, 40])
def test_numbers_of_curves_can_be_read(rows: int) -> None:
    lines = [(number, "", [(1.0, 0.5), (2.0, 0.9)]) for number in range(100, 100 + rows)]
    chart = ElementTree.fromstring(charts.curves("Loss", lines, share=False))
    height = float(chart.attrib["viewBox"].split()[3])
    where = texts(chart)
    levels = sorted(where[str(number)][1] for number in range(100, 100 + rows))
    assert min(np.diff(levels)) > 10
    assert 20 < levels[0] < levels[-1] < height - 20


def test_what_is_no_number_is_not_drawn() -> None:
    broken = [(1.0, 3.0), (2.0, math.nan), (3.0, math.inf), (4.0, 2.0)]
    chart = ElementTree.fromstring(charts.curves("Loss", [(1, "", broken)], share=False))
    assert [len(line) for line in paths(chart, PALETTE[0])] == [2]
    assert charts.curves("Loss", [(1, "", [(1.0, math.nan)])], share=False) == ""


def test_one_epoch_is_a_dot_on_an_axis_of_whole_epochs() -> None:
    chart = ElementTree.fromstring(charts.curves("Loss", [(7, "", [(1.0, 0.5)])], share=False))
    assert {words for words in texts(chart) if "." not in words} == {"Loss", "epoch", "1", "7"}
    assert any(f"fill: {PALETTE[0].lower()}" in n.attrib["style"] for n in chart.iter("path"))


# ---------------------------------------------------------------- confusion


def test_a_confusion_matrix_is_deep_where_the_share_is_large() -> None:
    counts = np.array([[8, 2, 0], [0, 5, 5], [0, 0, 0]])
    chart = ElementTree.fromstring(charts.confusion(counts, ["a", "b", "c"]))
    pixels = picture(chart)
    assert pixels[..., 3] == pytest.approx(
        255 * np.array([[0.81, 0.23, 0], [0, 0.52, 0.52], [0, 0, 0]]), abs=2
    )
    assert f"#{pixels[0, 0, :3].tobytes().hex()}".upper() == BLUE.upper()
    assert f"#{pixels[0, 1, :3].tobytes().hex()}".upper() == VERMILION.upper()
    written = [node.text for node in chart.iter("text")]
    assert sorted(written) == ["2", "5", "5", "8", *"aabbcc"]


def test_a_hundred_classes_stay_small_and_each_is_a_pixel() -> None:
    counts = np.eye(100, dtype=int) * 60 + np.random.default_rng(0).poisson(0.4, (100, 100))
    drawn = charts.confusion(counts, [f"class {i}" for i in range(100)])
    assert len(drawn) < 40_000
    chart = ElementTree.fromstring(drawn)
    depths = picture(chart)[..., 3]
    assert depths.shape == (100, 100)
    assert (depths.argmax(axis=1) == np.arange(100)).all()
    assert set(texts(chart)) == {"predicted class", "true class"}


def test_of_thousands_of_classes_those_with_the_most_mistakes_are_drawn(tmp_path: Path) -> None:
    counts = np.eye(2000, dtype=int) * 9
    counts[1700, 3] = 1  # one of ten images of the true class
    chart = ElementTree.fromstring(charts.confusion(counts, [f"class {i}" for i in range(2000)]))
    depths = picture(chart)[..., 3] / 255
    assert depths.shape == (100, 100)
    # Classes 3 and 1700, then 0, 1, 2, 4... which have no mistake: in the order of the classes.
    assert depths[99, 3] == pytest.approx(0.04 + 0.96 * 0.1, abs=0.01)
    assert depths[99, 99] == pytest.approx(0.04 + 0.96 * 0.9, abs=0.01)
    plots.confusion_matrix(counts, [f"class {i}" for i in range(2000)], "title", tmp_path / "m.png")
    with Image.open(tmp_path / "m.png") as drawn:
        assert max(drawn.size) < 3000
    assert plots.hidden_classes(2000) == "the 100 classes with the most mistakes, of 2,000"
    assert plots.hidden_classes(100) == ""


def test_powers_of_ten_are_drawn_as_plain_text(tmp_path: Path) -> None:
    """Strengths of a penalty from 10 to 1e-3, and rates of a range test from 1e-6 to 1."""
    names = ("accuracy", "loss", "val_accuracy", "val_loss")
    history = [
        {"stage": "train", "epoch": i + 1, "strength": 10.0 ** (1 - i), **dict.fromkeys(names, 0.5)}
        for i in range(5)
    ]
    rates = [10.0**power for power in range(-6, 1)]
    losses = [2.0, 2.0, 2.0, 1.5, 1.0, float("nan"), float("inf")]
    with rc_context({"svg.fonttype": "none"}):
        plots.curves(history, "solved", tmp_path / "solved.svg")
        marks = {"valley": 2.2e-3, "steepest": 1e-3}
        plots.learning_rates(rates, losses, losses, marks, "rates", tmp_path / "rates.svg")
    drawn = ((tmp_path / f"{name}.svg").read_text() for name in ("solved", "rates"))
    solved, swept = (text.replace("\N{MINUS SIGN}", "-") for text in drawn)
    assert "math" not in solved + swept
    assert {"10", "1e-02"} <= set(re.findall(r">([^<>]+)</text>", solved))
    told = {"1e-06", "1e-03", "valley: 2.2e-03", "steepest: 1.0e-03", "smoothed"}
    assert told <= set(re.findall(r">([^<>]+)</text>", swept))


# ---------------------------------------------------------------- all of them


def every_chart(name: str) -> list[str]:
    point = Point(1, name, 10, 0.5, (0.4, 0.6))
    return [
        charts.against_cost("A", "b", [point], more_is_better=False, unit="time"),
        charts.curves("A", [(1, name, [(1.0, 0.5), (2.0, 0.6)])], share=True),
        charts.confusion(np.eye(2, dtype=int), [name, "b"]),
    ]


@pytest.mark.filterwarnings("error")
def test_names_are_text_whatever_they_hold() -> None:
    cost, curves, confusion = map(ElementTree.fromstring, every_chart(EVIL))
    assert f"{SHOWN}: 0.5000" in {node.text for node in cost.iter("title")}
    assert {node.text for node in curves.iter("title")} == {SHOWN}
    assert f"{SHOWN[:23]}…" in texts(confusion)
    assert "猫" in texts(ElementTree.fromstring(every_chart("猫")[2]))  # which not every font has
    (odd,) = {w for w in texts(ElementTree.fromstring(every_chart("$x^2$ <b>&\n")[2])) if "x" in w}
    assert odd == "$x^2$ <b>&\ufffd"
    for chart in (cost, curves, confusion):
        assert {n.tag for n in chart.iter()} <= {"svg", "g", "path", "text", "title", "image"}


def test_a_chart_takes_its_neutral_colours_and_its_font_from_the_page() -> None:
    for drawn in every_chart("name"):
        colors = set(re.findall(r"#[0-9a-f]{3,6}\b", re.sub(r'href="[^"]*"', "", drawn)))
        assert colors <= {color.lower() for color in PALETTE} | {"#ffffff", "#111111"}
        assert "var(--muted)" in drawn or "var(--line)" in drawn
        assert set(re.findall("font-family: ([^;]*);", drawn)) == {"inherit"}


def test_charts_on_a_page_do_not_interfere_and_come_out_the_same() -> None:
    for drawn, again in zip(every_chart("name"), every_chart("name"), strict=True):
        assert drawn == again
        assert drawn.startswith('<svg role="img" aria-label="')
        for word in (" id=", "url(", "<style", "http", "xmlns", "<!"):
            assert word not in drawn
