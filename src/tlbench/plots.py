"""Pictures of runs. No TensorFlow."""

import itertools
import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from tlbench import console
from tlbench.run import atomic

matplotlib.use("agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator

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


def _save(figure: Any, path: Path) -> None:
    with atomic(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:])
    plt.close(figure)


def curves(history: Sequence[Mapping[str, Any]], title: str, path: Path) -> None:
    """Accuracy and loss over epochs, training and validation, with a line where a stage begins."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
        for axis, name in zip(axes, ("accuracy", "loss"), strict=True):
            _training_and_validation(axis, history, name)
            axis.set(title=name, xlabel="epoch")
        axes[1].set_ylim(bottom=0)
        axes[0].legend(loc="lower right")
        figure.suptitle(title, x=0.01, ha="left")
        _save(figure, path)


def all_curves(histories: Sequence[tuple[str, Sequence[Mapping[str, Any]]]], path: Path) -> None:
    """Curves of several runs, a column each: accuracy above, loss below, on scales they share.

    histories: (name, records of its epochs), at least one; five stand in a row.
    """
    across = min(len(histories), 5)
    rows = 2 * math.ceil(len(histories) / across)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            rows,
            across,
            figsize=(2.7 * across + 0.6, 2.2 * rows + 0.3),
            layout="constrained",
            squeeze=False,
        )
        for i, (name, history) in enumerate(histories):
            pair = [axes[2 * (i // across) + below, i % across] for below in (0, 1)]
            for axis, measure in zip(pair, ("accuracy", "loss"), strict=True):
                _training_and_validation(axis, history, measure)
                axis.tick_params(labelsize=8)
            pair[0].set_title("\n".join(textwrap.wrap(name, 26)), fontsize=10)
            pair[1].set_xlabel("epoch", fontsize=9)
        _share_scales(axes, len(histories))
        axes[0, 0].legend(loc="lower right", fontsize=8)
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


def _training_and_validation(axis: Any, history: Sequence[Mapping[str, Any]], measure: str) -> None:
    """Both curves of a measure over epochs, with a dotted line where a stage begins."""
    epochs = [record["epoch"] for record in history]
    for prefix, label, color, marker in (
        ("", "training", console.BLUE, "o"),
        ("val_", "validation", console.VERMILION, "s"),
    ):
        values = [record[prefix + measure] for record in history]
        axis.plot(epochs, values, color=color, marker=marker, markersize=4, label=label)
    for before, after in itertools.pairwise(history):
        if before["stage"] != after["stage"]:
            axis.axvline(after["epoch"] - 0.5, color="gray", linestyle=":")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))


def confusion_matrix(
    counts: np.ndarray, class_names: Sequence[str], title: str, path: Path
) -> None:
    """Share of each true class (row) that was predicted as each class (column); counts in small ones."""
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    classes = len(class_names)
    side = float(np.clip(2.2 + 0.34 * classes, 4.5, 22))
    with plt.rc_context({**STYLE, "axes.grid": False}):
        figure, axis = plt.subplots(figsize=(side + 1, side), layout="constrained")
        image = axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
        size = 9 if classes <= 30 else 5
        axis.set_xticks(
            range(classes), [_short(n) for n in class_names], rotation=90, fontsize=size
        )
        axis.set_yticks(range(classes), [_short(n) for n in class_names], fontsize=size)
        axis.set(xlabel="predicted", ylabel="true", title=title)
        if classes <= 30:
            for row, column in zip(*np.nonzero(counts), strict=True):
                color = "white" if share[row, column] > 0.6 else "black"
                axis.text(
                    *(column, row, str(counts[row, column])),
                    **{"ha": "center", "va": "center", "color": color, "fontsize": 7},
                )
        figure.colorbar(image, ax=axis, shrink=0.7, label="share of the true class")
        _save(figure, path)


def _short(name: str) -> str:
    return name if len(name) <= 24 else name[:23] + "…"
