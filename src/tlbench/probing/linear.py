"""Linear heads: scores are features @ kernel + bias; a Dense layer holds them.

Probabilities are their softmax, or, where an image may have several classes, the sigmoid of each.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax, softmax

from tlbench.probing.design import Design

ALL = slice(None)  # of rows


@dataclass(frozen=True)
class Linear:
    """One Dense layer with a softmax, for features as they are."""

    kernel: np.ndarray  # (features, classes) float64
    bias: np.ndarray  # (classes,) float64

    @property
    def weights(self) -> dict[str, list[np.ndarray]]:
        """Of the layers of a classifier's head, by their names."""
        return {"classification": [self.kernel, self.bias]}

    def scores(self, features: np.ndarray) -> np.ndarray:
        """(rows, classes) float64."""
        return features @ self.kernel.astype(np.float32) + self.bias

    def times(self, factor: float) -> "Linear":
        """The same order of classes, more or less sure of it."""
        return Linear(self.kernel * factor, self.bias * factor)

    def less(self, score: float) -> "Linear":
        """The same with scores that are all less by so much."""
        return Linear(self.kernel, self.bias - score)


@dataclass(frozen=True)
class Scored:
    """How a head does on rows: mean log loss, weighted as the rows are, and the share that it gets right.

    Of several classes the loss is the mean over these, too, and all must be right.
    """

    loss: float
    accuracy: float


def scored(scores: np.ndarray, design: Design, rows: slice = ALL) -> Scored:
    """Of scores that make probabilities, (rows, classes); rows: of the design, whose part of the whole is told."""
    targets, shares = design.targets[rows], design.shares[rows]
    if design.several:
        losses = (np.logaddexp(0, scores) - targets * scores).mean(axis=1)
    else:
        losses = -log_softmax(scores, axis=1)[np.arange(len(scores)), targets]
    hits = right(scores, design, rows).sum()
    return Scored(float(shares @ losses), float(hits / len(design)))


def scored_by(scores: Callable[[np.ndarray], np.ndarray], design: Design) -> Scored:
    """Of what gives scores, block by block: those of all rows together may not fit into memory."""
    parts = list(design.map(lambda rows, block: scored(scores(block), design, rows)))
    return Scored(sum(part.loss for part in parts), sum(part.accuracy for part in parts))


def right(scores: np.ndarray, design: Design, rows: slice = ALL) -> np.ndarray:
    """Which rows are taken for what they are, (rows,) bool."""
    targets = design.targets[rows]
    if design.several:
        return np.asarray(((scores >= 0) == targets).all(axis=1))
    return np.asarray(scores.argmax(axis=1) == targets)


def probabilities(scores: np.ndarray, design: Design) -> np.ndarray:
    """(rows, classes)."""
    return np.asarray(expit(scores) if design.several else softmax(scores, axis=1))


def all_scores(scores: Callable[[np.ndarray], np.ndarray], design: Design) -> np.ndarray:
    """Scores of every row, (rows, classes)."""
    return np.concatenate(list(design.map(lambda _, block: scores(block))))


def scaled(scores: np.ndarray, design: Design) -> float:
    """The factor that makes probabilities of scores which are none: the one of least log loss.

    Temperature scaling (Guo et al. 2017) of what ranks the classes but does not say how surely.
    """
    spread = float(scores.std()) or 1.0

    def loss(exponent: float) -> float:
        return scored(np.exp(exponent) / spread * scores, design).loss

    found = minimize_scalar(loss, bounds=(-7.0, 7.0), method="bounded", options={"xatol": 1e-4})
    return float(np.exp(found.x) / spread)
