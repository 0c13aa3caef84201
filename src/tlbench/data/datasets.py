"""Data sets: loads one, splits it once, and records what it holds."""

import functools
import hashlib
from dataclasses import dataclass

import numpy as np

from tlbench.base.errors import ConfigError, DataError, suggest
from tlbench.config import schema
from tlbench.data.images import Images
from tlbench.data.sources import SOURCES, Contents

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

    @property
    def test_sha256(self) -> str:
        """64 hexadecimal digits over class names, test images and their labels, whatever is trained on."""
        digest = hashlib.sha256("\0".join(self.class_names).encode())
        digest.update(self.images.ids[self.splits["test"]].tobytes())
        digest.update(self.labels_of("test").tobytes())
        return digest.hexdigest()

    @property
    def repeated(self) -> int:
        """How many images of the splits are equal to another one before them."""
        ids = self.images.ids[np.concatenate(list(self.splits.values()))]
        return len(ids) - len(np.unique(ids))

    @property
    def contradictory(self) -> int:
        """How many different images of the splits stand in more than one class."""
        rows = np.concatenate(list(self.splits.values()))
        pairs = np.unique(np.rec.fromarrays([self.images.ids[rows], self.labels[rows]]))
        return len(pairs) - len(np.unique(self.images.ids[rows]))

    def ids_of(self, split: str) -> np.ndarray:
        """The images' digests of one split, in its order."""
        return self.images.ids[self.splits[split]]

    def labels_of(self, split: str) -> np.ndarray:
        """The labels of one split, in its order."""
        return self.labels[self.splits[split]]


def load(cfg: schema.Data, image_size: int) -> Dataset:
    """Read, check and split a data set.

    image_size: the side, in pixels, that image files are resized to when data.image_size is null.
    Raises DataError naming what is missing, unreadable or too small.
    """
    names, loaded = _read(cfg, image_size)
    if len(names) < 2:
        raise DataError(
            f"{cfg.root or cfg.name} holds {len(names)} class ({', '.join(names) or 'none'}). "
            "A classifier needs at least 2: one folder a class."
        )
    splits = _split(cfg, loaded, names)
    _check_trained(names, loaded.labels[splits["train"]])
    return Dataset(names, loaded.images, loaded.labels, splits, list(loaded.unreadable))


def load_for_testing(
    cfg: schema.Data, image_size: int, test_ids: np.ndarray | None, *, every: bool
) -> Dataset:
    """As `load`, for a model that is there already; the other splits are empty, and one class will do.

    The test images are all of them (`every`), else those with `test_ids` where all of these are there, else
    the split that the data set brings or draws.
    """
    names, loaded = _read(cfg, image_size)
    test = np.arange(len(loaded.labels)) if every else _rows_of(test_ids, loaded)
    if test is None:
        test = _split(cfg, loaded, names)["test"]
    none = np.array([], np.int64)
    splits = {"train": none, "validation": none, "test": test}
    return Dataset(names, loaded.images, loaded.labels, splits, list(loaded.unreadable))


def _rows_of(wanted: np.ndarray | None, loaded: Contents) -> np.ndarray | None:
    """The rows that hold the wanted images, in their order; None where one is missing."""
    ids = loaded.images.ids
    if wanted is None or not len(wanted) or not np.isin(wanted, ids).all():
        return None
    order = np.lexsort(
        (loaded.part != "test", ids)
    )  # of equal images one that is bound to be tested
    return order[np.searchsorted(ids, wanted, sorter=order)]


def _read(cfg: schema.Data, image_size: int) -> tuple[list[str], Contents]:
    """Class names and what the source holds, checked against each other."""
    if cfg.source not in SOURCES:
        raise ConfigError(f"Unknown data.source '{cfg.source}'. {suggest(cfg.source, SOURCES)}")
    loaded = SOURCES[cfg.source](cfg, cfg.image_size or image_size)
    names = list(cfg.class_names or loaded.class_names or [])
    _check_classes(names, loaded.labels)
    return names, loaded


# ---------------------------------------------------------------- splits


def _split(cfg: schema.Data, loaded: Contents, names: list[str]) -> dict[str, np.ndarray]:
    """Rows of each split: what the source bound stays, the rest is drawn, stratified by class.

    Equal images are drawn together: none is trained on that is tested with.
    """
    free, test, validation = (np.flatnonzero(loaded.part == p) for p in ("", "test", "validation"))
    if cfg.test is not None and not len(test):
        free, test = _draw(cfg, loaded, free, cfg.test, names, "data.test")
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
            _sample(cfg, loaded, rows, share, names) for rows in (free, validation, test)
        )
    train = free
    if not len(validation):
        train, validation = _draw(cfg, loaded, free, cfg.validation, names, "data.validation")
    return {"train": train, "validation": validation, "test": test}


def _sample(
    cfg: schema.Data, loaded: Contents, rows: np.ndarray, share: float, names: list[str]
) -> np.ndarray:
    """A share of the rows, with the classes in the same proportions."""
    if not len(rows):
        return rows
    count = max(len(np.unique(loaded.labels[rows])), round(share * len(rows)))
    return rows if count >= len(rows) else _draw(cfg, loaded, rows, count, names, "data.limit")[1]


def _draw(
    cfg: schema.Data,
    loaded: Contents,
    rows: np.ndarray,
    amount: float,
    names: list[str],
    setting: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Split rows in two, sorted: the rest, and `amount` (a share or a count) with every class in it."""
    from sklearn.model_selection import train_test_split

    _, first, kind = np.unique(loaded.images.ids[rows], return_index=True, return_inverse=True)
    distinct = rows[np.sort(first)]
    count = int(amount) if amount >= 1 else max(1, round(amount * len(rows)))
    present = np.unique(loaded.labels[rows])
    sizes = np.bincount(loaded.labels[distinct], minlength=len(names))[present]
    if (least := sizes.min()) < 2:
        scarce = names[present[sizes.argmin()]]
        raise DataError(
            f"Class '{scarce}' has {least} image{'' if least == 1 else 's'} to split by "
            f"{setting}={_short(amount)}; it needs at least 2 (3 with a test share), equal ones counted "
            "once. Add images or leave the class out."
        )
    share = max(1, round(count * len(distinct) / len(rows)))
    if not len(present) <= share <= len(distinct) - len(present):
        raise DataError(
            f"{setting}={_short(amount)} takes {count} of {len(rows)} images, which does not leave each of "
            f"{len(present)} classes an image on both sides. Change {setting} or add images."
        )
    _, chosen = train_test_split(
        distinct, test_size=share, stratify=loaded.labels[distinct], random_state=cfg.split_seed
    )
    drawn = np.isin(loaded.images.ids[rows], loaded.images.ids[chosen])
    _settle(drawn, count, alone=np.bincount(kind)[kind] == 1, labels=loaded.labels[rows])
    return rows[~drawn], rows[drawn]


def _settle(drawn: np.ndarray, count: int, *, alone: np.ndarray, labels: np.ndarray) -> None:
    """Move images without an equal from side to side until `count` are drawn, each class left on both.

    drawn, alone: (rows,) bool; `drawn` is changed.
    """
    surplus = drawn.sum() > count
    for row in np.flatnonzero(alone & (drawn == surplus)):
        if drawn.sum() == count:
            return
        if (labels[drawn == surplus] == labels[row]).sum() > 1:
            drawn[row] = not surplus


def _short(amount: float) -> str:
    return str(int(amount) if amount >= 1 else amount)


def _check_trained(names: list[str], labels: np.ndarray) -> None:
    if missing := sorted(set(range(len(names))) - set(np.unique(labels).tolist())):
        others = f", nor have {len(missing) - 1} other classes" if len(missing) > 1 else ""
        raise DataError(
            f"Class '{names[missing[0]]}' has images, but none to train on{others}. "
            "Add some to its training folder or leave the class out."
        )


def _check_classes(names: list[str], labels: np.ndarray) -> None:
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
