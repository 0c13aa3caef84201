"""Which rows are trained on, validated and tested with: drawn once, stratified, what belongs together on one side."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tlbench.base import labels
from tlbench.base.errors import DataError
from tlbench.base.text import counted
from tlbench.config.schema import Data
from tlbench.data import groups, keyed, several
from tlbench.data.sources import Contents


def split(cfg: Data, loaded: Contents, names: list[str]) -> dict[str, np.ndarray]:
    """Rows of each split: what the source bound stays, the rest is drawn, stratified by class.

    Images of one group and equal ones are drawn together: none is trained on that is tested with. Where images have
    keys, a hash of these draws them.
    """
    together, grouped = groups.together(cfg, loaded), loaded.groups is not None
    part = keyed.part(cfg, loaded, together)
    free, test, validation = (np.flatnonzero(part == p) for p in ("", "test", "validation"))
    needed = 1 + (not len(test)) + (not len(validation))
    whole = _Rows(cfg, loaded.labels, together, grouped, names, needed)
    if cfg.folds is not None:
        free, test = whole.fold(free, test)
    elif cfg.test is not None and not len(test):
        free, test = whole.drawn(free, cfg.test, "data.test")
    if not len(test):
        raise DataError("There are no test images. Set data.test to a share of them, such as 0.2.")
    if cfg.limit is not None and cfg.limit < 2 * len(names):
        raise DataError(
            f"data.limit={cfg.limit} is too few for {len(names)} classes. Expected at least "
            f"{2 * len(names)}: one image of each for training and one for validation."
        )
    if cfg.limit is not None and cfg.limit < len(free) + len(validation):
        share = cfg.limit / (len(free) + len(validation))
        free, validation, test = (whole.sample(rows, share) for rows in (free, validation, test))
    train = free
    if len(free) and not len(validation):  # a set to test with may have nothing else
        train, validation = whole.drawn(free, cfg.validation, "data.validation")
    return {"train": train, "validation": validation, "test": test}


@dataclass(frozen=True)
class _Rows:
    """What decides how rows may be drawn."""

    cfg: Data
    labels: np.ndarray
    together: np.ndarray  # equal for rows that stay on one side
    grouped: bool  # whether there are groups beside equal images
    names: list[str]
    needed: int  # images of a class: one to train on, and one for each split that is drawn

    def sample(self, rows: np.ndarray, share: float) -> np.ndarray:
        """A share of the rows, with the classes in the same proportions."""
        if not len(rows):
            return rows
        count = max(int(np.count_nonzero(self._counts(rows))), round(share * len(rows)))
        if count >= len(rows):
            return rows
        draw = self._several if labels.several(self.labels) else self._alone
        return draw(rows, count, "data.limit")[1]

    def drawn(self, rows: np.ndarray, amount: float, setting: str) -> tuple[np.ndarray, np.ndarray]:
        """Rows in two, sorted: the rest, and `amount` of them, a share or a count; of groups about so many."""
        if labels.several(self.labels):
            return self._several(rows, amount, setting)
        if not self.grouped:
            return self._alone(rows, amount, setting)
        share = amount if amount < 1 else amount / len(rows)
        if not 0 < share < 1:
            raise DataError(f"{setting}={_short(amount)} takes all of {len(rows)} images.")
        least = min(round(1 / min(share, 1 - share)), len(np.unique(self.together[rows])))
        parts = self._parts(rows, max(2, least), setting)
        wanted = min(share, 1 - share) * self._counts(rows)
        nearest = min(parts, key=lambda part: float(abs(self._counts(part) - wanted).sum()))
        others = np.setdiff1d(rows, nearest)
        return (others, nearest) if share <= 0.5 else (nearest, others)

    def fold(self, rows: np.ndarray, bound: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The rows that are trained on, and one of `data.folds` parts to test with."""
        folds = int(self.cfg.folds or 0)
        if len(bound):
            raise DataError(
                f"data.folds={folds} draws the test images, and this data set brings its own. Set data.folds=null, or "
                "put all images into one folder or table without splits."
            )
        parts = list(self._parts(rows, folds, "data.folds"))
        if len(parts) < folds:
            raise DataError(
                f"data.folds={folds} needs a class with at least {folds} different images, and the largest has "
                f"{len(parts)} or fewer. Add images, or take fewer parts."
            )
        test = parts[self.cfg.fold]
        return np.setdiff1d(rows, test), test

    def _counts(self, rows: np.ndarray) -> np.ndarray:
        return labels.counts(self.labels[rows], len(self.names))

    def _several(
        self, rows: np.ndarray, amount: float, setting: str
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows in two, sorted, where images have several classes: the rest, and about `amount` of them."""
        kind, of_kinds = self._kinds(rows)
        sizes = labels.counts(of_kinds, len(self.names))
        present = np.flatnonzero(sizes)
        self._refuse_scarce(present, sizes[present], amount, setting)
        share = amount if amount < 1 else amount / len(rows)
        count = max(1, round(share * len(of_kinds)))
        if count >= len(of_kinds):
            raise DataError(f"{setting}={_short(amount)} takes all of {len(rows)} images.")
        chosen = np.isin(kind, several.drawn(of_kinds, count, self.cfg.split_seed))
        return rows[~chosen], rows[chosen]

    def _kinds(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which rows stay together, by a number from 0, and the classes that those of each number have."""
        _, kind = np.unique(self.together[rows], return_inverse=True)
        of_kinds = np.zeros((kind.max() + 1, len(self.names)), np.uint8)
        np.maximum.at(of_kinds, kind, self.labels[rows])
        return kind, of_kinds

    def _parts(self, rows: np.ndarray, count: int, setting: str) -> Iterator[np.ndarray]:
        """Rows in so many parts of about equal size and classes; what belongs together in one of them."""
        from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

        kinds, first, kind = np.unique(self.together[rows], return_index=True, return_inverse=True)
        if len(kinds) < count:
            what = "groups" if self.grouped else "different images"
            raise DataError(
                f"{setting} needs at least {count} {what}, and there are {len(kinds)}. Add images, or take fewer parts."
            )
        if labels.several(self.labels):
            kind, of_kinds = self._kinds(rows)
            for part in several.parts(of_kinds, count, self.cfg.split_seed):
                yield rows[np.isin(kind, part)]
            return
        options = {"shuffle": True, "random_state": self.cfg.split_seed}
        found = self.labels[rows]
        # A class with fewer images than parts is missing in some of them: that is said where it matters.
        with warnings.catch_warnings(action="ignore", category=UserWarning):
            largest = np.bincount(found if self.grouped else found[first]).max()
            count = min(count, max(2, int(largest)))
            if self.grouped:
                folds = StratifiedGroupKFold(count, **options).split(rows, found, kind)
                yield from (rows[test] for _, test in folds)
                return
            for _, test in StratifiedKFold(count, **options).split(first, found[first]):
                yield rows[np.isin(kind, kind[first[test]])]

    def _alone(
        self, rows: np.ndarray, amount: float, setting: str
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows in two, sorted: the rest, and exactly `amount` where few images are equal, with every class in it."""
        from sklearn.model_selection import train_test_split

        _, first, kind = np.unique(self.together[rows], return_index=True, return_inverse=True)
        distinct = rows[np.sort(first)]
        count = int(amount) if amount >= 1 else max(1, round(amount * len(rows)))
        present = np.unique(self.labels[rows])
        sizes = np.bincount(self.labels[distinct], minlength=len(self.names))[present]
        self._refuse_scarce(present, sizes, amount, setting)
        share = max(1, round(count * len(distinct) / len(rows)))
        if not len(present) <= share <= len(distinct) - len(present):
            raise DataError(
                f"{setting}={_short(amount)} takes {count} of {len(rows)} images, which does not leave each of "
                f"{len(present)} classes an image on both sides. Change {setting} or add images."
            )
        _, chosen = train_test_split(
            distinct,
            test_size=share,
            stratify=self.labels[distinct],
            random_state=self.cfg.split_seed,
        )
        drawn = np.isin(self.together[rows], self.together[chosen])
        _settle(drawn, count, alone=np.bincount(kind)[kind] == 1, classes=self.labels[rows])
        return rows[~drawn], rows[drawn]

    def _refuse_scarce(
        self, present: np.ndarray, sizes: np.ndarray, amount: float, setting: str
    ) -> None:
        """Raise DataError where a class is too small to be on both sides; sizes: of the classes that are present."""
        scarce = present[sizes < 2]
        if not len(scarce):
            return
        first, least = self.names[scarce[0]], int(sizes[sizes < 2][0])
        others = counted(len(scarce) - 1, "other class", "other classes")
        more = f" (and {others})" if len(scarce) > 1 else ""
        left = " left" if setting == "data.validation" and self.needed > 2 else ""
        needed = 2 if setting == "data.limit" else self.needed
        raise DataError(
            f"Class '{first}'{more} has {counted(least, 'image')}{left} to split by {setting}={_short(amount)}; "
            f"it needs at least {needed}{' in all' if left else ''}, equal ones counted once. "
            "Add images or leave the class out."
        )


def _settle(drawn: np.ndarray, count: int, *, alone: np.ndarray, classes: np.ndarray) -> None:
    """Move images without an equal from side to side until `count` are drawn, each class left on both.

    drawn, alone: (rows,) bool; `drawn` is changed.
    """
    surplus = drawn.sum() > count
    left = np.bincount(classes[drawn == surplus])  # of each class, on the side that has too many
    excess = abs(int(drawn.sum()) - count)
    for row in np.flatnonzero(alone & (drawn == surplus)):
        if not excess:
            return
        if left[classes[row]] > 1:
            drawn[row] = not surplus
            left[classes[row]] -= 1
            excess -= 1


def _short(amount: float) -> str:
    return str(int(amount) if amount >= 1 else amount)
