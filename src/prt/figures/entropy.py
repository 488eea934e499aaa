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
    INK,
    alpha_colour,
    alpha_name,
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
from prt.methods import METHODS
from prt.select import headline
from prt.tables import read_csv

LINE: dict[str, LineStyleType] = {"prt": "-", "reward": ":"}
PANEL = ["source", "dataset", "shots"]


def read_curves(runs: list[Path]) -> pd.DataFrame:
    """The curves of tuned rewards: dataset, shots, source, alpha, seed, iteration, method, metric, value.

    Args:
        runs: folders of rewards, each with its manifest and ``curve.csv``.

    Raises:
        InputError: if a file is missing or cannot be read.
    """
    from prt.reward import read_manifest

    tables = []
    for run in runs:
        manifest = read_manifest(run)
        facts = {"dataset": manifest["dataset"]["name"], "source": manifest["backbone"]["name"], "metric": "top1"}
        facts |= {key: manifest[key] for key in ("shots", "alpha", "seed")}
        wide = read_csv(run / "curve.csv").assign(**facts)
        tables.append(wide.melt([*facts, "iteration"], list(LINE), var_name="method"))
    return pd.concat(tables, ignore_index=True)


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


@plain_style
def figure_curves(rows: pd.DataFrame) -> Figure:
    """The figure of the rows that :func:`select_curves` gave."""
    sources, columns = list(rows["source"].unique()), conditions(rows)
    drawn, axes = grid(sources, columns, 2.2, 2.0)
    drawn.supxlabel("iteration")
    for (source, condition), axis in zip(itertools.product(sources, columns), axes.flat, strict=True):
        here = within(rows, source, condition).sort_values("iteration")
        for (alpha, method), curve in here.groupby(["alpha", "method"]):
            x, percent, spread = curve["iteration"], 100 * curve["value"], 100 * curve["std"]
            colour = alpha_colour(alpha)
            axis.fill_between(x, percent - spread, percent + spread, color=colour, alpha=0.15, linewidth=0)
            axis.plot(x, percent, LINE[method], color=colour)
    alphas = sorted(rows["alpha"].unique())
    handles = [Line2D([], [], color=alpha_colour(alpha), label=alpha_name(alpha)) for alpha in alphas]
    handles += [Line2D([], [], color=INK, linestyle=line, label=METHODS[method].label) for method, line in LINE.items()]
    legend(drawn, handles)
    return drawn


def draw_transfer(summary: pd.DataFrame, stem: Path) -> None:
    """Draw Figure 6b or Figure 7 to ``stem``.pdf, .png and .csv.

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
    accuracy = headline(summary)
    prt = accuracy[(accuracy["method"] == "prt") & (accuracy["strength"] == 1)]
    prt = prt[prt.groupby(PANEL)["alpha"].transform("max") > 0]
    if prt.empty:
        raise InputError("the summary has no PRT with an entropy term; tune a reward with alpha above 0 and run again.")
    pairs = prt[[*PANEL, "target"]].drop_duplicates()
    pretrained = pairs.merge(accuracy[accuracy["method"] == "pretrained"], how="left")
    absent = pretrained[pretrained["value"].isna()]
    if not absent.empty:
        first = absent.iloc[0]
        raise InputError(
            f"the summary has no headline accuracy of 'pretrained' on '{first.target}' with source"
            f" '{first.source}' on {first.dataset} ({first.shots}); evaluate it and run again."
        )
    return pd.concat([prt, pretrained[prt.columns]], ignore_index=True)


@plain_style
def figure_transfer(rows: pd.DataFrame) -> Figure:
    """The figure of the rows that :func:`select_transfer` gave."""
    alphas = sorted(rows["alpha"].dropna().unique())
    widest = rows.groupby(PANEL)["target"].nunique().max()
    sources, columns = list(rows["source"].unique()), conditions(rows)
    drawn, axes = grid(sources, columns, 0.3 + 0.42 * widest, 2.2)
    for (source, condition), axis in zip(itertools.product(sources, columns), axes.flat, strict=True):
        here = within(rows, source, condition)
        targets = sorted(here["target"].unique(), key=lambda target: target != source)
        for alpha, shift in zip(alphas, np.linspace(-0.3, 0.3, len(alphas)), strict=True):
            of = here[here["alpha"] == alpha]
            axis.errorbar(
                places(of, targets) + shift, 100 * of["value"], interval(of), fmt="o",
                color=alpha_colour(alpha), elinewidth=0.8, markersize=2.6,
            )  # fmt: skip
        of = here[here["method"] == "pretrained"]
        x = places(of, targets)
        axis.hlines(100 * of["value"], x - 0.4, x + 0.4, color=METHODS["pretrained"].colour, linewidth=1.5)
        group_labels(axis, targets)
    handles = [
        Line2D([], [], color=alpha_colour(alpha), marker="o", linestyle="none", label=alpha_name(alpha))
        for alpha in alphas
    ]
    handles.append(Line2D([], [], color=METHODS["pretrained"].colour, linewidth=1.5, label=METHODS["pretrained"].label))
    legend(drawn, handles)
    return drawn
