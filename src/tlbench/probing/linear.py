"""Linear heads: scores are features @ kernel + bias; a Dense layer holds them.

Probabilities are their softmax, or, where an image may have several classes, the sigmoid of each.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax, softmax

from tlbench.probing.design import Design


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


def scored(scores: np.ndarray, design: Design) -> Scored:
    """Of scores that make probabilities, (rows, classes)."""
    if design.several:
        losses = np.logaddexp(0, scores) - design.targets * scores
        return Scored(
            float(design.shares @ losses.mean(axis=1)), float(right(scores, design).mean())
        )
    chosen = log_softmax(scores, axis=1)[np.arange(len(scores)), design.targets]
    return Scored(-float(design.shares @ chosen), float(right(scores, design).mean()))


def right(scores: np.ndarray, design: Design) -> np.ndarray:
    """Which rows are taken for what they are, (rows,) bool."""
    if design.several:
        return np.asarray(((scores >= 0) == design.targets).all(axis=1))
    return np.asarray(scores.argmax(axis=1) == design.targets)


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
