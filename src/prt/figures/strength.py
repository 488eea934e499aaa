"""The strength sweep: accuracy against 1/λ on every target, and with the strength that validation data chose."""

import itertools
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.typing import LineStyleType

from prt.errors import InputError
from prt.figures.style import INK, conditions, grid, interval, legend, plain_style, save, within
from prt.methods import METHODS
from prt.select import headline

LINE: dict[str, LineStyleType] = {"prt": "-", "eft": "--", "poe": ":", "difference": "-."}
ALWAYS = ("prt", "eft")
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
    """What is swept (PRT at α = 0), in the headline metric, wherever more than one strength was tried.

    With it the rows, without a strength, of those whose strength was chosen.

    Raises:
        InputError: if PRT or EFT was swept nowhere.
    """
    every = headline(summary)
    rows = every[every["method"].isin(list(LINE)) & every["alpha"].fillna(0).eq(0)]
    tried = rows.groupby(["dataset", "shots", "source", "target", "method"])["strength"].transform("nunique")
    rows = rows[tried > 1]
    chosen = every[every["method"].map(lambda name: METHODS[name].at in LINE and not METHODS[name].any_variant)]
    rows = pd.concat([rows, chosen]) if len(chosen) else rows
    for method in ALWAYS:
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
        chosen, here = here[here["strength"].isna()], here[here["strength"].notna()]
        for (method, target), line in here.groupby(["method", "target"]):
            x, colour = line["strength"], METHODS[method].colour
            if here["target"].nunique() <= BANDS:
                axis.fill_between(x, 100 * line["low"], 100 * line["high"], color=colour, alpha=0.1, linewidth=0)
            axis.plot(x, 100 * line["value"], LINE[method], color=colour, marker=marker[target])
        if len(chosen):
            _beside(axis, chosen, here["strength"].max(), marker)
    handles = [
        Line2D([], [], color=METHODS[m].colour, linestyle=line, label=METHODS[m].label)
        for m, line in LINE.items()
        if rows["method"].eq(m).any()
    ]
    handles.append(Line2D([], [], color=METHODS["pretrained"].colour, linewidth=0.8, label="the paper's strength, 1"))
    handles += [
        Line2D([], [], color=INK, linestyle="none", marker=shape, label=f"on {target}")
        for target, shape in marker.items()
    ]
    legend(drawn, handles)
    return drawn


def _beside(axis: Axes, chosen: pd.DataFrame, last: float, marker: dict[str, str]) -> None:
    """Right of the sweep, what comes of the strength that was chosen on validation data."""
    place = 1.12 * last
    axis.axvline(1.06 * last, color=INK, linewidth=0.4)
    axis.set_xticks([tick for tick in axis.get_xticks() if 0 <= tick <= last])
    for row, below, above in zip(chosen.itertuples(), *interval(chosen), strict=True):
        method = str(METHODS[str(row.method)].at)
        shift = 0.02 * last * (list(LINE).index(method) - 1.5)
        axis.errorbar(
            place + shift, 100 * row.value, [[below], [above]], fmt=marker[row.target], color=METHODS[method].colour,
            elinewidth=0.6, markersize=2.6,
        )  # fmt: skip
    axis.text(place, 0.01, "chosen", transform=axis.get_xaxis_transform(), ha="center", va="bottom", fontsize=5)
