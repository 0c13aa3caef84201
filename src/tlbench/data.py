"""Data sets: loads one, splits it once, and records what it holds."""

import functools
import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tlbench import config, images
from tlbench.config import suggest
from tlbench.errors import ConfigError, DataError
from tlbench.images import ArrayImages, Images

log = logging.getLogger(__name__)

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Dataset:
    """Images with labels, and the rows of each split; the splits share no row."""

    class_names: list[str]
    images: Images
    labels: np.ndarray  # (images,), int64 in 0 to classes-1
    splits: dict[str, np.ndarray]  # rows of "train", "validation" and "test"
    unreadable: list[str]  # a line for each file that was left out

    @functools.cached_property
    def sha256(self) -> str:
        """64 hexadecimal digits over images, labels, class names and splits."""
        digest = hashlib.sha256("\0".join(self.class_names).encode())
        for array in (self.images.ids, self.labels, *(self.splits[name] for name in SPLITS)):
            digest.update(array.tobytes())
        return digest.hexdigest()

    @property
    def fingerprint(self) -> str:
        """The first 16 digits of `sha256`: enough to tell data sets apart."""
        return self.sha256[:16]

    def labels_of(self, split: str) -> np.ndarray:
        """The labels of one split, in its order."""
        return self.labels[self.splits[split]]


@dataclass(frozen=True)
class Loaded:
    """What a source holds before it is split; `part` says which split a row is bound to, or ""."""

    images: Images
    labels: np.ndarray
    part: np.ndarray
    class_names: list[str] | None = None
    unreadable: tuple[str, ...] = ()


def class_names(cfg: config.Data) -> list[str]:
    """The classes, in label order, without reading an image."""
    if cfg.class_names is not None:
        return list(cfg.class_names)
    return _folder_classes(_folder_parts(_existing(cfg.root)))


def load(cfg: config.Data, image_size: int) -> Dataset:
    """Read, check and split a data set.

    image_size: the side, in pixels, that image files are resized to when data.image_size is null.
    Raises DataError naming what is missing, unreadable or too small.
    """
    names, loaded = _read(cfg, image_size)
    splits = _split(cfg, loaded, names)
    return Dataset(names, loaded.images, loaded.labels, splits, list(loaded.unreadable))


def load_for_testing(cfg: config.Data, image_size: int) -> Dataset:
    """As `load`, with every image a test image: for data that the model was not made from."""
    names, loaded = _read(cfg, image_size)
    none = np.array([], np.int64)
    splits = {"train": none, "validation": none, "test": np.arange(len(loaded.labels))}
    return Dataset(names, loaded.images, loaded.labels, splits, list(loaded.unreadable))


def _read(cfg: config.Data, image_size: int) -> tuple[list[str], Loaded]:
    """Class names and what the source holds, checked against each other."""
    if cfg.source not in SOURCES:
        raise ConfigError(f"Unknown data.source '{cfg.source}'. {suggest(cfg.source, SOURCES)}")
    loaded = SOURCES[cfg.source](cfg, cfg.image_size or image_size)
    names = list(cfg.class_names or loaded.class_names or [])
    _check_classes(cfg, names, loaded.labels)
    return names, loaded


# ---------------------------------------------------------------- splits


def _split(cfg: config.Data, loaded: Loaded, names: list[str]) -> dict[str, np.ndarray]:
    """Rows of each split: what the source bound stays, the rest is drawn, stratified by class."""
    free, test, validation = (np.flatnonzero(loaded.part == p) for p in ("", "test", "validation"))
    if cfg.test is not None and not len(test):
        free, test = _draw(cfg, loaded.labels, free, cfg.test, names, "data.test")
    if not len(test):
        raise DataError("There are no test images. Set data.test to a share of them, such as 0.2.")
    if cfg.limit is not None and cfg.limit < 2 * len(names):
        raise DataError(
            f"data.limit={cfg.limit} is too few for {len(names)} classes. Expected at least "
            f"{2 * len(names)}: one image of each for training and one for validation."
        )
    if cfg.limit is not None and cfg.limit < len(free) + len(validation):
        share = cfg.limit / (len(free) + len(validation))
        free, validation, test = (
            _sample(cfg, loaded.labels, rows, share, names) for rows in (free, validation, test)
        )
    train = free
    if not len(validation):
        train, validation = _draw(
            cfg, loaded.labels, free, cfg.validation, names, "data.validation"
        )
    return {"train": train, "validation": validation, "test": test}


def _sample(
    cfg: config.Data, labels: np.ndarray, rows: np.ndarray, share: float, names: list[str]
) -> np.ndarray:
    """A share of the rows, with the classes in the same proportions."""
    if not len(rows):
        return rows
    count = max(len(np.unique(labels[rows])), round(share * len(rows)))
    return rows if count >= len(rows) else _draw(cfg, labels, rows, count, names, "data.limit")[1]


def _draw(
    cfg: config.Data,
    labels: np.ndarray,
    rows: np.ndarray,
    amount: float,
    names: list[str],
    setting: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Split rows in two, sorted: the rest, and `amount` (a share or a count) with every class in it."""
    from sklearn.model_selection import train_test_split

    count = int(amount) if amount >= 1 else max(1, round(amount * len(rows)))
    present, sizes = np.unique(labels[rows], return_counts=True)
    if sizes.min() < 2:
        scarce = names[present[sizes.argmin()]]
        raise DataError(
            f"Class '{scarce}' has {sizes.min()} image to split by {setting}={_short(amount)}; it needs at least 2 "
            "(3 with a test share). Add images or leave the class out."
        )
    if not len(present) <= count <= len(rows) - len(present):
        raise DataError(
            f"{setting}={_short(amount)} takes {count} of {len(rows)} images, which does not leave each of "
            f"{len(present)} classes an image on both sides. Change {setting} or add images."
        )
    rest, drawn = train_test_split(
        rows, test_size=count, stratify=labels[rows], random_state=cfg.split_seed
    )
    return np.sort(rest), np.sort(drawn)


def _short(amount: float) -> str:
    return str(int(amount) if amount >= 1 else amount)


def _check_classes(cfg: config.Data, names: list[str], labels: np.ndarray) -> None:
    if len(names) < 2:
        raise DataError(
            f"{cfg.root or cfg.name} holds {len(names)} class ({', '.join(names) or 'none'}). "
            "A classifier needs at least 2: one folder a class."
        )
    if len(labels) and labels.max() >= len(names):
        raise DataError(
            f"Labels go up to {labels.max()}, but data.class_names has {len(names)} names. "
            "Choose the data set that fits these files, or list every class."
        )
    if missing := sorted(set(range(len(names))) - set(np.unique(labels).tolist())):
        raise DataError(
            f"Class '{names[missing[0]]}' has no readable image"
            f"{f', nor have {len(missing) - 1} other classes' if len(missing) > 1 else ''}. "
            "Add images or leave the class out."
        )


def _existing(root: str | None) -> Path:
    path = Path(root or "")
    if not root or not path.exists():
        raise DataError(
            f"data.root={root} does not exist. Set data.root to the folder with the data."
        )
    if not path.is_dir():
        raise DataError(f"data.root={root} is a file. Set data.root to the folder with the data.")
    return path


# ---------------------------------------------------------------- sources


def _digits(cfg: config.Data, image_size: int) -> Loaded:
    """scikit-learn's embedded digits: 8 x 8 gray in 0-16, brought to RGB in 0-255."""
    del cfg, image_size
    from sklearn.datasets import load_digits

    digits = load_digits()
    gray = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    pixels = np.repeat(gray[..., None], 3, axis=-1)
    return _unbound(ArrayImages.of(pixels), digits.target)


def _unbound(table: Images, labels: np.ndarray) -> Loaded:
    return Loaded(table, labels.astype(np.int64), np.full(len(table), "", dtype="U10"))


def _cifar(
    folder: str,
    files: dict[str, list[str]],
    key: str,
    loader: str,
    cfg: config.Data,
    image_size: int,
) -> Loaded:
    """CIFAR in its official layout under data.root, or through Keras's own download."""
    del image_size
    parts = (
        _official(_existing(cfg.root), folder, files, key)
        if cfg.root
        else _downloaded(loader, key, cfg)
    )
    pixels = np.concatenate([parts["train"][0], parts["test"][0]])
    labels = np.concatenate([parts["train"][1], parts["test"][1]]).astype(np.int64).ravel()
    part = np.full(len(labels), "", dtype="U10")
    part[len(parts["train"][1]) :] = "test"
    return Loaded(ArrayImages.of(np.ascontiguousarray(pixels)), labels, part)


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
                    f"data.root={root} has no file '{name}'. Expected the official {folder} folder, or its parent."
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
    loader: str, key: str, cfg: config.Data
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


# ---------------------------------------------------------------- folders of images

_PART_NAMES = {"train": "", "validation": "validation", "val": "validation", "test": "test"}


def _image_folder(cfg: config.Data, image_size: int) -> Loaded:
    """One folder a class, or train/val/test folders with one folder a class each."""
    root = _existing(cfg.root)
    parts = _folder_parts(root)
    names = list(cfg.class_names or _folder_classes(parts))
    paths, labels, bound = [], [], []
    for part, folder in parts:
        for name in sorted(p.name for p in folder.iterdir() if _is_class(p)):
            if name not in names:
                raise DataError(
                    f"{folder / name} is no class of {', '.join(names[:20])}. Rename it or list it in data.class_names."
                )
            files = sorted(
                p
                for p in (folder / name).rglob("*")
                if p.suffix.lower() in images.SUFFIXES and p.is_file()
            )
            paths += files
            labels += [names.index(name)] * len(files)
            bound += [part] * len(files)
    if not paths:
        raise DataError(
            f"data.root={root} holds no images. Expected one folder a class with "
            f"{', '.join(sorted(images.SUFFIXES))} files."
        )
    log.info("Reading %d images in %d classes from %s", len(paths), len(names), root)
    table, good, unreadable = images.read(
        paths, image_size, cfg.resize, cfg.memory_limit_gb * 2**30
    )
    if unreadable and cfg.unreadable == "refuse":
        raise DataError(
            f"{len(unreadable)} of {len(paths)} images cannot be read, the first: {unreadable[0]} "
            "Mend or remove them, or set data.unreadable=skip."
        )
    return Loaded(
        table,
        np.asarray(labels, np.int64)[good],
        np.asarray(bound, dtype="U10")[good],
        names,
        tuple(unreadable),
    )


def _folder_parts(root: Path) -> list[tuple[str, Path]]:
    """(split it is bound to, folder of class folders) for each part under a root."""
    parts = [(split, root / name) for name, split in _PART_NAMES.items() if (root / name).is_dir()]
    return parts if any(folder.name == "train" for _, folder in parts) else [("", root)]


def _folder_classes(parts: list[tuple[str, Path]]) -> list[str]:
    """Class names in label order: the training part's folders, sorted."""
    return sorted(p.name for p in parts[0][1].iterdir() if _is_class(p))


def _is_class(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith((".", "__"))


SOURCES: dict[str, Callable[[config.Data, int], Loaded]] = {
    "cifar100_coarse": functools.partial(_cifar, *_CIFAR100, "coarse_labels", "cifar100"),
    "cifar100_fine": functools.partial(_cifar, *_CIFAR100, "fine_labels", "cifar100"),
    "cifar10": functools.partial(_cifar, *_CIFAR10, "labels", "cifar10"),
    "digits": _digits,
    "image_folder": _image_folder,
}
