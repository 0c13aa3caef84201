"""Which images belong together, so that a split leaves them on one side: groups by name, and images that are equal."""

import re

import numpy as np

from tlbench.base.errors import DataError
from tlbench.base.text import printable
from tlbench.config.schema import Data
from tlbench.data.sources import Contents


def of(cfg: Data, loaded: Contents) -> np.ndarray | None:
    """The number of each image's group, (images,): a table's column, or what a pattern finds in its path.

    An image whose path the pattern does not fit is a group by itself. None where no group is asked for. Raises
    DataError for a pattern that cannot be used, or fits nothing.
    """
    if loaded.groups is not None or cfg.group in (None, "auto"):
        return loaded.groups
    if loaded.files is None:
        raise DataError(
            f"data.group={cfg.group} is of no use: the images of {cfg.name} have no paths. Set data.group=null"
        )
    pattern = _compiled(str(cfg.group))
    found = [pattern.search(file) for file in loaded.files]
    if not any(found):
        raise DataError(
            f"data.group={cfg.group} fits none of {len(found):,} paths, such as {printable(loaded.files[0])}."
        )
    names = [
        ("group", *match.groups()) if match else ("image", file)
        for match, file in zip(found, loaded.files, strict=True)
    ]
    number = {name: i for i, name in enumerate(dict.fromkeys(names))}
    return np.array([number[name] for name in names])


def _compiled(text: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise DataError(f"data.group={text} is no pattern: {error}.") from error
    if not pattern.groups:
        raise DataError(
            f"data.group={text} has no brackets. Expected a pattern on the path whose brackets hold the group's name, "
            "such as '(patient\\d+)_', or a column of a table."
        )
    return pattern


def together(cfg: Data, loaded: Contents) -> np.ndarray:
    """What a split must not part, (images,) whole numbers from 0: images of one group, and equal ones.

    Where an image stands in two groups, both are one.
    """
    ids = loaded.images.ids if cfg.duplicates == "exact" else np.arange(len(loaded.images))
    _, alike = np.unique(ids, return_inverse=True)
    if loaded.groups is None:
        return alike
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    _, group = np.unique(loaded.groups, return_inverse=True)
    nodes = int(alike.max(initial=-1)) + 1 + int(group.max(initial=-1)) + 1
    links = (np.ones(len(group)), (alike, group + alike.max(initial=-1) + 1))
    _, part = connected_components(coo_array(links, shape=(nodes, nodes)), directed=False)
    return np.asarray(np.unique(part[alike], return_inverse=True)[1])
