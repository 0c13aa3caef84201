"""Where images come from: scikit-learn's digits, CIFAR's official files, folders of image files."""

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tlbench.base.errors import DataError
from tlbench.config import schema
from tlbench.data import images, index
from tlbench.data.images import ArrayImages, Images
from tlbench.data.index import existing

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Contents:
    """What a source holds before it is split; `part` says which split a row is bound to, or ""."""

    images: Images
    labels: np.ndarray
    part: np.ndarray
    class_names: list[str] | None = None
    unreadable: tuple[str, ...] = ()


def class_names(cfg: schema.Data) -> list[str]:
    """The classes, in label order, without reading an image."""
    return index.class_names(cfg)


def check(cfg: schema.Data) -> None:
    """Raise DataError at once where data.root cannot be what its source reads."""
    if cfg.source == "image_folder":
        index.check(cfg)
    elif cfg.root:
        existing(cfg.root)


def _digits(cfg: schema.Data, image_size: int) -> Contents:
    """scikit-learn's embedded digits: 8 x 8 gray in 0-16, brought to RGB in 0-255."""
    del cfg, image_size
    from sklearn.datasets import load_digits

    digits = load_digits()
    gray = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    pixels = np.repeat(gray[..., None], 3, axis=-1)
    return _unbound(ArrayImages.of(pixels), digits.target)


def _unbound(table: Images, labels: np.ndarray) -> Contents:
    return Contents(table, labels.astype(np.int64), np.full(len(table), "", dtype="U10"))


def _cifar(
    folder: str,
    files: dict[str, list[str]],
    key: str,
    loader: str,
    cfg: schema.Data,
    image_size: int,
) -> Contents:
    """CIFAR in its official layout under data.root, or through Keras's own download."""
    del image_size
    parts = (
        _official(existing(cfg.root), folder, files, key)
        if cfg.root
        else _downloaded(loader, key, cfg)
    )
    pixels = np.concatenate([parts["train"][0], parts["test"][0]])
    labels = np.concatenate([parts["train"][1], parts["test"][1]]).astype(np.int64).ravel()
    part = np.full(len(labels), "", dtype="U10")
    part[len(parts["train"][1]) :] = "test"
    return Contents(ArrayImages.of(np.ascontiguousarray(pixels)), labels, part)


def _official(
    root: Path, folder: str, files: dict[str, list[str]], key: str
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The pickled batches that the data set's authors publish, read without running any of it."""
    # Keras's reader admits NumPy arrays and nothing else from a pickle.
    from keras.src.datasets.cifar import load_batch

    base = root / folder if (root / folder).is_dir() else root
    parts = {}
    for part, names in files.items():
        batches = []
        for name in names:
            if not (base / name).is_file():
                raise DataError(
                    f"data.root={root} has no file '{name}' of {folder}. For your own pictures add data=image_folder; "
                    f"otherwise expected is the official {folder} folder, or its parent."
                )
            try:
                pixels, labels = load_batch(str(base / name), label_key=key)
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


def _downloaded(
    loader: str, key: str, cfg: schema.Data
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Keras's loader: downloads with a hash check, keeps the files under ~/.keras."""
    import keras

    module = getattr(keras.datasets, loader)
    options = {} if loader == "cifar10" else {"label_mode": key.partition("_")[0]}
    log.info("Loading %s through Keras (downloaded once, kept under ~/.keras)", loader)
    try:
        train, test = module.load_data(**options)
    except Exception as error:  # Keras raises a bare Exception when the network is not there
        raise DataError(
            f"{cfg.name} could not be downloaded ({error}). Set data.root to a folder that holds its official "
            "files, or train on data=digits, which needs no network."
        ) from error
    return {"train": train, "test": test}


_CIFAR100 = ("cifar-100-python", {"train": ["train"], "test": ["test"]})
_CIFAR10 = (
    "cifar-10-batches-py",
    {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]},
)


def _image_folder(cfg: schema.Data, image_size: int) -> Contents:
    """One folder a class, or a folder a split with one folder a class each."""
    found = index.index(cfg)
    paths = found.paths
    log.info("Reading %s images in %d classes", f"{len(paths):,}", len(found.class_names))
    if found.left_out:
        log.warning("%s", found.left_out)
    table, good, unreadable = images.read(
        paths, image_size, cfg.resize, cfg.memory_limit_gb * 2**30
    )
    unreadable = [*found.unreadable, *unreadable]
    if unreadable and cfg.unreadable == "refuse":
        raise DataError(
            f"{len(unreadable)} of {len(paths) + len(found.unreadable)} images cannot be read, the first: "
            f"{unreadable[0]} Mend or remove them, or set data.unreadable=skip."
        )
    if found.missed and cfg.unreadable == "refuse":
        raise DataError(f"{found.left_out}. Mend that, or set data.unreadable=skip.")
    return Contents(
        table,
        np.asarray(found.labels, np.int64)[good],
        np.asarray(found.parts, dtype="U10")[good],
        found.class_names,
        tuple(unreadable),
    )


SOURCES: dict[str, Callable[[schema.Data, int], Contents]] = {
    "cifar100_coarse": functools.partial(_cifar, *_CIFAR100, "coarse_labels", "cifar100"),
    "cifar100_fine": functools.partial(_cifar, *_CIFAR100, "fine_labels", "cifar100"),
    "cifar10": functools.partial(_cifar, *_CIFAR10, "labels", "cifar10"),
    "digits": _digits,
    "image_folder": _image_folder,
}
