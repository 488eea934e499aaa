"""What was measured of a cell: one value for each example and metric."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prt import stats

Interval = Callable[[NDArray[np.float64], NDArray[np.int64]], stats.Estimate]


@dataclass(frozen=True)
class Measure:
    """A metric: one value per example (N,), and the groups (N,) whose means are averaged; mostly there is one.

    ``interval`` gives the mean of such values of S seeds, (S, N), with its interval: of :mod:`prt.stats`, ``share``,
    ``average`` or ``point``.
    """

    values: NDArray[np.float64]
    groups: NDArray[np.int64]
    interval: Interval = stats.share

    @classmethod
    def plain(cls, values: NDArray[np.float64], interval: Interval = stats.share) -> "Measure":
        """A metric that is the mean over all examples."""
        return cls(values, np.zeros(len(values), np.int64), interval)


@dataclass(frozen=True)
class Result:
    """All metrics of a cell; ``headline`` is the one that figures and comparisons show.

    ``strength``, and ``alpha`` and ``variant`` of a reward, are those that were chosen on validation data, where they
    were.
    """

    headline: str
    measures: dict[str, Measure]
    strength: float | None = None
    alpha: float | None = None
    variant: str | None = None
