"""Standardised features in their principal directions: one eigendecomposition serves every strength.

With x the features less their mean, over their standard deviation, the L2 penalty of a head and the curvature
of its loss are both diagonal there, or nearly so. Where there are fewer rows than features the
directions are found in the space of the rows, which is smaller (the dual).
"""

import contextlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg import eigh

from tlbench.probing import threads
from tlbench.probing.design import Design
from tlbench.probing.linear import Linear

LARGE = 1000  # rows of a matrix whose decomposition is worth all cores
NOTHING = 1e-12  # share of the largest variance below which a direction holds rounding errors alone


@dataclass(frozen=True)
class Spectrum:
    """Principal directions of the standardised features of a design."""

    mean: np.ndarray  # (features,) float64
    scale: np.ndarray  # (features,) float64: standard deviations, 1 where a feature never varies
    values: np.ndarray  # (directions,) float64: variance along each
    basis: (
        np.ndarray
    )  # float64: (features, directions), orthonormal, or the shares that rows have in these
    rows: np.ndarray | None = (
        None  # (rows, features) float64, standardised and weighted: of the dual
    )

    @cached_property
    def vectors(self) -> np.ndarray:
        """(features, directions) float64, orthonormal."""
        return self.basis if self.rows is None else self.rows.T @ self.basis

    @cached_property
    def axes(self) -> np.ndarray:
        """(features, directions) float32: features less their mean times it lie along the directions."""
        return self.exact_axes.astype(np.float32)

    @cached_property
    def exact_axes(self) -> np.ndarray:
        """The same in float64."""
        return self.vectors / self.scale[:, None]

    def along(self, features: np.ndarray) -> np.ndarray:
        """Rows in the directions, (rows, directions) float32."""
        return (features - self.mean.astype(np.float32)) @ self.axes

    def along_own(self, design: Design, where: slice, block: np.ndarray) -> np.ndarray:
        """Rows of the design itself in the directions; those of the dual lie there without a product."""
        if self.rows is None:
            return self.along(block)
        return self.basis[where] * self.values / np.sqrt(design.shares[where])[:, None]

    def projected(self, moments: np.ndarray) -> np.ndarray:
        """Columns of standardised features in the directions, (directions, columns)."""
        return self.basis.T @ (moments if self.rows is None else self.rows @ moments)

    def folded(self, coefficients: np.ndarray, intercept: np.ndarray) -> Linear:
        """The head that has such coefficients along the directions, for features as they are.

        coefficients: (directions, classes); intercept: (classes,), at the mean of the features.
        """
        weights = self.basis @ coefficients
        kernel = (weights if self.rows is None else self.rows.T @ weights) / self.scale[:, None]
        return Linear(kernel, intercept - self.mean @ kernel)


def of(design: Design) -> Spectrum:
    """The spectrum of a design's rows, weighted as they are."""
    mean, scale = _moments(design)
    primal = len(design) > design.width
    rows = None if primal else _standardised(design, mean, scale)
    values, vectors = _decomposed(_gram(design, mean, scale) if rows is None else rows @ rows.T)
    kept = values > NOTHING * values.max(initial=0.0)
    values, vectors = values[kept], vectors[:, kept]
    return Spectrum(mean, scale, values, vectors if primal else vectors / np.sqrt(values), rows)


def _moments(design: Design) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each feature; about a first mean, so that nothing cancels."""
    mean = sum(design.map(lambda rows, block: design.shares[rows] @ block))
    variance = sum(design.map(lambda rows, block: design.shares[rows] @ (block - mean) ** 2))
    scale = np.sqrt(variance)
    never_varies = scale <= 1e-6 * np.abs(mean)  # but for the rounding of float32
    return np.asarray(mean), np.where(never_varies | (scale == 0), 1.0, scale)


def _gram(design: Design, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    gram = np.zeros((design.width, design.width))
    for where, block in design.blocks(4096):
        rows = (block - mean) / scale * np.sqrt(design.shares[where])[:, None]
        with threads.of_blas():
            gram += rows.T @ rows
    return gram


def _standardised(design: Design, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    rows = np.concatenate(list(design.map(lambda _, block: (block - mean) / scale)))
    return np.asarray(rows * np.sqrt(design.shares)[:, None])


def _decomposed(gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues and eigenvectors of a symmetric matrix, which is lost."""
    large = threads.of_blas() if len(gram) > LARGE else contextlib.nullcontext()
    with large:
        values, vectors = eigh(gram, check_finite=False, overwrite_a=True, driver="evr")
    return values, vectors
