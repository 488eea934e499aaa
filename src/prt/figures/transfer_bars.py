"""Figure 2: accuracy on every target of Pretrained, EFT, PRT and the target's own fine-tuning."""

import itertools
from pathlib import Path
from typing import TypedDict

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from prt.errors import InputError
from prt.figures.style import (
    COLOUR,
    INK,
    NAME,
    cell,
    conditions,
    grid,
    group_labels,
    interval,
    legend,
    places,
    save,
    sober,
)

BARS = ("pretrained", "eft", "prt", "ft")
WIDTH = 0.165  # of a bar, where a group has 1
SHADE = "#F0F0F0"


class Panel(TypedDict):
    """A row of panels: the model that was tuned, and those that use its reward."""

    source: str
    targets: list[str]


def draw(summary: pd.DataFrame, panels: list[Panel], stem: Path) -> None:
    """Draw Figure 2 to ``stem``.pdf, .png and .csv.

    Raises:
        InputError: if the table lacks a bar that the panels ask for.
    """
    rows = select(summary, panels)
    save(figure(rows, panels), rows, stem)


def select(summary: pd.DataFrame, panels: list[Panel]) -> pd.DataFrame:
    """The rows that ``panels`` show: top-1, α = 0, strength 1.

    Raises:
        InputError: if a bar is missing.
    """
    paper = (
        (summary["metric"] == "top1")
        & summary["alpha"].fillna(0).eq(0)
        & summary["strength"].fillna(1).eq(1)
        & summary["method"].isin([*BARS, "poe", "source_ft"])
    )
    table = summary[paper]
    if table.empty:
        raise InputError("the summary has no top-1 accuracies at alpha 0 and strength 1; evaluate some first.")
    shown = [table["source"].eq(panel["source"]) & table["target"].isin(groups(panel)) for panel in panels]
    rows = table[np.logical_or.reduce(shown)]
    for panel, condition in itertools.product(panels, conditions(table)):
        here = cell(rows, panel["source"], condition)
        present = set(zip(here["method"], here["target"], strict=True))
        absent = [f"'{m}' on '{t}'" for m in BARS for t in groups(panel) if (m, t) not in present]
        if not here["method"].eq("source_ft").any():
            absent.append("'source_ft'")
        if absent:
            raise InputError(
                f"the summary has no top-1 accuracy of {absent[0]} with source '{panel['source']}' on"
                f" {condition[0]} ({condition[1]}); evaluate it, or take it out of the figure's panels."
            )
    return rows


def groups(panel: Panel) -> list[str]:
    """The groups of a panel: the source itself, then its targets."""
    return list(dict.fromkeys([panel["source"], *panel["targets"]]))


@sober
def figure(rows: pd.DataFrame, panels: list[Panel]) -> Figure:
    """The figure of the rows that :func:`select` gave."""
    widest = max(len(groups(panel)) for panel in panels)
    columns = conditions(rows)
    drawn, axes = grid([panel["source"] for panel in panels], columns, 0.3 + 0.35 * widest, 2.0)
    for (panel, condition), axis in zip(itertools.product(panels, columns), axes.flat, strict=True):
        _panel(axis, cell(rows, panel["source"], condition), groups(panel))
    bars = [Patch(color=COLOUR[method], label=NAME[method]) for method in BARS]
    poe = Line2D([], [], color=COLOUR["poe"], marker="D", linestyle="none", label=NAME["poe"])
    kept = Line2D([], [], color=COLOUR["source_ft"], linestyle="--", linewidth=0.8, label=NAME["source_ft"])
    legend(drawn, [*bars, poe, kept, Patch(color=SHADE, label="the source itself")])
    return drawn


def _panel(axis: Axes, rows: pd.DataFrame, targets: list[str]) -> None:
    """A group of bars per target, and the source's fine-tuned model as a line across."""
    axis.axvspan(-0.5, 0.5, color=SHADE, linewidth=0, zorder=0)
    rows = rows[rows["target"].isin(targets)]
    for slot, method in enumerate([*BARS, "poe"]):
        of = rows[rows["method"] == method]
        x, percent = places(of, targets) + (slot - 2) * WIDTH, 100 * of["value"]
        if method in BARS:
            axis.bar(x, percent, WIDTH, color=COLOUR[method])
        else:
            axis.plot(x, percent, "D", color=COLOUR[method], markersize=2.6, zorder=3)
        axis.errorbar(x, percent, interval(of), fmt="none", ecolor=INK, elinewidth=0.6)
    kept = rows.loc[rows["method"] == "source_ft", "value"].iloc[0]
    axis.axhline(100 * kept, color=COLOUR["source_ft"], linestyle="--", linewidth=0.8, zorder=3)
    group_labels(axis, targets)
    axis.set_ylim(bottom=0)
