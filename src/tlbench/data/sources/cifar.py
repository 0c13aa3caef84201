"""CIFAR-10 and CIFAR-100: their official files, or Keras's own download of them."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tlbench.base.errors import DataError
from tlbench.base.muted import muted_stdout
from tlbench.config.schema import Data
from tlbench.data.images import ArrayImages
from tlbench.data.index import existing
from tlbench.data.resize import Resize
from tlbench.data.sources import Contents

log = logging.getLogger(__name__)

Parts = dict[str, tuple[np.ndarray, np.ndarray]]  # "train" and "test" -> pixels and labels


@dataclass(frozen=True)
class Cifar:
    """One labelling of one of the sets: its official folder, the files of each part, and the labels' key."""

    folder: str
    files: Mapping[str, list[str]]
    key: str
    loader: str  # of keras.datasets

    def read(self, cfg: Data, resize: Resize) -> Contents:
        """32 x 32 RGB in 0-255, in the official split; from data.root, or through Keras."""
        del resize
        parts = _official(existing(cfg.root), self) if cfg.root else _downloaded(self, cfg)
        pixels = np.concatenate([parts["train"][0], parts["test"][0]])
        labels = np.concatenate([parts["train"][1], parts["test"][1]]).astype(np.int64).ravel()
        part = np.full(len(labels), "", dtype="U10")
        part[len(parts["train"][1]) :] = "test"
        return Contents(ArrayImages.of(np.ascontiguousarray(pixels)), labels, part)


_HUNDRED = ("cifar-100-python", {"train": ["train"], "test": ["test"]})
CIFAR100_COARSE = Cifar(*_HUNDRED, "coarse_labels", "cifar100")
CIFAR100_FINE = Cifar(*_HUNDRED, "fine_labels", "cifar100")
_TEN = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}
CIFAR10 = Cifar("cifar-10-batches-py", _TEN, "labels", "cifar10")


def _official(root: Path, cifar: Cifar) -> Parts:
    """The pickled batches that the data set's authors publish, read without running any of it."""
    # Keras's reader admits NumPy arrays and nothing else from a pickle.
    from keras.src.datasets.cifar import load_batch

    folder = cifar.folder
    base = root / folder if (root / folder).is_dir() else root
    parts = {}
    for part, names in cifar.files.items():
        batches = []
        for name in names:
            if not (base / name).is_file():
                raise DataError(
                    f"data.root={root} has no file '{name}' of {folder}. For your own pictures add data=image_folder; "
                    f"otherwise expected is the official {folder} folder, or its parent."
                )
            try:
                pixels, labels = load_batch(str(base / name), label_key=cifar.key)
            except Exception as error:  # a damaged pickle raises nearly anything
                raise DataError(
                    f"{base / name} is damaged or not a batch of {folder} ({error})."
                ) from error
            batches.append((pixels.transpose(0, 2, 3, 1), np.asarray(labels)))
        parts[part] = (
            np.concatenate([b[0] for b in batches]),
            np.concatenate([b[1] for b in batches]),
        )
    return parts


def _downloaded(cifar: Cifar, cfg: Data) -> Parts:
    """Keras's loader: downloads with a hash check, keeps the files under ~/.keras."""
    import keras

    module = getattr(keras.datasets, cifar.loader)
    options = {} if cifar is CIFAR10 else {"label_mode": cifar.key.partition("_")[0]}
    log.info("Loading %s through Keras (downloaded once, kept under ~/.keras)", cifar.loader)
    try:
        with muted_stdout():
            train, test = module.load_data(**options)
    except Exception as error:  # Keras raises a bare Exception when the network is not there
        raise DataError(
            f"{cfg.name} could not be downloaded ({error}). Set data.root to a folder that holds its official "
            "files, or train on data=digits, which needs no network."
        ) from error
    return {"train": train, "test": test}
