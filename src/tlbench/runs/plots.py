"""Pictures of runs. No TensorFlow."""

import itertools
import math
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import matplotlib
import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure  # not pyplot: it looks for screens, and takes longer to import
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import LogFormatter, MaxNLocator
from rich.cells import cell_len

from tlbench.base import console
from tlbench.base.files import atomic
from tlbench.base.text import printable
from tlbench.runs import fonts, metrics

STYLE = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "font.size": 10,
    "figure.dpi": 110,
    "savefig.bbox": "tight",
    "legend.frameon": False,
    "text.parse_math": False,  # class names and titles are shown as they are
}

STRENGTH = "strength of the penalty"
FEW = 30  # classes whose counts can be read in a confusion matrix
MANY = 100  # classes whose rows and columns can


def _save(figure: Figure, path: Path) -> None:
    fonts.fit(figure)
    with atomic(path) as temporary:
        write(figure, temporary, path.suffix[1:])


def write(figure: Figure, file: Path | TextIO, form: str) -> None:
    """Without Matplotlib's warnings of characters that no font has: said in one line, or a browser's."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(file, format=form)


def curves(history: Sequence[Mapping[str, Any]], title: str, path: Path) -> None:
    """Accuracy and loss over epochs, training and validation, with a line where a stage begins."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        axes = figure.subplots(1, 2)
        for axis, name in zip(axes, ("accuracy", "loss"), strict=True):
            _training_and_validation(axis, history, name)
            axis.set(title=name, xlabel=_across(history))
        axes[1].set_ylim(bottom=0)
        axes[0].legend(loc="lower right")
        figure.suptitle(title, x=0.01, ha="left")
        _save(figure, path)


def images(names: Sequence[str], columns: Mapping[str, np.ndarray], title: str, path: Path) -> None:
    """Images in a grid. names: of its rows. columns: (rows, height, width, 3) uint8, by what stands above them."""
    with matplotlib.rc_context(STYLE):
        size = (1.3 * len(columns) + 0.8, 1.3 * len(names) + 0.7)
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(len(names), len(columns), squeeze=False)
        for across, (above, pictures) in enumerate(columns.items()):
            for down, picture in enumerate(pictures):
                axes[down, across].imshow(picture, interpolation="nearest")
                axes[down, across].set(xticks=[], yticks=[])
                axes[down, across].spines[:].set_visible(False)
            axes[0, across].set_title(above, fontsize=9)
        for name, axis in zip(names, axes[:, 0], strict=True):
            axis.set_ylabel("\n".join(textwrap.wrap(printable(name), 16)), fontsize=8)
        figure.suptitle(title, x=0.01, ha="left")
        _save(figure, path)


def all_curves(histories: Sequence[tuple[str, Sequence[Mapping[str, Any]]]], path: Path) -> None:
    """Curves of several runs, a column each: accuracy above, loss below, on scales they share.

    histories: (name, records of its epochs), at least one; five stand in a row.
    """
    across = min(len(histories), 5)
    rows = 2 * math.ceil(len(histories) / across)
    with matplotlib.rc_context(STYLE):
        size = (2.7 * across + 0.6, 2.2 * rows + 0.3)
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(rows, across, squeeze=False)
        for i, (name, history) in enumerate(histories):
            pair = [axes[2 * (i // across) + below, i % across] for below in (0, 1)]
            for axis, measure in zip(pair, ("accuracy", "loss"), strict=True):
                _training_and_validation(axis, history, measure)
                axis.tick_params(labelsize=8)
            pair[0].set_title("\n".join(textwrap.wrap(name, 26)), fontsize=10)
            pair[1].set_xlabel(_across(history), fontsize=9)
        _share_scales(axes, len(histories))
        axes[0, 0].legend(loc="lower right", fontsize=8)
        _save(figure, path)


def learning_rates(
    rates: Sequence[float],
    losses: Sequence[float],
    smoothed: Sequence[float],
    marks: Mapping[str, float],
    title: str,
    path: Path,
) -> None:
    """Loss against the learning rate of its step, up to where it is lost; marks: rates, by what they are called."""
    known = np.ma.masked_invalid(smoothed)
    before = np.ma.masked_invalid(losses)[: known.argmin() + 1]  # what follows may be any number
    room = 0.1 * (np.ptp(before) or 1)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7, 4), layout="constrained")
        axis = figure.subplots()
        axis.plot(rates, losses, color=console.SKY, linewidth=1, label="of each step")
        axis.plot(rates, smoothed, color=console.BLUE, linewidth=2, label="smoothed")
        colors = (console.VERMILION, console.GREEN)
        for (name, rate), color, style in zip(marks.items(), colors, ("-", "--"), strict=False):
            axis.axvline(rate, color=color, linestyle=style, label=f"{name}: {rate:.1e}")
        _logarithmic(axis)
        axis.set(xlabel="learning rate", ylabel="training loss", title=title)
        axis.set_ylim(before.min() - room, before.max() + room)
        axis.legend(loc="lower left")
        _save(figure, path)


def _share_scales(axes: Any, used: int) -> None:
    """One range for every accuracy and one for every loss; panels that are left over disappear."""
    across = axes.shape[1]
    for kind, label in enumerate(("accuracy", "loss")):
        panels = [axes[2 * (i // across) + kind, i % across] for i in range(used)]
        limits = np.array([axis.get_ylim() for axis in panels])
        for axis in panels:
            axis.set_ylim(0.0 if kind else limits[:, 0].min(), limits[:, 1].max() * 1.02)
        for axis in panels[::across]:
            axis.set_ylabel(label, fontsize=9)
    for i in range(used, axes.size // 2):
        for kind in (0, 1):
            axes[2 * (i // across) + kind, i % across].set_visible(False)


def _across(history: Sequence[Mapping[str, Any]]) -> str:
    """What a run's records follow each other along: the strengths of a head that was solved, or epochs."""
    return STRENGTH if all(record.get("strength") for record in history) else "epoch"


def _training_and_validation(axis: Any, history: Sequence[Mapping[str, Any]], measure: str) -> None:
    """Both curves of a measure over epochs or strengths, with a dotted line where a stage begins."""
    solved = _across(history) == STRENGTH
    places = [record["strength" if solved else "epoch"] for record in history]
    for prefix, label, color, marker in (
        ("", "training", console.BLUE, "o"),
        ("val_", "validation", console.VERMILION, "s"),
    ):
        values = [record[prefix + measure] for record in history]
        axis.plot(places, values, color=color, marker=marker, markersize=4, label=label)
    for before, after in itertools.pairwise(history):
        if before["stage"] != after["stage"]:
            axis.axvline(after["epoch"] - 0.5, color="gray", linestyle=":")
    if solved:
        _logarithmic(axis)
        axis.xaxis.set_inverted(True)  # the path begins with the strongest
    else:
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _logarithmic(axis: Any) -> None:
    """Powers of ten across, as plain text: Matplotlib would have them as formulas, which STYLE does not draw."""
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(LogFormatter())
    axis.xaxis.set_minor_formatter(LogFormatter(labelOnlyBase=False))


def confusion_matrix(
    counts: np.ndarray, class_names: Sequence[str], title: str, path: Path
) -> None:
    """What each true class (row) was predicted as (column); of very many classes those with the most mistakes.

    counts: as `metrics.confusion` has them. Of several classes to an image each has a bar of its own.
    """
    shown = metrics.most_mistaken(counts, MANY)
    if left_out := hidden_classes(len(class_names)):
        title = f"{title}\n{left_out}"
    if counts.ndim == 3:
        _of_each_class(counts[shown], [class_names[i] for i in shown], title, path)
        return
    side = float(np.clip(2.2 + 0.34 * len(shown), 4.5, 22))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(side + 0.3, side), layout="constrained")
        axis = figure.subplots()
        draw_confusion(axis, counts, [class_names[i] for i in shown], shown)
        axis.set(xlabel="predicted", ylabel="true", title=title)
        _save(figure, path)


def _of_each_class(counts: np.ndarray, names: Sequence[str], title: str, path: Path) -> None:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7, 1.4 + 0.26 * len(names)), layout="constrained")
        axis = figure.subplots()
        draw_each_class(axis, counts, names)
        axis.set(title=title, xlabel="test images")
        _save(figure, path)


def draw_each_class(axis: Any, counts: np.ndarray, names: Sequence[str]) -> None:
    """A bar for each class: images that have it and were said to, that were not, and false alarms.

    counts: (classes, 2, 2).
    """
    places, begins = np.arange(len(names)), np.zeros(len(names))
    parts = (
        ("there and found", counts[:, 1, 1], console.BLUE),
        ("there but missed", counts[:, 1, 0], console.SKY),
        ("said in vain", counts[:, 0, 1], console.VERMILION),
    )
    for label, values, color in parts:
        axis.barh(places, values, left=begins, color=color, label=label)
        begins = begins + values
    axis.set_yticks(
        places, [_short(name) for name in names], fontsize=9 if len(names) <= FEW else 6
    )
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.figure.legend(loc="outside lower center", ncols=3)


def hidden_classes(count: int) -> str:
    """What a confusion matrix of so many classes does not show, in words; "" where it shows all."""
    return f"the {MANY} classes with the most mistakes, of {count:,}" if count > MANY else ""


def draw_confusion(axis: Any, counts: np.ndarray, names: Sequence[str], shown: np.ndarray) -> None:
    """Share of each true class as depth of colour: hits in one, misses in another; few with counts.

    counts: (classes, classes); shown: which of them; names: one for each of these, or none at all.
    """
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    share, counts = share[np.ix_(shown, shown)], counts[np.ix_(shown, shown)]
    pixels = np.empty((*counts.shape, 4))
    hits = np.eye(len(counts), dtype=bool)[..., None]
    pixels[..., :3] = np.where(hits, to_rgb(console.BLUE), to_rgb(console.VERMILION))
    pixels[..., 3] = np.where(counts, 0.04 + 0.96 * share, 0)  # a single image is seen, too
    axis.imshow(pixels, interpolation="none")
    axis.grid(False)
    axis.spines[:].set_visible(True)
    words, size = [_short(name) for name in names], 9 if len(names) <= FEW else 5
    turned = {"rotation": 90, "rotation_mode": "anchor", "ha": "right", "va": "center"}
    way = turned if longest(names) > 2 else {}
    axis.set_xticks(range(len(words)), words, fontsize=size, **way)
    axis.set_yticks(range(len(words)), words, fontsize=size)
    if len(counts) <= FEW:
        for row, column in zip(*np.nonzero(counts), strict=True):
            color = "white" if share[row, column] > 0.6 else None
            count = axis.text(column, row, str(counts[row, column]), color=color, fontsize=8)
            count.set(ha="center", va="center")


def reliability(calibration: Mapping[str, Any], title: str, path: Path) -> None:
    """Accuracy against confidence, a bar a bin, and how many images each bin holds.

    calibration: what `evaluation.calibration` returns. A calibrated classifier follows the diagonal.
    """
    bins = [b for b in calibration["bins"] if b["images"]]
    left = [b["from"] for b in bins]
    width = 1 / len(calibration["bins"])
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5, 6), layout="constrained")
        above, below = figure.subplots(2, sharex=True, height_ratios=(3, 1))
        bar: dict[str, Any] = {"width": width, "align": "edge", "edgecolor": "white"}
        above.bar(left, [b["accuracy"] for b in bins], color=console.BLUE, label="accuracy", **bar)
        above.plot([0, 1], [0, 1], color="gray", linestyle="--", label="calibrated")
        dots = ([b["confidence"] for b in bins], [b["accuracy"] for b in bins])
        above.plot(*dots, "o", color=console.VERMILION, markersize=4, label="mean confidence")
        above.set(title=title, ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
        above.legend(loc="upper left")
        below.bar(left, [b["images"] for b in bins], color=console.SKY, **bar)
        below.set(xlabel="confidence", ylabel="images")
        below.yaxis.set_major_locator(MaxNLocator(integer=True))
        _save(figure, path)


def mistakes(
    images: np.ndarray, captions: Sequence[tuple[str, str, str]], title: str, path: Path
) -> None:
    """Pictures under which stand three lines each: what it is, what it was taken for, and its name.

    images: (n, height, width, 3) uint8; at least one.
    """
    columns = min(4, len(images))
    rows = -(-len(images) // columns)
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        size = (2.4 * max(columns, 2), 2.85 * rows + 0.5)
        figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(h_pad=0.1))
        axes = figure.subplots(rows, columns, squeeze=False)
        for axis in axes.flat:
            axis.axis("off")
        for axis, image, (true, taken, file) in zip(axes.flat, images, captions, strict=False):
            axis.imshow(image, interpolation="nearest")
            under: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points"}
            under.update(ha="center", va="top", fontsize=9)
            axis.annotate(true, (0.5, 0), xytext=(0, -3), **under)
            axis.annotate(taken, (0.5, 0), xytext=(0, -15), color=console.VERMILION, **under)
            axis.annotate(file, (0.5, 0), xytext=(0, -27), color="gray", **under)
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
        _save(figure, path)


def longest(names: Sequence[str]) -> int:
    """Columns of a terminal that the longest of the names takes as it is shown; 0 without names."""
    return max((cell_len(_short(name)) for name in names), default=0)


def _short(name: str) -> str:
    name = printable(name)
    return name if len(name) <= 24 else name[:23] + "…"
