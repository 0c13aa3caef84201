"""Is it enough data? A power law through accuracies at growing numbers of training images, and what it allows to say.

error = a * n^-b, by weighted least squares on logarithms (Hestness et al. 2017 find such curves between the first
images and the noise of the labels). The band is a bootstrap over draws and test images together.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

REPLICATES = 500
LEAST_SIZES = 3
TOLERATED = 0.05  # of the error: no curve is a power law to the last digit


@dataclass(frozen=True)
class Curve:
    """A fitted power law; sizes: training images; errors: found there, 0-1."""

    sizes: np.ndarray
    errors: np.ndarray
    scale: float
    exponent: float
    replicates: np.ndarray  # (REPLICATES, 2): logarithm of the scale, exponent
    supported: bool  # whether the sizes but for the largest foretell what was found there
    foretold: tuple[float, float]  # 95 % interval of the error at the largest size, from the others

    def error(self, images: float) -> float:
        """What the law says for a number of training images."""
        return float(self.scale * images**-self.exponent)

    def band(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """95 % band of the error at numbers of training images."""
        laws = np.exp(self.replicates[:, :1] - self.replicates[:, 1:] * np.log(images))
        low, high = np.percentile(laws, [2.5, 97.5], axis=0)
        return low, high

    def gain(self, factor: float = 2.0) -> tuple[float, float, float]:
        """Accuracy that so many times the images would add: as fitted, and its 95 % interval."""
        most = float(self.sizes[-1])
        laws = np.exp(self.replicates[:, 0] - self.replicates[:, 1] * np.log(most))
        gains = laws * (1 - factor ** -self.replicates[:, 1])
        low, high = np.percentile(gains, [2.5, 97.5])
        return self.error(most) - self.error(factor * most), float(low), float(high)


def fit(sizes: Sequence[int], right: Sequence[np.ndarray], seed: int) -> Curve | None:
    """The law through right answers, (draws, test images) for each size; None for fewer than three sizes."""
    if len(sizes) < LEAST_SIZES:
        return None
    numbers = np.asarray(sizes, np.float64)
    errors = np.array([1 - matrix.mean() for matrix in right])
    drawn = _resampled(right, seed)
    images = right[0].shape[1]
    logs, found = np.log(_above_zero(drawn, images)), np.log(_above_zero(errors, images))
    weights = 1 / np.maximum(logs.std(axis=0), 0.01)
    law = _line(numbers, found[None], weights)[0]
    earlier = _line(numbers[:-1], logs[:, :-1], weights[:-1])
    foretold = earlier[:, 0] - earlier[:, 1] * np.log(numbers[-1])
    missed = np.percentile(foretold - logs[:, -1], [2.5, 97.5])  # in pairs: the same test images
    low, high = np.exp(np.percentile(foretold, [2.5, 97.5]))
    return Curve(
        *(numbers, errors, float(np.exp(law[0])), float(law[1])),
        replicates=_line(numbers, logs, weights),
        supported=bool(missed[0] <= TOLERATED and missed[1] >= -TOLERATED),
        foretold=(float(low), float(high)),
    )


def say(curve: Curve | None) -> str:
    """What twice the images would bring, in words for a person; or why nobody can tell."""
    if curve is None:
        return "Too few images to tell what more of them would bring."
    most, (gain, low, high) = int(curve.sizes[-1]), curve.gain()
    if not curve.supported:
        ends = " to ".join(f"{1 - error:.3f}" for error in reversed(curve.foretold))
        return (
            "What more images would bring cannot be told: fewer of them foretell an accuracy of "
            f"{ends} for all {most:,}, and it is {1 - curve.errors[-1]:.3f}."
        )
    if low <= 0:
        return (
            f"Twice the images ({2 * most:,} for {most:,}) would bring about {100 * gain:+.1f} points, but none is "
            f"as likely ({100 * low:+.1f} to {100 * high:+.1f})."
        )
    return (
        f"Twice the images ({2 * most:,} for {most:,}) would bring about {100 * gain:+.1f} points "
        f"({100 * low:+.1f} to {100 * high:+.1f})."
    )


def _resampled(right: Sequence[np.ndarray], seed: int) -> np.ndarray:
    """Errors at each size with draws and test images drawn anew, (REPLICATES, sizes)."""
    rng = np.random.default_rng(seed)
    images = right[0].shape[1]
    counts = rng.multinomial(images, np.full(images, 1 / images), REPLICATES) / images
    errors = []
    for matrix in right:
        draws = len(matrix)
        chosen = rng.multinomial(draws, np.full(draws, 1 / draws), REPLICATES) / draws
        errors.append(1 - ((counts @ matrix.T) * chosen).sum(axis=1))
    return np.stack(errors, axis=1)


def _above_zero(errors: np.ndarray, images: int) -> np.ndarray:
    """Of no error at all half an image's."""
    return np.maximum(errors, 0.5 / images)


def _line(sizes: np.ndarray, logs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(replicates, 2): intercept and minus the slope of weighted least squares of each row of logarithms."""
    design = np.stack([np.ones(len(sizes)), -np.log(sizes)], axis=1) * weights[:, None]
    return (np.linalg.pinv(design) @ (logs * weights).T).T
