"""What a finished run left behind besides its figures: epochs, predictions and its images, read with care.

What is read may be forged: readers raise RunError for what no run of ours has written.
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from tlbench.base import files
from tlbench.base.errors import RunError
from tlbench.base.labels import names
from tlbench.runs import metrics, multilabel
from tlbench.runs.layout import ASKED_FOR, CURVES_OF_HISTORY, SPLITS

# No run of ours comes near.
HISTORY_BYTES, ARRAYS_BYTES = 2**24, 2**30
GREATEST = 1e100  # of a loss; beyond it a chart has no scale

Epoch = dict[str, float | str]


def epochs(path: Path) -> list[Epoch]:
    """history.csv, a record an epoch: `epoch`, `stage` and the curves as numbers; `strength` of a solved head, and
    what else was monitored."""
    try:
        text = files.read_text(path, HISTORY_BYTES)
        found = [_epoch(line) for line in csv.DictReader(io.StringIO(text, newline=""))]
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise RunError(f"{path} is damaged ({error}).") from None
    if not found:
        raise RunError(f"{path} is damaged (it holds no epoch).")
    return found


def _epoch(line: dict[str, str]) -> Epoch:
    asked_for = [key for key in ASKED_FOR if line.get(key)]
    values = {key: float(line[key]) for key in (*CURVES_OF_HISTORY, *asked_for)}
    values = {key: value if abs(value) <= GREATEST else math.nan for key, value in values.items()}
    epoch = int(line["epoch"])
    if not 0 < epoch < 2**31:
        raise ValueError(f"epoch {line['epoch'][:20]} is no count")
    strength = {"strength": float(line["strength"])} if line.get("strength") else {}
    return {"stage": line["stage"], "epoch": epoch, **strength, **values}


def predictions(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """predictions.npz: labels, (images,), and the probabilities given, (images, classes), in one order.

    Where an image may have several classes labels are (images, classes), too.
    """
    saved = _arrays(path, ("labels", "probabilities"))
    labels, probabilities = saved["labels"], saved["probabilities"]
    one = labels.ndim == 1
    fits = probabilities.ndim == 2 and len(labels) == len(probabilities) > 0
    fits = fits and (one or labels.shape == probabilities.shape)
    whole = np.issubdtype(labels.dtype, np.integer) and np.issubdtype(
        probabilities.dtype, np.floating
    )
    most = probabilities.shape[-1] if one else 2
    if not (fits and whole and 0 <= labels.min() <= labels.max() < most):
        raise RunError(f"{path} is damaged (labels and probabilities do not fit each other).")
    return labels, probabilities


def image_ids(path: Path) -> dict[str, np.ndarray]:
    """images.npz: digests of the images that a run was made from, by split."""
    return {name: ids.astype("S16") for name, ids in _arrays(path, SPLITS).items()}


def split_files(path: Path) -> dict[str, list[str]]:
    """images.csv: the paths of the images that a run was made from, by split, in its order."""
    found: dict[str, list[str]] = {split: [] for split in SPLITS}
    try:
        text = files.read_text(path, ARRAYS_BYTES)
        for line in csv.DictReader(io.StringIO(text, newline="")):
            found[line["split"]].append(line["path"])
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise RunError(f"{path} is damaged ({error}).") from None
    return found


def _arrays(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    try:
        saved = files.read_arrays(path, ARRAYS_BYTES)
        return {name: saved[name] for name in names}
    except (OSError, ValueError, KeyError) as error:
        raise RunError(f"{path} is damaged ({error}).") from None


# ---------------------------------------------------------------- for people


def named(
    labels: np.ndarray,
    probabilities: np.ndarray,
    class_names: Sequence[str],
    thresholds: np.ndarray | None,
) -> dict[str, np.ndarray]:
    """Predictions with names for numbers, a column each; confidence: of several classes in the least sure answer."""
    taken = metrics.taken(probabilities, thresholds)
    one = thresholds is None
    return {
        "true": np.array(names(labels, class_names)),
        "predicted": np.array(names(taken, class_names)),
        "confidence": probabilities.max(axis=1)
        if one
        else multilabel.sureness(probabilities, taken).min(axis=1),
        **{f"p({name})": probabilities[:, i] for i, name in enumerate(class_names)},
    }


def as_table(columns: Mapping[str, Sequence[Any] | np.ndarray]) -> Any:
    """A pandas DataFrame where it is installed, else a dict of arrays."""
    if find_spec("pandas") is None:
        return {name: np.asarray(values) for name, values in columns.items()}
    import pandas

    return pandas.DataFrame(dict(columns))
