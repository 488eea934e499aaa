"""Measures of a prediction and their uncertainty."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Z = 1.959963984540054  # the normal distribution's 97.5 % point: all intervals here are 95 %


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval."""

    value: float
    low: float
    high: float


def weights(labels: NDArray[np.int64], metric: str) -> NDArray[np.float64]:
    """Weights (N,) of mean 1 that make a mean of right-or-wrong into ``top1`` or ``mean_per_class_recall``.

    The latter is the mean over the classes that occur of the share of each class's examples that is right.
    """
    if metric == "top1":
        return np.ones(len(labels))
    counts = np.bincount(labels)
    return len(labels) / (np.count_nonzero(counts) * counts[labels])


def wilson(value: float, n: float) -> Estimate:
    """Wilson's score interval of a share ``value`` of ``n`` examples."""
    centre = (value + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * np.sqrt(value * (1 - value) / n + Z**2 / (4 * n**2))
    return Estimate(value, float(max(0.0, centre - half)), float(min(1.0, centre + half)))


def mean_over_seeds(x: NDArray[np.float64]) -> Estimate:
    """Mean of ``x``, S seeds × N test examples, with seeds *and* examples as random draws.

    The variance of the mean is that of the examples' means over seeds by N, plus that of the seeds' means by S
    (a crossed design; the second part is nought where there is one seed). The interval is normal.
    """
    seeds, n = x.shape
    variance = x.mean(0).var(ddof=1) / n if n > 1 else 0.0
    if seeds > 1:
        variance += x.mean(1).var(ddof=1) / seeds
    value, half = float(x.mean()), Z * float(np.sqrt(variance))
    return Estimate(value, value - half, value + half)
