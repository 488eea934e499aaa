"""The same experiment after several pretrainings: how far its numbers move with the pretrained models."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from prt.errors import InputError
from prt.stats import holm
from prt.tables import KEYS, PLACE, extra

ROWS = {  # table of one experiment → its number, and what tells its rows apart
    "summary": ("value", [*KEYS, "metric", "headline"]),
    "comparison": ("difference", [*PLACE, "method", "variant", "baseline", "metric"]),
}


def over_pretrainings(name: str, tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """One table of K experiments that differ in nothing but the seed of their pretraining.

    Each experiment gives one number for each row, a mean over its tuning seeds and examples. These K numbers are the
    sample: ``low`` and ``high`` are Student's 95 % interval of their mean (K − 1 degrees of freedom), which has no
    value where all K are equal. All experiments share their test examples, so it does not hold for others.

    Args:
        name: ``summary`` or ``comparison``.
        tables: the K tables of that name, as :func:`prt.tables.tables` makes them.

    Returns:
        The rows' keys; ``value`` or ``difference``, the mean of the K numbers; their ``std``, ``min``, ``max``, ``low``
        and ``high``; of differences ``p`` (two-sided), ``p_holm`` (Holm's correction in a data set, apart for
        :func:`prt.tables.extra`) and ``verdict``; and ``pretrainings``, which is K.

    Raises:
        InputError: if there are fewer than two tables, or not all have the same rows.
    """
    from scipy.stats import ttest_1samp  # here: slow to import

    if len(tables) < 2:
        raise InputError("one pretraining has no spread: name the folders of two experiments or more.")
    number, keys = ROWS[name]
    # Keys as text: an empty one is NaN, which is not equal to itself.
    numbers = [table.set_index(pd.MultiIndex.from_frame(table[keys].astype(str)))[number] for table in tables]
    for other in numbers[1:]:
        if set(other.index) != set(numbers[0].index):
            raise InputError(
                f"the tables '{name}' of these experiments have other rows; make them again with one configuration."
            )
    x = np.stack([column.loc[numbers[0].index].to_numpy(float) for column in numbers])  # K × rows
    equal = np.ptp(x, axis=0) < 1e-12
    test = ttest_1samp(np.where(equal, np.nan, x), 0)
    interval = test.confidence_interval(0.95)
    found = tables[0][keys].assign(**{number: x.mean(0), "std": x.std(0, ddof=1), "min": x.min(0), "max": x.max(0)})
    found = found.assign(low=interval.low, high=interval.high)
    if name == "comparison":
        found["p"] = test.pvalue
        told = np.select([found["low"] > 0, found["high"] < 0], ["better", "worse"], "not told apart")
        tested = found.groupby(["dataset", extra(found)])["p"]
        found["p_holm"] = tested.transform(lambda p: p.where(p.isna(), _holm(p)))
        found["verdict"] = told
    return found.assign(pretrainings=len(tables))


def _holm(p: pd.Series) -> pd.Series:
    return pd.Series(holm(p.dropna().to_numpy()), p.dropna().index).reindex(p.index)
