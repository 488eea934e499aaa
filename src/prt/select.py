"""Which rows of the tidy tables are shown; images and language have the same columns."""

from collections.abc import Sequence

import pandas as pd

from prt.errors import InputError


def chosen(
    table: pd.DataFrame,
    dataset: str | Sequence[str] | None = None,
    shots: str | None = None,
    sources: str | Sequence[str] | None = None,
    targets: Sequence[str] | None = None,
) -> pd.DataFrame:
    """The rows with these values, one or several; None keeps all.

    Raises:
        InputError: if nothing is left.
    """
    values = {"dataset": dataset, "shots": shots, "source": sources, "target": targets}
    asked = {key: [value] if isinstance(value, str) else list(value) for key, value in values.items() if value}
    for column, kept in asked.items():
        table = table[table[column].isin(kept)]
    if table.empty:
        place = " and ".join(f"{key} {', '.join(kept)}" for key, kept in asked.items())
        raise InputError(f"the table has no rows{place and f' with {place}'}; measure them, or choose others.")
    return table


def headline(summary: pd.DataFrame) -> pd.DataFrame:
    """The rows of each data set's headline metric, without LoRA, of rewards as the experiment itself tunes them."""
    return summary[summary["headline"] & ~summary["lora"] & summary["variant"].isna()]


def plain(summary: pd.DataFrame) -> pd.DataFrame:
    """As in the paper's main results: the headline metric, α = 0, strength 1 or chosen, no variant."""
    own = summary["variant"].isna() & summary["alpha"].fillna(0).eq(0) & summary["strength"].fillna(1).eq(1)
    return summary[summary["headline"] & own]
