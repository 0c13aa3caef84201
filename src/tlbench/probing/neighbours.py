"""Nearest neighbours by cosine, and nearest class means: nothing is fitted, so features alone are judged."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import logit

from tlbench.probing.design import Design
from tlbench.probing.linear import Linear
from tlbench.probing.spectrum import Spectrum


@dataclass(frozen=True)
class Voters:
    """The training rows, of which the nearest vote: a head of two layers without biases."""

    train: Design
    neighbours: int

    @property
    def weights(self) -> dict[str, list[np.ndarray]]:
        """Of the layers of a classifier's head, by their names: rows of length 1, and the class of each."""
        rows = np.concatenate([unit(block) for _, block in self.train.blocks()])
        classes = self.train.one_hot(slice(None))
        return {"neighbours": [rows.T], "classification": [classes]}

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Logarithms of the shares of the votes, (rows, classes); of no vote that of 1e-7, as Keras has it.

        Of several classes those of the odds.
        """
        nobody = np.zeros(len(features), np.int64)
        queries = Design([features], nobody, self.train.classes)
        (shares,) = votes(self.train, queries, [self.neighbours])
        if self.train.several:
            return logit(np.clip(shares.astype(np.float64), 1e-7, 1 - 1e-7))
        return np.log(np.maximum(shares, 1e-7))


def votes(train: Design, queries: Design, neighbours: Sequence[int]) -> np.ndarray:
    """Shares of the nearest training rows of each class, (len(neighbours), queries, classes) float32.

    scikit-learn's KNeighborsClassifier(metric="cosine"); neighbours: how many, each at most the rows.
    """
    most = max(neighbours)
    found = list(queries.map(lambda _, block: _nearest(train, unit(block), most)))
    named = train.one_hot(slice(None)).astype(np.float32)
    counted = np.cumsum(named[np.concatenate(found)], axis=1)
    return np.stack([counted[:, k - 1] / k for k in neighbours])


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1; one of zeros stays."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _nearest(train: Design, queries: np.ndarray, most: int) -> np.ndarray:
    """The rows of the largest cosines, (queries, most), the nearest first."""
    best = np.empty((len(queries), 0), np.float32)
    rows = np.empty((len(queries), 0), np.int64)
    for where, block in train.blocks():
        cosines = np.hstack([best, queries @ unit(block).T])
        numbers = np.hstack(
            [rows, np.broadcast_to(np.arange(where.start, where.stop), (len(queries), len(block)))]
        )
        order = _largest(cosines, most)
        best = np.take_along_axis(cosines, order, axis=1)
        rows = np.take_along_axis(numbers, order, axis=1)
    return rows


def _largest(values: np.ndarray, count: int) -> np.ndarray:
    """Places of the largest values of each row, the largest first; of equal ones the first."""
    if count < values.shape[1]:
        places = np.sort(np.argpartition(-values, count - 1, axis=1)[:, :count], axis=1)
    else:
        places = np.broadcast_to(np.arange(values.shape[1]), values.shape)
    order = np.argsort(-np.take_along_axis(values, places, axis=1), axis=1, kind="stable")
    return np.take_along_axis(places, order, axis=1)


def class_means(design: Design, spectrum: Spectrum) -> Linear:
    """The head that takes the class whose mean is nearest, in standardised features.

    |x - m|^2 is linear in x but for |x|^2, which all classes share. Of several classes each is there where the mean of
    the rows that have it is nearer than that of the others.
    """
    shares = design.class_shares
    sums = np.zeros((design.width, design.classes))
    for where, block in design.blocks():
        weighted = design.one_hot(where) * design.shares[where][:, None]
        sums += ((block - spectrum.mean) / spectrum.scale).T @ weighted
    means = sums / np.where(shares > 0, shares, 1)
    if design.several:
        others = -sums / np.where(shares < 1, 1 - shares, 1)  # all rows together have the mean 0
        kernel = (means - others) / spectrum.scale[:, None]
        middle = ((means**2).sum(axis=0) - (others**2).sum(axis=0)) / 2
        return Linear(kernel, -middle - spectrum.mean @ kernel)
    absent = np.where(shares > 0, 0.0, -1e3)  # a class without a row is never taken
    kernel = means / spectrum.scale[:, None]
    return Linear(kernel, -0.5 * (means**2).sum(axis=0) + absent - spectrum.mean @ kernel)
