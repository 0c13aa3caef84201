"""Which images belong together, so that a split leaves them on one side: groups by name, and images that are equal."""

import re

import numpy as np

from tlbench.base.errors import DataError
from tlbench.base.text import printable
from tlbench.config.schema import Data
from tlbench.data import near
from tlbench.data.sources import Contents


def of(cfg: Data, loaded: Contents) -> np.ndarray | None:
    """The number of each image's group, (images,): a table's column, or what a pattern finds in its path.

    An image whose path the pattern does not fit is a group by itself. None where no group is asked for. Raises
    DataError for a pattern that cannot be used, or fits nothing.
    """
    if loaded.groups is not None or (names := named(cfg, loaded)) is None:
        return loaded.groups
    number = {name: i for i, name in enumerate(dict.fromkeys(names))}
    return np.array([number[name] for name in names])


def named(cfg: Data, loaded: Contents) -> list[tuple[str, ...]] | None:
    """("group", its name...) by the pattern on each image's path, or ("image", its path); None without a pattern."""
    if cfg.group in (None, "auto"):
        return None
    if loaded.files is None:
        raise DataError(
            f"data.group={cfg.group} is of no use: the images of {cfg.name} have no paths. Set data.group=null"
        )
    held = "group's name, such as '(patient\\d+)_', or a column of a table"
    pattern = compiled("data.group", str(cfg.group), held)
    found = [pattern.search(file) for file in loaded.files]
    if not any(found):
        raise DataError(
            f"data.group={cfg.group} fits none of {len(found):,} paths, such as {printable(loaded.files[0])}."
        )
    return [
        ("group", *match.groups()) if match else ("image", file)
        for match, file in zip(found, loaded.files, strict=True)
    ]


def compiled(setting: str, text: str, held: str) -> re.Pattern[str]:
    """A pattern on paths, with brackets; held: what they hold. Raises DataError for what is none."""
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise DataError(f"{setting}={text} is no pattern: {error}.") from error
    if not pattern.groups:
        raise DataError(
            f"{setting}={text} has no brackets. Expected a pattern on the path whose brackets hold the {held}."
        )
    return pattern


def together(cfg: Data, loaded: Contents) -> np.ndarray:
    """What a split must not part, (images,) whole numbers from 0: images of one group, and equal or similar ones.

    What is tied through others is one.
    """
    count = len(loaded.images)
    if cfg.duplicates == "ignore" and loaded.groups is None:
        return np.arange(count)
    ties = []
    if cfg.duplicates != "ignore":
        ties.append(_chained(loaded.images.ids))
    if loaded.groups is not None:
        ties.append(_chained(loaded.groups))
    if cfg.duplicates == "near":
        found = near.pairs(near.looks(loaded.images))
        ties.append((found.first, found.second))
    return tied(count, *(np.concatenate(side) for side in zip(*ties, strict=True)))


def _chained(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of rows that tie together all rows of one key."""
    order = np.argsort(keys, kind="stable")
    equal = keys[order][1:] == keys[order][:-1]
    return order[:-1][equal], order[1:][equal]


def tied(count: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The number of each row's set, (count,), where pairs of rows are tied; sets in the order of their first rows."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = coo_array((np.ones(len(first), bool), (first, second)), shape=(count, count))
    _, part = connected_components(links, directed=False)
    _, begins, number = np.unique(part, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(begins))[number]
