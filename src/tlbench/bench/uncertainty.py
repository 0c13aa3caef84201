"""How sure a share of right answers is, where images were tested with and training images were drawn.

Answers are a matrix of draws x test images. Another draw and another test set would both have given another
share: their variances add up as those of two crossed random effects (Owen 2007, The pigeonhole bootstrap).
"""

from dataclasses import dataclass

import numpy as np

from tlbench.base.intervals import wilson
from tlbench.report.statistics import mcnemar


@dataclass(frozen=True)
class Estimate:
    """A share, or a difference of shares, with its 95 % interval and the p of its being 0."""

    mean: float
    low: float
    high: float
    p: float


def share(right: np.ndarray) -> Estimate:
    """Of right answers, (draws, images) booleans; within 0 to 1."""
    draws, images = right.shape
    mean, error, freedom = _crossed(right.astype(np.float64))
    low, high = wilson(mean, images)
    if draws > 1 and error > 0:
        reach = _quantile(freedom) * error
        low, high = min(low, mean - reach), max(high, mean + reach)
    low, high = min(low, mean), max(high, mean)  # but for rounding
    return Estimate(mean, max(0.0, low), min(1.0, high), float("nan"))


def difference(a: np.ndarray, b: np.ndarray) -> Estimate:
    """Of two shares over the same draws and images, paired: a less b.

    p: of one draw McNemar's exact test, else Student's t with Satterthwaite's degrees of freedom.
    """
    mean, error, freedom = _crossed(a.astype(np.float64) - b)
    reach = _quantile(freedom) * error
    if len(a) == 1:
        p = mcnemar(int((a & ~b).sum()), int((b & ~a).sum()))
    elif error == 0:
        p = 1.0 if mean == 0 else 0.0
    else:
        from scipy.stats import t

        p = float(2 * t.sf(abs(mean) / error, freedom))
    return Estimate(mean, mean - reach, mean + reach, p)


def _quantile(freedom: float) -> float:
    from scipy.stats import t

    return float(t.ppf(0.975, freedom))


def _crossed(values: np.ndarray) -> tuple[float, float, float]:
    """Mean, its standard error and the degrees of freedom of that, of (draws, images)."""
    draws, images = values.shape
    mean, of_images = float(values.mean()), values.mean(axis=0)
    between_images = draws * float(of_images.var(ddof=1)) if images > 1 else 0.0
    if draws == 1:
        return mean, float(np.sqrt(between_images / images)), max(images - 1, 1)
    of_draws = values.mean(axis=1)
    between_draws = images * float(of_draws.var(ddof=1))
    rest = values - of_images - of_draws[:, None] + mean
    within = float((rest**2).sum()) / ((draws - 1) * max(images - 1, 1))
    variance = max(between_draws + between_images - within, between_draws, between_images)
    parts = ((between_draws, draws - 1), (between_images, images - 1))
    spread = sum(part**2 / free for part, free in parts if free > 0)
    freedom = variance**2 / spread if spread > 0 else draws - 1
    return mean, float(np.sqrt(variance / (draws * images))), max(freedom, 1.0)


def holm(values: list[float]) -> list[float]:
    """p values adjusted for their number, so that one false alarm among all is as rare as each says (Holm 1979)."""
    adjusted, least = [0.0] * len(values), 0.0
    for rank, i in enumerate(np.argsort(values)):
        least = max(least, min(1.0, values[i] * (len(values) - rank)))
        adjusted[i] = least
    return adjusted
