"""Which rows are trained on, validated and tested with: drawn once, stratified, equal images together."""

import numpy as np

from tlbench.base.errors import DataError
from tlbench.config.schema import Data
from tlbench.data.sources import Contents


def split(cfg: Data, loaded: Contents, names: list[str]) -> dict[str, np.ndarray]:
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
    cfg: Data, loaded: Contents, rows: np.ndarray, share: float, names: list[str]
) -> np.ndarray:
    """A share of the rows, with the classes in the same proportions."""
    if not len(rows):
        return rows
    count = max(len(np.unique(loaded.labels[rows])), round(share * len(rows)))
    return rows if count >= len(rows) else _draw(cfg, loaded, rows, count, names, "data.limit")[1]


def _draw(
    cfg: Data,
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
