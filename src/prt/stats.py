"""Measures of a prediction and their uncertainty: 95 % intervals and p-values over seeds and examples."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

METRICS = ("top1", "mean_per_class_recall")  # accuracies of a classification, as in :func:`strata`
Z = 1.959963984540054  # the normal distribution's 97.5 % point


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval; NaN where there is none."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference(Estimate):
    """A mean difference with its 95 % interval and two-sided ``p``, below 0.05 where the interval excludes 0."""

    p: float


def strata(labels: NDArray[np.int64], metric: str) -> NDArray[np.int64]:
    """Groups (N,) whose means are averaged: one for ``top1``, one per class for ``mean_per_class_recall``."""
    return np.zeros_like(labels) if metric == "top1" else labels


def mean(x: NDArray[np.float64], groups: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean over the groups that occur of each group's mean of ``x``, (..., N): shape (...)."""
    return np.mean([x[..., groups == group].mean(-1) for group in np.unique(groups)], axis=0)


def spread(x: NDArray[np.float64], groups: NDArray[np.int64]) -> float:
    """Standard deviation over the S seeds of the means of ``x`` (S, N); NaN where there is one seed."""
    return float(mean(x, groups).std(ddof=1)) if len(x) > 1 else np.nan


def effective_size(groups: NDArray[np.int64]) -> float:
    """How many equally weighted examples are as good as these (Kish): L² / Σ 1/n_g for L groups of n_g."""
    counts = np.unique(groups, return_counts=True)[1]
    return float(len(counts) ** 2 / (1 / counts).sum())


def wilson(value: float, n: float, z: float = Z) -> Estimate:
    """Wilson's score interval of a share ``value`` of ``n`` examples, with the 97.5 % point ``z``."""
    centre = (value + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(value * (1 - value) / n + z**2 / (4 * n**2))
    return Estimate(value, float(max(0.0, centre - half)), float(min(1.0, centre + half)))


def share(x: NDArray[np.float64], groups: NDArray[np.int64]) -> Estimate:
    """Mean of shares of 1, ``x`` (N,) or (S, N) of S seeds, over the groups (N,), with Wilson's interval.

    Its n is the effective one: that of as many independent right and wrong answers with this variance over seeds and
    examples (Franco et al. 2019). With several seeds its quantile is Student's (Korn & Graubard 1998). Both variances
    are those with two right and two wrong examples more (Agresti & Coull 1998), so that neither is 0. For one seed,
    one group and values of 0 and 1 this is Wilson's own interval.
    """
    x = np.atleast_2d(x)
    value, seeds, examples, _ = _variances(x, groups)
    n = effective_size(groups)
    more = (n * value + 2) / (n + 4)
    added = (n + 4) * more * (1 - more) - n * value * (1 - value)  # to the sum of squares, by the four
    parts = [(seeds * n**2, len(x) - 1.0), (examples * n * (n - 1) + added, np.inf)]
    variance, freedom = _sum(parts)
    return wilson(value, n * (n + 4) * more * (1 - more) / variance, _quantile(freedom))


def average(x: NDArray[np.float64], groups: NDArray[np.int64]) -> Estimate:
    """Mean of any numbers, ``x`` (N,) or (S, N) of S seeds, over the groups (N,), with Student's interval.

    Numbers that do not differ at all say nothing of how far others would: then there is no interval (NaN).
    """
    x = np.atleast_2d(x)
    value, seeds, examples, freedom = _variances(x, groups)
    variance, freedom = _sum([(seeds, len(x) - 1.0), (examples, freedom)])
    half = _quantile(freedom) * np.sqrt(variance) if len(groups) > 1 and np.ptp(x) > 0 else np.nan
    return Estimate(value, value - half, value + half)


def point(x: NDArray[np.float64], groups: NDArray[np.int64]) -> Estimate:
    """The mean as in :func:`average`, without an interval (NaN): of what is a mean by its formula only."""
    return Estimate(float(np.mean(mean(x, groups))), np.nan, np.nan)


def difference(x: NDArray[np.float64], groups: NDArray[np.int64], most: float = 1.0) -> Difference:
    """Mean of differences between −most and most, ``x`` (S, N) of S seeds, over the groups (N,), by Student's t-test.

    Where all differences are the same, the test has one example of ``most`` and one of −most more (Bonett & Price
    2012): no number of equal examples is certainty. Without a bound (infinity) there is then no interval (NaN).
    """
    from scipy.special import stdtr  # here: slow to import

    value, seeds, examples, freedom = _variances(x, groups)
    centre, parts = value, [(seeds, len(x) - 1.0), (examples, freedom)]
    if seeds + examples < 1e-16:  # rounding
        if np.isinf(most):
            return Difference(value, np.nan, np.nan, np.nan)
        n = effective_size(groups)
        centre = n * value / (n + 2)
        parts = [(((n * value**2 + 2 * most**2) / (n + 2) - centre**2) / (n + 1), n + 1)]
    variance, freedom = _sum(parts)
    error = np.sqrt(variance)
    half = _quantile(freedom) * error
    p = 2 * float(stdtr(freedom, -abs(centre) / error))
    return Difference(value, float(max(-most, centre - half)), float(min(most, centre + half)), p)


def holm(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """The p-values (K,), corrected for being K (Holm 1979): the chance of even one false find below 0.05 is ≤ 5 %."""
    order = np.argsort(p)
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(1, np.maximum.accumulate(np.arange(len(p), 0, -1) * p[order]))
    return corrected


def _variances(x: NDArray[np.float64], groups: NDArray[np.int64]) -> tuple[float, float, float, float]:
    """Mean of ``x`` (S, N) over groups; its variance over seeds and over examples, and the latter's degrees of freedom.

    A crossed design, with seeds *and* examples as random draws: the variance of the mean is that of the seeds' means,
    by S, plus that of the examples' means, drawn within their groups, by N. Each holds the noise of a single answer
    once, which is thus counted twice; taking it off (Cameron, Gelbach & Miller 2011) leaves two or three seeds with
    too narrow intervals. A group's only example is taken to vary about the mean of all (Lumley 2010, "lonely").
    """
    _, index, counts = np.unique(groups, return_inverse=True, return_counts=True)
    size, by_seed = counts[index], mean(x, groups)
    by_group = np.stack([np.bincount(index, row) for row in x]) / counts
    centred = x - np.where(size > 1, by_group[:, index], by_seed[:, None])
    unbiased = np.where(size > 1, size / np.maximum(size - 1, 1), 1)
    examples = float(unbiased / (len(counts) * size) ** 2 @ centred.mean(0) ** 2)
    seeds = float(by_seed.var(ddof=1)) / len(x) if len(x) > 1 else 0.0
    freedom = len(groups) - int((counts > 1).sum()) - int((counts == 1).any())
    return float(by_seed.mean()), seeds, examples, freedom


def _sum(parts: list[tuple[float, float]]) -> tuple[float, float]:
    """The sum of independent variances, each with its degrees of freedom, and the sum's (Satterthwaite 1946)."""
    variance = sum(part for part, _ in parts)
    inverse = sum((part / variance) ** 2 / freedom for part, freedom in parts if part > 0)
    return variance, 1 / inverse if inverse else np.inf


def _quantile(freedom: float) -> float:
    """Student's 97.5 % point."""
    from scipy.special import stdtrit  # here: slow to import

    return float(stdtrit(freedom, 0.975))
