"""The strength sweep: accuracy against 1/λ, for PRT and EFT on every target."""

import itertools
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.typing import LineStyleType

from prt.errors import InputError
from prt.figures.style import INK, conditions, grid, legend, plain_style, save, within
from prt.methods import METHODS
from prt.select import headline

LINE: dict[str, LineStyleType] = {"prt": "-", "eft": "--"}
MARKERS = "osD^vP*X<>ph8d"
BANDS = 3  # targets of a panel: the bands of more of them would hide each other


def draw(summary: pd.DataFrame, stem: Path) -> None:
    """Draw the strength sweep to ``stem``.pdf, .png and .csv.

    Raises:
        InputError: if the table holds no sweep.
    """
    rows = select(summary)
    save(figure(rows), rows, stem)


def select(summary: pd.DataFrame) -> pd.DataFrame:
    """PRT (α = 0) and EFT, in the headline metric, wherever more than one strength was tried.

    Raises:
        InputError: if PRT or EFT was swept nowhere.
    """
    rows = headline(summary)
    rows = rows[rows["method"].isin(list(LINE)) & rows["alpha"].fillna(0).eq(0)]
    tried = rows.groupby(["dataset", "shots", "source", "target", "method"])["strength"].transform("nunique")
    rows = rows[tried > 1]
    for method in LINE:
        if not rows["method"].eq(method).any():
            raise InputError(f"the summary has no two strengths of '{method}'; evaluate more of them.")
    return rows


@plain_style
def figure(rows: pd.DataFrame) -> Figure:
    """The figure of the rows that :func:`select` gave."""
    marker = dict(zip(rows["target"].unique(), itertools.cycle(MARKERS), strict=False))
    sources, columns = list(rows["source"].unique()), conditions(rows)
    drawn, axes = grid(sources, columns, 2.1, 2.0)
    drawn.supxlabel("strength 1/λ")
    for (source, condition), axis in zip(itertools.product(sources, columns), axes.flat, strict=True):
        axis.axvline(1, color=METHODS["pretrained"].colour, linewidth=0.8, zorder=0)
        here = within(rows, source, condition).sort_values("strength")
        for (method, target), line in here.groupby(["method", "target"]):
            x, colour = line["strength"], METHODS[method].colour
            if here["target"].nunique() <= BANDS:
                axis.fill_between(x, 100 * line["low"], 100 * line["high"], color=colour, alpha=0.1, linewidth=0)
            axis.plot(x, 100 * line["value"], LINE[method], color=colour, marker=marker[target])
    handles = [
        Line2D([], [], color=METHODS[m].colour, linestyle=line, label=METHODS[m].label) for m, line in LINE.items()
    ]
    handles.append(Line2D([], [], color=METHODS["pretrained"].colour, linewidth=0.8, label="the paper's strength, 1"))
    handles += [
        Line2D([], [], color=INK, linestyle="none", marker=shape, label=f"on {target}")
        for target, shape in marker.items()
    ]
    legend(drawn, handles)
    return drawn
