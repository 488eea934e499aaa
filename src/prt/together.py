"""Two rewards on a target at once: a table over the strengths of both, the same for images and for language."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from prt import stats

COLUMNS = ["dataset", "shots", "source", "target", "first", "second", "value", "low", "high", "seeds", "n", "chosen"]
BOTH = "both"
Pair = tuple[float, float]
Values = Mapping[str, NDArray[np.float64]]


def every_pair(strengths: Sequence[float]) -> list[Pair]:
    """All pairs of strengths, of the first reward and of the second."""
    return [(first, second) for first in strengths for second in strengths]


def over_strengths(values: Values, pairs: Sequence[Pair], best: Mapping[str, int]) -> pd.DataFrame:
    """A row for each pair of strengths on each of two data sets or benchmarks, and for their mean (``both``).

    Args:
        values: data set → shares of 1, pairs × seeds × examples.
        best: data set, or ``both`` → the number of the pair that was chosen on validation data.

    Returns:
        ``dataset``; ``first`` and ``second``, the rewards' strengths; ``value`` with its interval over seeds and
        examples (``low``, ``high``); ``seeds``; ``n`` examples; ``chosen``: whether it is the ``best``.
    """
    rows = []
    for name, shown in _parts(values):
        x, groups = _joined(values, shown)
        for i, (first, second) in enumerate(pairs):
            found = stats.share(x[i], groups)
            rows.append(
                (name, first, second, found.value, found.low, found.high, x.shape[1], len(groups), i == best[name])
            )
    return pd.DataFrame(rows, columns=[column for column in COLUMNS if column not in ("shots", "source", "target")])


def best_pairs(values: Values) -> dict[str, int]:
    """Data set, and ``both`` → the number of the pair with the greatest mean of values as :func:`over_strengths`'."""
    found = {}
    for name, shown in _parts(values):
        x, groups = _joined(values, shown)
        found[name] = int(np.argmax(stats.mean(x, groups).mean(-1)))
    return found


def _parts(values: Values) -> list[tuple[str, list[str]]]:
    return [*((name, [name]) for name in values), (BOTH, list(values))]


def _joined(values: Values, shown: list[str]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The examples of some data sets beside each other, and the number of the data set of each."""
    groups = np.concatenate([np.full(values[name].shape[-1], i) for i, name in enumerate(shown)])
    return np.concatenate([values[name] for name in shown], -1), groups
