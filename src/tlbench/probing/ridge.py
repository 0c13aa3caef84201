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
    shrunk = np.stack([1 / (spectrum.values + strength) for strength in strengths], axis=1)
    coefficients = (moments[:, None, :] * shrunk[:, :, None]).reshape(len(moments), -1)

    def of_block(where: slice, block: np.ndarray) -> np.ndarray:
        along = spectrum.along_own(design, where, block)
        targets = design.one_hot(where)[:, None, :]
        fitted = (along @ coefficients.astype(np.float32)).reshape(len(block), -1, design.classes)
        own = design.shares[where][:, None] * (1 + along**2 @ shrunk)
        errors = (targets - fitted - shares) / np.maximum(1 - own, 1e-9)[:, :, None]
        return (targets - errors).astype(np.float32)

    return np.concatenate(list(design.map(of_block))).transpose(1, 0, 2)


def _moments(design: Design, spectrum: Spectrum) -> tuple[np.ndarray, np.ndarray]:
    """Of the targets: covariance with the rows along each direction, (directions, classes); their mean."""
    shares = design.class_shares

    def of_block(where: slice, block: np.ndarray) -> np.ndarray:
        targets = (design.one_hot(where) - shares) * design.shares[where][:, None]
        return ((block - spectrum.mean) / spectrum.scale).T @ targets

    return spectrum.projected(np.asarray(sum(design.map(of_block)))), shares
