"""Which training images a probe gets: nested draws, the same for every backbone."""

import math

import numpy as np

from tlbench.base.draws import seed_for


def order(labels: np.ndarray, seed: int, number: int) -> np.ndarray:
    """The place of each image among those of its class in one draw, (images,): the first k are the k-shot.

    number: of the draw. So the images of a smaller draw are among those of a larger one.
    """
    rng = np.random.default_rng(seed_for(seed, "bench draw", number))
    places = np.empty(len(labels), np.int64)
    by_class = np.argsort(labels, kind="stable")
    _, first = np.unique(labels[by_class], return_index=True)
    for rows in np.split(by_class, first[1:]):
        places[rows] = rng.permutation(len(rows))
    return places


def shots(places: np.ndarray, count: int) -> np.ndarray:
    """Rows of `count` images of each class; of a smaller class all that it has."""
    return np.flatnonzero(places < count)


def share(labels: np.ndarray, places: np.ndarray, part: float) -> np.ndarray:
    """Rows of a share of each class, at least one image of it."""
    counts = np.bincount(labels)
    wanted = np.array([max(1, math.floor(part * count + 0.5)) for count in counts])
    return np.flatnonzero(places < wanted[labels])
