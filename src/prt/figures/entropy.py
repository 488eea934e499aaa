"""Figures 6a, 6b and 7: what the entropy term α does to training, and to transfer."""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.typing import LineStyleType

from prt.errors import InputError
from prt.figures.style import (
    COLOUR,
    INK,
    NAME,
    alpha_colour,
    alpha_name,
    cell,
    conditions,
    grid,
    group_labels,
    headline,
    interval,
    legend,
    measure,
    places,
    save,
    sober,
)

LINE: dict[str, LineStyleType] = {"prt": "-", "reward": ":"}


def draw_curves(curves: pd.DataFrame, stem: Path) -> None:
    """Draw Figure 6a to ``stem``.pdf, .png and .csv.

    Raises:
        InputError: if the table holds no accuracies of PRT, or none of the reward alone.
    """
    rows = select_curves(curves)
    save(figure_curves(rows), rows, stem)


def select_curves(curves: pd.DataFrame) -> pd.DataFrame:
    """Top-1 accuracy over the iterations, as mean and standard deviation over the seeds.

    Raises:
        InputError: if the table holds no accuracies of PRT, or none of the reward alone.
    """
    top1 = curves[curves["metric"] == "top1"]
    for method in LINE:
        if not top1["method"].eq(method).any():
            raise InputError(f"the curves hold no top-1 accuracies of '{method}'; evaluate it while tuning.")
    keys = ["dataset", "shots", "source", "alpha", "method", "metric", "iteration"]
    over_seeds = top1[top1["method"].isin(list(LINE))].groupby(keys, sort=False)["value"]
    return over_seeds.agg(value="mean", std="std", seeds="size").reset_index()


@sober
def figure_curves(rows: pd.DataFrame) -> Figure:
    """The figure of the rows that :func:`select_curves` gave."""
    sources, columns = list(rows["source"].unique()), conditions(rows)
    drawn, axes = grid(sources, columns, 2.2, 2.0)
    drawn.supxlabel("iteration")
    for (source, condition), axis in zip(itertools.product(sources, columns), axes.flat, strict=True):
        here = cell(rows, source, condition).sort_values("iteration")
        for (alpha, method), curve in here.groupby(["alpha", "method"]):
            x, percent, spread = curve["iteration"], 100 * curve["value"], 100 * curve["std"]
            colour = alpha_colour(alpha)
            axis.fill_between(x, percent - spread, percent + spread, color=colour, alpha=0.15, linewidth=0)
            axis.plot(x, percent, LINE[method], color=colour)
    alphas = sorted(rows["alpha"].unique())
    handles = [Line2D([], [], color=alpha_colour(alpha), label=alpha_name(alpha)) for alpha in alphas]
    handles += [Line2D([], [], color=INK, linestyle=line, label=NAME[method]) for method, line in LINE.items()]
    legend(drawn, handles)
    return drawn


def draw_transfer(summary: pd.DataFrame, stem: Path) -> None:
    """Draw Figure 6b or, of a language summary, Figure 7 to ``stem``.pdf, .png and .csv.

    Raises:
        InputError: if no reward was trained with α > 0, or a pretrained accuracy is missing.
    """
    rows = select_transfer(summary)
    save(figure_transfer(rows), rows, stem)


def select_transfer(summary: pd.DataFrame) -> pd.DataFrame:
    """PRT at strength 1 for every α, wherever some α > 0 was trained, and the pretrained targets.

    Raises:
        InputError: if no reward was trained with α > 0, or a pretrained accuracy is missing.
    """
    top1 = headline(summary)
    prt = top1[(top1["method"] == "prt") & (top1["strength"] == 1)]
    where = _where(summary)
    prt = prt[prt.groupby(where)["alpha"].transform("max") > 0]
    if prt.empty:
        raise InputError("the summary has no PRT with an entropy term; tune a reward with alpha above 0 and run again.")
    pairs = prt[[*where, "target"]].drop_duplicates()
    pretrained = pairs.merge(top1[top1["method"] == "pretrained"], how="left")
    absent = pretrained[pretrained["value"].isna()]
    if not absent.empty:
        first = absent.iloc[0]
        place = f"{first.dataset} ({first.shots})" if "shots" in first else first.dataset
        raise InputError(
            f"the summary has no {measure(summary)} accuracy of 'pretrained' on '{first.target}' with source"
            f" '{first.source}' on {place}; evaluate it and run again."
        )
    return pd.concat([prt, pretrained[prt.columns]], ignore_index=True)


def _where(table: pd.DataFrame) -> list[str]:
    """The columns that make a panel; a language table has no shots."""
    return [column for column in ("source", "dataset", "shots") if column in table]


@sober
def figure_transfer(rows: pd.DataFrame) -> Figure:
    """The figure of the rows that :func:`select_transfer` gave."""
    alphas = sorted(rows["alpha"].dropna().unique())
    widest = rows.groupby(_where(rows))["target"].nunique().max()
    sources, columns = list(rows["source"].unique()), conditions(rows)
    drawn, axes = grid(sources, columns, 0.3 + 0.42 * widest, 2.2)
    for (source, condition), axis in zip(itertools.product(sources, columns), axes.flat, strict=True):
        here = cell(rows, source, condition)
        targets = sorted(here["target"].unique(), key=lambda target: target != source)
        for alpha, shift in zip(alphas, np.linspace(-0.3, 0.3, len(alphas)), strict=True):
            of = here[here["alpha"] == alpha]
            axis.errorbar(
                places(of, targets) + shift, 100 * of["value"], interval(of), fmt="o",
                color=alpha_colour(alpha), elinewidth=0.8, markersize=2.6,
            )  # fmt: skip
        of = here[here["method"] == "pretrained"]
        x = places(of, targets)
        axis.hlines(100 * of["value"], x - 0.4, x + 0.4, color=COLOUR["pretrained"], linewidth=1.5)
        group_labels(axis, targets)
    handles = [
        Line2D([], [], color=alpha_colour(alpha), marker="o", linestyle="none", label=alpha_name(alpha))
        for alpha in alphas
    ]
    handles.append(Line2D([], [], color=COLOUR["pretrained"], linewidth=1.5, label=NAME["pretrained"]))
    legend(drawn, handles)
    return drawn
