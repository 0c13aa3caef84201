"""What a finished run left behind besides its figures: epochs and predictions, read with care."""

import csv
import io
import math
from pathlib import Path

import numpy as np

from tlbench.base import files
from tlbench.base.errors import RunError
from tlbench.runs.run import Run

CURVES = ("accuracy", "val_accuracy", "loss", "val_loss")
# No run of ours comes near.
HISTORY_BYTES, PREDICTIONS_BYTES = 2**24, 2**30
GREATEST = 1e100  # of a loss; beyond it a chart has no scale


def history(folder: Path) -> list[dict[str, float | str]]:
    """history.csv, a record an epoch: `epoch`, `stage` and the curves as numbers.

    Raises RunError when the file is missing or damaged.
    """
    path = Run.open(folder).file("history.csv")
    try:
        text = files.read_text(path, HISTORY_BYTES)
        records = [_epoch(line) for line in csv.DictReader(io.StringIO(text, newline=""))]
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise RunError(f"{path} is damaged ({error}).") from None
    if not records:
        raise RunError(f"{path} is damaged (it holds no epoch).")
    return records


def _epoch(line: dict[str, str]) -> dict[str, float | str]:
    values = {key: float(line[key]) for key in CURVES}
    values = {key: value if abs(value) <= GREATEST else math.nan for key, value in values.items()}
    epoch = int(line["epoch"])
    if not 0 < epoch < 2**31:
        raise ValueError(f"epoch {line['epoch'][:20]} is no count")
    return {"epoch": epoch, "stage": line["stage"], **values}


def predictions(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Test labels, (images,), and the probabilities given to them, (images, classes), in one order.

    Raises RunError when predictions.npz is missing or damaged; nothing in it is unpickled.
    """
    path = Run.open(folder).file("predictions.npz")
    try:
        saved = files.read_arrays(path, PREDICTIONS_BYTES)
        labels, probabilities = saved["labels"], saved["probabilities"]
    except (OSError, ValueError, KeyError) as error:
        raise RunError(f"{path} is damaged ({error}).") from None
    fits = probabilities.ndim == 2 and labels.shape == probabilities.shape[:1] and len(labels)
    whole = np.issubdtype(labels.dtype, np.integer) and np.issubdtype(
        probabilities.dtype, np.floating
    )
    if not (fits and whole and 0 <= labels.min() <= labels.max() < probabilities.shape[1]):
        raise RunError(f"{path} is damaged (labels and probabilities do not fit each other).")
    return labels, probabilities


def image_ids(folder: Path) -> dict[str, np.ndarray]:
    """Digests of the images that a run was made from, by split; empty where a run kept none.

    Raises RunError when images.npz is damaged.
    """
    run = Run.open(folder)
    if "images.npz" not in run.manifest.get("files", {}):
        return {}  # a run of an older version, or one that ended before it had read its data
    path = run.file("images.npz")
    try:
        saved = files.read_arrays(path, PREDICTIONS_BYTES)
        return {name: saved[name].astype("S16") for name in ("train", "validation", "test")}
    except (OSError, ValueError, KeyError) as error:
        raise RunError(f"{path} is damaged ({error}).") from None
