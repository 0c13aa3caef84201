"""Intervals and tests for shares of images: how far a difference of accuracies is from chance."""

import math
import statistics
from collections.abc import Sequence

from tlbench.base.intervals import Z


def paired_interval(only_a: int, only_b: int, n: int) -> tuple[float, float]:
    """95 % interval of the difference of two shares of the same n trials: Agresti and Min (2005).

    only_a, only_b: trials in which one of the two succeeded; half a trial is added to each cell.
    """
    n, gain, loss = n + 2, only_a + 0.5, only_b + 0.5
    middle = (gain - loss) / n
    half = Z * math.sqrt((gain + loss) - (gain - loss) ** 2 / n) / n
    return max(-1.0, middle - half), min(1.0, middle + half)


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided p: how likely so uneven a split of the differing images is by fair coin."""
    from scipy.stats import binomtest  # comes with scikit-learn

    n = only_a + only_b
    return float(binomtest(only_a, n, 0.5).pvalue) if n else 1.0


def resampled(differences: Sequence[float], test_share: float) -> tuple[float, float, float]:
    """95 % interval of a mean difference over resampled splits, and the p of its being 0.

    The corrected resampled t test (Nadeau and Bengio 2003): training sets overlap, so the variance of the mean is
    larger than of independent repeats. test_share: test images for each training image.
    """
    from scipy.stats import t

    count, mean = len(differences), statistics.fmean(differences)
    error = statistics.stdev(differences) * math.sqrt(1 / count + test_share)
    reach = float(t.ppf(0.975, count - 1)) * error
    p = 2 * float(t.sf(abs(mean) / error, count - 1)) if error else float(mean == 0)
    return mean - reach, mean + reach, p
