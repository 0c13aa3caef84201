"""Ridge regression on one-hot targets, for every strength from one eigendecomposition.

Least squares: mean over rows of |y - (x w + b)|^2, plus strength |w|^2, x standardised, b free. scikit-learn's
Ridge has alpha = rows * strength.
"""

from collections.abc import Sequence

import numpy as np

from tlbench.probing.design import Design
from tlbench.probing.linear import Linear
from tlbench.probing.spectrum import Spectrum


def solve(design: Design, spectrum: Spectrum, strengths: Sequence[float]) -> list[Linear]:
    """The head of each strength."""
    moments, shares = _moments(design, spectrum)
    return [
        spectrum.folded(moments / (spectrum.values + strength)[:, None], shares)
        for strength in strengths
    ]


def left_out(design: Design, spectrum: Spectrum, strengths: Sequence[float]) -> np.ndarray:
    """Scores of each row by the heads solved on all others, (strengths, rows, classes).

    In closed form, from the share that a row has in its own prediction (Allen 1974, PRESS).
    """
    moments, shares = _moments(design, spectrum)
    shrunk = [1 / (spectrum.values + strength) for strength in strengths]
    scores = np.empty((len(shrunk), len(design), design.classes), np.float32)
    for where, block in design.blocks():
        along = spectrum.along(block).astype(np.float64)
        targets, counts = design.one_hot(where), design.shares[where]
        for number, factors in enumerate(shrunk):
            fitted = along @ (moments * factors[:, None]) + shares
            own = (counts * (1 + along**2 @ factors))[:, None]
            scores[number, where] = targets - (targets - fitted) / np.maximum(1 - own, 1e-9)
    return scores


def _moments(design: Design, spectrum: Spectrum) -> tuple[np.ndarray, np.ndarray]:
    """Of the targets: covariance with the rows along each direction, (directions, classes); their mean."""
    shares = np.bincount(design.targets, design.shares, design.classes)
    crossed = np.zeros((design.width, design.classes))
    for where, block in design.blocks():
        targets = (design.one_hot(where) - shares) * design.shares[where][:, None]
        crossed += ((block - spectrum.mean) / spectrum.scale).T @ targets
    return spectrum.vectors.T @ crossed, shares
