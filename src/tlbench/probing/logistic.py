"""Logistic regression along a path of strengths, from the strongest on, each from the one before: multinomial, or of
each class by itself where an image may have several.

Least mean log loss over rows, plus strength / 2 * |w|^2, x standardised, the intercept free. scikit-learn's
LogisticRegression has C = 1 / (rows * strength). Solved by SciPy's L-BFGS in the principal directions of the features,
each scaled by the curvature that the loss has along it: a Newton method's first guess, for the price of a product.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logit

from tlbench.probing.design import Design
from tlbench.probing.linear import Linear
from tlbench.probing.spectrum import Spectrum

STEPS = 300  # of the solver for one strength
# By the precision of the products: the greatest gradient at the end, in scaled directions, and the least gain of a
# step, as a share of the loss; below it rounding steers.
TOLERANCE = {"float32": (1e-4, 1e-9), "float64": (3e-6, 1e-14)}


TURNED = 2**26  # numbers; 256 MiB as float32


def solve(design: Design, spectrum: Spectrum, strengths: Sequence[float]) -> Iterator[Linear]:
    """The head of each strength, in the order given."""
    problem = _Problem.of(design.precise(), spectrum)
    shares = design.class_shares
    weights = np.zeros((len(spectrum.values), design.classes))
    within = np.clip(shares, 1e-6, 1 - 1e-6)
    intercept = logit(within) if design.several else np.log(within)
    curvature = shares * (1 - shares)
    move = np.zeros_like(weights)
    for number, strength in enumerate(strengths):
        before, begun = weights, weights + move  # the path goes on as it went
        weights, intercept, curvature = _solve_one(problem, strength, begun, intercept, curvature)
        move = weights - before if number else move  # the first comes from nowhere
        yield spectrum.folded(weights, intercept)


@dataclass(frozen=True)
class _Problem:
    """Rows and the directions in which their head is solved.

    Rows that lie along the directions already are multiplied by the weights as they are. That spares two products
    with the axes a step, and where there are fewer rows than features most of each product with the rows.
    """

    design: Design
    values: np.ndarray  # variance along each direction
    mean: np.ndarray
    axes: np.ndarray | None  # (features, directions), or None where the rows lie along them

    @classmethod
    def of(cls, design: Design, spectrum: Spectrum) -> "_Problem":
        """The rows turned where that takes little memory, else as they are."""
        exact = design.tables[0].dtype == np.float64
        axes = spectrum.exact_axes if exact else spectrum.axes
        if len(design) * len(spectrum.values) > TURNED:
            return cls(design, spectrum.values, spectrum.mean, axes)
        mean = spectrum.mean.astype(axes.dtype)
        turned = [(np.asarray(table[:]) - mean) @ axes for table in design.tables]
        return cls(replace(design, tables=turned), spectrum.values, spectrum.mean, None)

    def layer(self, weights: np.ndarray, intercept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Kernel and bias for the rows as they are here."""
        kind = self.design.tables[0].dtype
        if self.axes is None:
            return weights.astype(kind), intercept.astype(kind)
        kernel = self.axes @ weights.astype(kind)
        return kernel, (intercept - self.mean @ kernel).astype(kind)

    def gradient(self, by_kernel: np.ndarray, by_bias: np.ndarray) -> np.ndarray:
        """By the weights, from that by the kernel, (classes, features)."""
        if self.axes is None:
            return by_kernel.T
        centred = by_kernel - np.outer(by_bias, self.mean)
        return (centred.astype(self.axes.dtype) @ self.axes).T


def _solve_one(
    problem: _Problem,
    strength: float,
    weights: np.ndarray,
    intercept: np.ndarray,
    curvature: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights along the directions, intercept, and the curvature of the loss in each class's scores."""
    bends = np.maximum(curvature, 1e-4)
    step = 1 / np.sqrt(np.vstack([np.outer(problem.values, bends) + strength, bends]))
    latest = curvature

    def objective(point: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal latest
        whole = point.reshape(step.shape) * step
        loss, gradient, latest = _loss(problem, whole[:-1], whole[-1])
        gradient[:-1] += strength * whole[:-1]
        return loss + strength / 2 * float((whole[:-1] ** 2).sum()), (gradient * step).ravel()

    begun = (np.vstack([weights, intercept]) / step).ravel()
    gradient, gain = TOLERANCE[str(problem.design.tables[0].dtype)]
    options = {"maxiter": STEPS, "gtol": gradient, "ftol": gain}
    found = minimize(objective, begun, jac=True, method="L-BFGS-B", options=options)
    whole = found.x.reshape(step.shape) * step
    return whole[:-1], whole[-1], latest


def _loss(
    problem: _Problem, weights: np.ndarray, intercept: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray]:
    """Mean log loss, its gradient by weights and intercept, and the mean of p (1 - p) for each class.

    Of several classes the sum of their losses: each is solved as if it were alone.
    """
    design = problem.design
    kind = design.tables[0].dtype
    kernel, bias = problem.layer(weights, intercept)

    def of_block(
        where: slice, block: np.ndarray
    ) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
        scores = block @ kernel + bias
        if design.several:
            return _of_each(scores, block, design, where)
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
    by_bias, by_kernel = np.zeros(design.classes), np.zeros(kernel.T.shape)
    for parts in design.map(of_block):
        loss += parts[0]
        curvature += parts[1]
        by_bias += parts[2]
        by_kernel += parts[3]
    return loss, np.vstack([problem.gradient(by_kernel, by_bias), by_bias]), curvature


def _of_each(
    scores: np.ndarray, block: np.ndarray, design: Design, where: slice
) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    """The same of a block of rows whose classes are each there or not."""
    targets, counts = design.targets[where], design.shares[where]
    losses = np.logaddexp(0, scores) - targets * scores
    given = expit(scores)
    residual = ((given - targets) * counts[:, None]).astype(scores.dtype)
    loss = float(counts @ losses.sum(axis=1, dtype=np.float64))
    curvature = counts @ (given * (1 - given))
    return loss, curvature, residual.sum(axis=0, dtype=np.float64), residual.T @ block
