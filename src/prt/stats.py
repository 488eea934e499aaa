"""Measures of a prediction and their uncertainty."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

METRICS = ("top1", "mean_per_class_recall")  # of a classification, as in :func:`strata`
Z = 1.959963984540054  # the normal distribution's 97.5 % point: all intervals here are 95 %


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval."""

    value: float
    low: float
    high: float


def strata(labels: NDArray[np.int64], metric: str) -> NDArray[np.int64]:
    """Groups (N,) whose means are averaged: one for ``top1``, one per class for ``mean_per_class_recall``."""
    return np.zeros_like(labels) if metric == "top1" else labels


def mean(x: NDArray[np.float64], groups: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean over the groups that occur of each group's mean of ``x``, (..., N): shape (...)."""
    return np.mean([x[..., groups == group].mean(-1) for group in np.unique(groups)], axis=0)


def effective_size(groups: NDArray[np.int64]) -> float:
    """How many equally weighted examples are as good as these (Kish): L² / Σ 1/n_g for L groups of n_g."""
    counts = np.unique(groups, return_counts=True)[1]
    return float(len(counts) ** 2 / (1 / counts).sum())


def wilson(value: float, n: float) -> Estimate:
    """Wilson's score interval of a share ``value`` of ``n`` examples."""
    centre = (value + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * np.sqrt(value * (1 - value) / n + Z**2 / (4 * n**2))
    return Estimate(value, float(max(0.0, centre - half)), float(min(1.0, centre + half)))


def share(hits: NDArray[np.float64], groups: NDArray[np.int64]) -> Estimate:
    """Mean over the groups of ``hits`` (N,), each 0 or 1, with Wilson's interval over the examples."""
    return wilson(float(mean(hits, groups)), effective_size(groups))


def over_examples(x: NDArray[np.float64], groups: NDArray[np.int64]) -> Estimate:
    """Mean over the groups of ``x`` (N,): Wilson's interval where all is 0 or 1, else the normal one within 0 and 1."""
    if np.isin(x, (0, 1)).all():
        return share(x, groups)
    e = mean_over_seeds(x[None], groups)
    return Estimate(e.value, max(0.0, e.low), min(1.0, e.high))


def over_seeds(x: NDArray[np.float64], groups: NDArray[np.int64]) -> dict[str, float]:
    """``value``, ``std`` (over seeds), ``low`` and ``high`` of ``x``, S seeds × N examples whose mean is a share.

    A single seed has no spread (NaN) and the interval over the examples.
    """
    if len(x) == 1:
        return {"value": np.nan, "std": np.nan} | vars(over_examples(x[0], groups))
    e = mean_over_seeds(x, groups)
    std = float(mean(x, groups).std(ddof=1))
    return {"value": e.value, "std": std, "low": max(0.0, e.low), "high": min(1.0, e.high)}


def mean_over_seeds(x: NDArray[np.float64], groups: NDArray[np.int64]) -> Estimate:
    """Mean of ``x``, S seeds × N test examples in ``groups``, with seeds *and* examples as random draws.

    A crossed design: the variance of the mean is that of the examples' means over seeds, drawn within their groups,
    plus the variance of the seeds' means by S (0 where there is one seed). The interval is normal.
    """
    variance, seeds = 0.0, len(x)
    found, counts = np.unique(groups, return_counts=True)
    for group, n in zip(found, counts, strict=True):
        if n > 1:
            variance += x[:, groups == group].mean(0).var(ddof=1) / n / len(found) ** 2
    by_seed = mean(x, groups)
    if seeds > 1:
        variance += by_seed.var(ddof=1) / seeds
    value, half = float(by_seed.mean()), Z * float(np.sqrt(variance))
    return Estimate(value, value - half, value + half)
