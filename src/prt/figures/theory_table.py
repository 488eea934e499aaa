"""Table 7: ε of every pair of pretrained models, C of every reward, and the bound of Proposition 3.2."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from prt.errors import InputError
from prt.figures.style import INK, cell, conditions, save, sober, titles

NUMBERS = {"epsilon": r"$\varepsilon$ (nat)", "C": r"$C$", "bound": "bound"}
# Inches: the width of a number, of the gap between two groups of numbers, the height of a line.
NUMBER, GAP, LINE = 0.46, 0.12, 0.17


def draw(theory: pd.DataFrame, stem: Path) -> None:
    """Draw Table 7 to ``stem``.pdf, .png and .csv.

    Raises:
        InputError: if the table holds no reward with α = 0.
    """
    rows = select(theory)
    save(figure(rows), rows, stem)


def select(theory: pd.DataFrame) -> pd.DataFrame:
    """The vanilla rewards (α = 0), as means over the seeds; each source's own row stands first.

    Raises:
        InputError: if there is none.
    """
    vanilla = theory[theory["alpha"] == 0]
    if vanilla.empty:
        raise InputError("the theory table has no reward with alpha 0; tune one and run again.")
    pairs = vanilla.groupby(["dataset", "shots", "source", "target", "alpha"], sort=False)
    means = pairs.agg(**{n: (n, "mean") for n in NUMBERS}, seeds=("seed", "nunique")).reset_index()
    order = np.lexsort([means["source"] != means["target"], pd.factorize(means["source"])[0]])
    return means.iloc[order].reset_index(drop=True)


@sober
def figure(rows: pd.DataFrame) -> Figure:
    """The table of the rows that :func:`select` gave: a line per pair, three columns per (dataset, shots)."""
    columns = conditions(rows)
    pairs = list(dict.fromkeys(zip(rows["source"], rows["target"], strict=True)))
    name = 0.15 + 0.063 * max(len(text) for pair in pairs for text in pair)
    group = len(NUMBERS) * NUMBER
    lefts = [2 * name + (group + GAP) * i for i in range(len(columns))]
    width, height = lefts[-1] + group, LINE * (len(pairs) + 2)

    drawn = Figure(figsize=(width + 0.2, height + 0.2))
    axis = drawn.add_axes((0, 0, 1, 1))
    axis.set(xlim=(-0.1, width + 0.1), ylim=(height + 0.1, -0.1))
    axis.set_axis_off()

    def write(x: float, line: float, text: str, **how: Any) -> None:
        axis.text(x, (line + 0.5) * LINE, text, va="center_baseline", **how)

    def rule(line: float, left: float, right: float, thick: float) -> None:
        axis.plot([left, right], [line * LINE] * 2, color=INK, linewidth=thick)

    def numbers(line: int, left: float, texts: Iterable[str]) -> None:
        for i, text in enumerate(texts, start=1):
            write(left + i * NUMBER, line, text, ha="right")

    rule(0, 0, width, 1)
    write(0, 1, "source", fontweight="bold")
    write(name, 1, "target", fontweight="bold")
    for left, title in zip(lefts, titles(columns), strict=True):
        write(left + (group + GAP) / 2, 0, title, ha="center", fontweight="bold")
        rule(1, left + GAP, left + group, 0.4)
        numbers(1, left, NUMBERS.values())
    rule(2, 0, width, 0.6)
    rule(len(pairs) + 2, 0, width, 1)

    above = None
    for line, (source, target) in enumerate(pairs, start=2):
        if source != above:
            write(0, line, source)
            rule(line, 0, width, 0.4)
        above = source
        write(name, line, target)
        for left, condition in zip(lefts, columns, strict=True):
            here = cell(rows, source, condition)
            values = here.loc[here["target"] == target, list(NUMBERS)]
            numbers(line, left, map(_short, values.iloc[0]) if len(values) else "–" * len(NUMBERS))
    return drawn


def _short(number: float) -> str:
    """Three digits or so, and an exponent only where the number is huge."""
    if number == 0:
        return "0"
    if number >= 1e5:
        return f"{number:.1e}"
    return f"{number:.{3 if number < 1 else 2 if number < 10 else 1 if number < 100 else 0}f}"
