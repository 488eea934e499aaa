"""Table 7: ε of every pair of pretrained models, C of every reward, and the bound of Proposition 3.2."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from prt.errors import InputError
from prt.figures.sheet import sheet
from prt.figures.style import conditions, save, titles, within

NUMBERS = {"epsilon": "ε (nat)", "C": "C", "bound": "bound"}


def draw(theory: pd.DataFrame, stem: Path) -> None:
    """Draw Table 7 to ``stem``.pdf, .png and .csv.

    Raises:
        InputError: if the table holds no reward with α = 0.
    """
    rows = select(theory)
    save(figure(rows), rows, stem)


def select(theory: pd.DataFrame) -> pd.DataFrame:
    """The vanilla rewards (α = 0, no variant), as means over the seeds; each source's own row stands first.

    Raises:
        InputError: if there is none.
    """
    vanilla = theory[theory["alpha"].eq(0) & theory["variant"].isna()]
    if vanilla.empty:
        raise InputError("the theory table has no reward with alpha 0; tune one and run again.")
    pairs = vanilla.groupby(["dataset", "shots", "source", "target", "alpha"], sort=False)
    means = pairs.agg(**{n: (n, "mean") for n in NUMBERS}, seeds=("seed", "nunique")).reset_index()
    order = np.lexsort([means["source"] != means["target"], pd.factorize(means["source"])[0]])
    return means.iloc[order].reset_index(drop=True)


def figure(rows: pd.DataFrame) -> Figure:
    """The table of the rows that :func:`select` gave: a line per pair, three columns per (dataset, shots)."""
    columns = conditions(rows)
    pairs = list(dict.fromkeys(zip(rows["source"], rows["target"], strict=True)))

    def numbers(source: str, target: str) -> Iterator[str]:
        for condition in columns:
            here = within(rows, source, condition)
            values = here.loc[here["target"] == target, list(NUMBERS)]
            yield from map(short, values.iloc[0]) if len(values) else "–" * len(NUMBERS)

    return sheet(
        ["source", "target"],
        [(title, list(NUMBERS.values())) for title in titles(columns)],
        [(pair, list(numbers(*pair))) for pair in pairs],
    )


def short(number: float) -> str:
    """Three digits or so, and an exponent only where the number is huge."""
    if number == 0:
        return "0"
    if number >= 1e5:
        return f"{number:.1e}"
    return f"{number:.{3 if number < 1 else 2 if number < 10 else 1 if number < 100 else 0}f}"
