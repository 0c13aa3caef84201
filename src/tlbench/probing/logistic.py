"""Multinomial logistic regression along a path of strengths, from the strongest on, each from the one before.

Least mean log loss over rows, plus strength / 2 * |w|^2, x standardised, the intercept free. scikit-learn's
LogisticRegression has C = 1 / (rows * strength). Solved by SciPy's L-BFGS in the principal directions of the features,
each scaled by the curvature that the loss has along it: a Newton method's first guess, for the price of a product.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from scipy.optimize import minimize

from tlbench.probing.design import Design
from tlbench.probing.linear import Linear
from tlbench.probing.spectrum import Spectrum

STEPS = 300  # of the solver for one strength
# By the precision of the products: the greatest gradient at the end, in scaled directions, and the least gain of a
# step, as a share of the loss; below it rounding steers.
TOLERANCE = {"float32": (1e-4, 1e-9), "float64": (3e-6, 1e-14)}


def solve(design: Design, spectrum: Spectrum, strengths: Sequence[float]) -> Iterator[Linear]:
    """The head of each strength, in the order given."""
    design = design.precise()
    shares = np.bincount(design.targets, design.shares, design.classes)
    weights = np.zeros((len(spectrum.values), design.classes))
    intercept = np.log(np.maximum(shares, 1e-6))
    curvature = shares * (1 - shares)
    move = np.zeros_like(weights)
    for number, strength in enumerate(strengths):
        before, begun = weights, weights + move  # the path goes on as it went
        weights, intercept, curvature = _solve_one(
            *(design, spectrum, strength, begun, intercept, curvature)
        )
        move = weights - before if number else move  # the first comes from nowhere
        yield spectrum.folded(weights, intercept)


def _solve_one(
    design: Design,
    spectrum: Spectrum,
    strength: float,
    weights: np.ndarray,
    intercept: np.ndarray,
    curvature: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights along the directions, intercept, and the curvature of the loss in each class's scores."""
    bends = np.maximum(curvature, 1e-4)
    step = 1 / np.sqrt(np.vstack([np.outer(spectrum.values, bends) + strength, bends]))
    latest = curvature

    def objective(point: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal latest
        whole = point.reshape(step.shape) * step
        loss, gradient, latest = _loss(design, spectrum, whole[:-1], whole[-1])
        gradient[:-1] += strength * whole[:-1]
        return loss + strength / 2 * float((whole[:-1] ** 2).sum()), (gradient * step).ravel()

    begun = (np.vstack([weights, intercept]) / step).ravel()
    gradient, gain = TOLERANCE[str(design.tables[0].dtype)]
    options = {"maxiter": STEPS, "gtol": gradient, "ftol": gain}
    found = minimize(objective, begun, jac=True, method="L-BFGS-B", options=options)
    whole = found.x.reshape(step.shape) * step
    return whole[:-1], whole[-1], latest


def _loss(
    design: Design, spectrum: Spectrum, weights: np.ndarray, intercept: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray]:
    """Mean log loss, its gradient by weights and intercept, and the mean of p (1 - p) for each class."""
    kind = design.tables[0].dtype
    axes = spectrum.axes if kind == np.float32 else spectrum.exact_axes
    kernel = axes @ weights.astype(kind)
    bias = (intercept - spectrum.mean @ kernel).astype(kind)

    def of_block(
        where: slice, block: np.ndarray
    ) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
        scores = block @ kernel + bias
        scores -= scores.max(axis=1, keepdims=True)
        taken, counts = (np.arange(len(block)), design.targets[where]), design.shares[where]
        of_taken = scores[taken]
        residual = np.exp(scores, out=scores)
        total = residual.sum(axis=1, keepdims=True, dtype=np.float64)
        loss = float(counts @ (np.log(total[:, 0]) - of_taken))
        residual /= total.astype(kind)
        curvature = counts @ (residual * (1 - residual))
        residual[taken] -= 1
        residual *= counts[:, None].astype(kind)
        return loss, curvature, residual.sum(axis=0, dtype=np.float64), residual.T @ block

    loss, curvature = 0.0, np.zeros(design.classes)
    by_bias, by_kernel = np.zeros(design.classes), np.zeros((design.classes, design.width))
    for parts in design.map(of_block):
        loss += parts[0]
        curvature += parts[1]
        by_bias += parts[2]
        by_kernel += parts[3]
    centred = (by_kernel - np.outer(by_bias, spectrum.mean)).astype(kind)
    return loss, np.vstack([(centred @ axes).T, by_bias]), curvature
