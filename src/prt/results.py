"""What was measured of a cell: one value for each example and metric."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Measure:
    """A metric: one value per example (N,), and the groups (N,) whose means are averaged; mostly there is one."""

    values: NDArray[np.float64]
    groups: NDArray[np.int64]

    @classmethod
    def plain(cls, values: NDArray[np.float64]) -> "Measure":
        """A metric that is the mean over all examples."""
        return cls(values, np.zeros(len(values), np.int64))


@dataclass(frozen=True)
class Result:
    """All metrics of a cell; ``headline`` is the one that figures and comparisons show."""

    headline: str
    measures: dict[str, Measure]
