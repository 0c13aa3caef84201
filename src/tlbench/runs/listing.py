"""Tables with a line for each picture: which split it is in, and what it was taken for."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tlbench.base.files import CsvLines, inert
from tlbench.base.labels import name, names
from tlbench.base.text import printable
from tlbench.runs import metrics

MANY = 200  # classes


def splits(
    files: Sequence[str],
    labels: np.ndarray,
    rows: Mapping[str, np.ndarray],
    class_names: Sequence[str],
    columns: Mapping[str, Sequence[Any]],
) -> str:
    """CSV with path, split and label of every picture, split by split, and what else is said of it.

    rows: of each split. `data=table data.table=...` reads it, and comes to the same splits.
    """
    others = {
        head: cells for head, cells in columns.items() if head not in ("path", "split", "label")
    }
    return table(
        ["path", "split", "label", *others],
        (
            [
                writable(files[row]),
                split,
                name(labels[row], class_names),
                *(c[row] for c in others.values()),
            ]
            for split, some in rows.items()
            for row in some
        ),
    )


def predictions(
    files: Sequence[str],
    split: Sequence[str],
    labels: np.ndarray,
    probabilities: np.ndarray,
    class_names: Sequence[str],
    thresholds: np.ndarray | None,
) -> str:
    """CSV with path, split, label, prediction and a probability for each class, a line a picture, in their order.

    Of very many classes the greatest probability alone, `confidence`: all of them would be gigabytes of text.
    """
    true, taken = (
        [inert(each) for each in names(some, class_names)]
        for some in (labels, metrics.taken(probabilities, thresholds))
    )
    heads = [f"p({inert(each)})" for each in class_names]
    if len(class_names) > MANY:
        heads, probabilities = ["confidence"], probabilities.max(axis=1, keepdims=True)
    return table(
        ["path", "split", "label", "prediction", *heads],
        (
            [inert(file), *said, *(f"{p:.6g}" for p in shares.tolist())]
            for file, *said, shares in zip(files, split, true, taken, probabilities, strict=True)
        ),
    )


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """CSV of cells as they are."""
    text = io.StringIO(newline="")
    writer = csv.writer(CsvLines(text))
    writer.writerow(head)
    writer.writerows(lines)
    return text.getvalue()


def writable(file: str) -> str:
    """A path as it is, but for bytes that UTF-8 cannot hold."""
    try:
        file.encode()
    except UnicodeEncodeError:
        return printable(file)
    return file
