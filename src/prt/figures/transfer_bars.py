"""Figures 2, 3, 4, 10, 11, 13 and 14: accuracy on every target of Pretrained, EFT, PRT and what the target could be."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from prt.errors import InputError
from prt.figures.printed import beside
from prt.figures.style import (
    INK,
    conditions,
    grid,
    group_labels,
    interval,
    legend,
    places,
    plain_style,
    save,
    within,
)
from prt.methods import AS_TEXT, METHODS
from prt.select import headline, plain

BARS = ("pretrained", "eft", "prt", "ft")
POINTS = {"poe": "D", "difference": "s"}  # drawn beside the bars, where they were measured
WIDTH = 0.165  # of a bar, where a group has 1
SHADE = "#F0F0F0"
PLACE = {text: plain for plain, text in AS_TEXT.items()}  # whose place a method takes on another tokenizer's target
READ = "#D55E00"  # what was read off the paper's figures


class Panel(TypedDict):
    """A row of panels: the model that was tuned, and those that use its reward."""

    source: str
    targets: list[str]


def draw(
    summary: pd.DataFrame,
    stem: Path,
    *,
    panels: list[Panel],
    published: pd.DataFrame | None = None,
    names: Mapping[str, str] | None = None,
) -> None:
    """Draw the figure to ``stem``.pdf, .png and .csv.

    Args:
        summary: a summary of the data sets or benchmarks to show, each a column of panels.
        stem: name of the files, without their ending.
        panels: a row of panels for each.
        published: what was read off the paper's bars: source, benchmark, target, method and value_percent.
        names: our models' names → the names in ``published``, where they differ.

    Raises:
        InputError: if the table lacks a bar that the panels ask for.
    """
    rows = select(summary, panels)
    if published is not None:
        printed = published.rename(columns={"benchmark": "dataset", "value_percent": "value"})
        rows = beside(rows, printed.assign(method=printed["method"].str.lower()), names or {}).drop(columns="paper_std")
    save(figure(rows, panels), rows, stem)


def bars(rows: pd.DataFrame) -> tuple[str, ...]:
    """The methods that are bars: the last is the published instruct model where there is one, else the target's FT."""
    return (*BARS[:3], "instruct") if rows["method"].eq("instruct").any() else BARS


def select(summary: pd.DataFrame, panels: list[Panel]) -> pd.DataFrame:
    """The rows that ``panels`` show: the headline metric, α = 0, strength 1, no LoRA.

    Raises:
        InputError: if a bar is missing.
    """
    table = plain(headline(summary))
    shown = [table["source"].eq(panel["source"]) & table["target"].isin(groups(panel)) for panel in panels]
    rows = table[np.logical_or.reduce(shown)]
    last = bars(rows)
    rows = rows[rows["method"].replace(PLACE).isin([*last, *POINTS, "source_ft"])]
    if table.empty:
        raise InputError("the summary has no headline accuracies at alpha 0 and strength 1; evaluate some first.")
    for panel, condition in itertools.product(panels, conditions(table)):
        here = within(rows, panel["source"], condition)
        present = set(zip(here["method"].replace(PLACE), here["target"], strict=True))
        absent = [f"'{m}' on '{t}'" for m in last for t in groups(panel) if (m, t) not in present]
        if not here["method"].eq("source_ft").any():
            absent.append("'source_ft'")
        if absent:
            raise InputError(
                f"the summary has no headline accuracy of {absent[0]} with source '{panel['source']}' on"
                f" {condition[0]} ({condition[1]}); evaluate it, or take it out of the figure's panels."
            )
    return rows


def groups(panel: Panel) -> list[str]:
    """The groups of a panel: the source itself, then its targets."""
    return list(dict.fromkeys([panel["source"], *panel["targets"]]))


@plain_style
def figure(rows: pd.DataFrame, panels: list[Panel]) -> Figure:
    """The figure of the rows that :func:`select` gave; a column ``paper`` (percent) makes ticks beside the bars."""
    widest = max(len(groups(panel)) for panel in panels)
    columns = conditions(rows)
    drawn, axes = grid([panel["source"] for panel in panels], columns, 0.3 + 0.35 * widest, 2.0)
    for (panel, condition), axis in zip(itertools.product(panels, columns), axes.flat, strict=True):
        _panel(axis, within(rows, panel["source"], condition), groups(panel))
    for axis in axes:  # once all are drawn: panels share their axis, and a limit stops it from growing
        axis.set_ylim(bottom=0)
    named = dict.fromkeys(m for bar in bars(rows) for m in (bar, AS_TEXT.get(bar, bar)))
    shown = [method for method in named if rows["method"].eq(method).any()]
    handles: list[Artist] = [Patch(color=METHODS[method].colour, label=METHODS[method].label) for method in shown]
    handles += [
        Line2D([], [], color=METHODS[name].colour, marker=marker, linestyle="none", label=METHODS[name].label)
        for name, marker in POINTS.items()
        if rows["method"].eq(name).any()
    ]
    handles += [
        Line2D(
            [], [], color=METHODS["source_ft"].colour, linestyle="--", linewidth=0.8, label=METHODS["source_ft"].label
        ),
        Patch(color=SHADE, label="the source itself"),
    ]
    if "paper" in rows and rows["paper"].notna().any():
        handles.append(Line2D([], [], color=READ, linewidth=1.2, label="paper, read off the figure (±5)"))
    legend(drawn, handles)
    return drawn


def _panel(axis: Axes, rows: pd.DataFrame, targets: list[str]) -> None:
    """A group of bars per target, and the source's fine-tuned model as a line across."""
    axis.axvspan(-0.5, 0.5, color=SHADE, linewidth=0, zorder=0)
    rows = rows[rows["target"].isin(targets)]
    for slot, method in enumerate([*bars(rows), *POINTS]):
        of = rows[rows["method"].replace(PLACE) == method]
        if of.empty:
            continue
        x, percent = places(of, targets) + (min(slot, 4) - 2) * WIDTH + 0.05 * (slot > 4), 100 * of["value"]
        if method not in POINTS:
            axis.bar(x, percent, WIDTH, color=[METHODS[name].colour for name in of["method"]])
        else:
            axis.plot(x, percent, POINTS[method], color=METHODS[method].colour, markersize=2.6, zorder=3, clip_on=False)
        axis.errorbar(x, percent, interval(of), fmt="none", ecolor=INK, elinewidth=0.6)
        if "paper" in of:
            read = axis.hlines(of["paper"], x - 0.42 * WIDTH, x + 0.42 * WIDTH, color=READ, linewidth=1.2, zorder=4)
            read.set_path_effects([withStroke(linewidth=2.4, foreground="white")])
    kept = rows.loc[rows["method"] == "source_ft", "value"].iloc[0]
    axis.axhline(100 * kept, color=METHODS["source_ft"].colour, linestyle="--", linewidth=0.8, zorder=3)
    group_labels(axis, targets)
