"""Does Proposition 3.2's bound predict what a reward gains? Its quantities beside the gains, with rank correlations."""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from prt.errors import InputError
from prt.figures.style import INK, OTHERS, conditions, legend, plain_style, save, titles

ON = ["pretraining", "dataset", "shots", "source", "target"]
QUANTITIES = {"epsilon": "ε (nat)", "C": "C", "bound": "bound (nat)", "kl": "KL(π_θ ‖ π̃_θ) (nat)"}
GAINS = {"gain": "over the target alone", "kept": "over the source's FT, kept"}


def draw(theory: pd.DataFrame, summary: pd.DataFrame, stem: Path) -> None:
    """Draw the quantities beside the gains to ``stem``.pdf, .png and .csv.

    Args:
        theory: of one experiment, or of several under each other with a column ``pretraining``.
        summary: of the same.
        stem: name of the files, without their ending.

    Raises:
        InputError: if there are fewer than three rewards on other models.
    """
    rows = select(theory, summary)
    save(figure(rows), rows, stem)


def select(theory: pd.DataFrame, summary: pd.DataFrame) -> pd.DataFrame:
    """A row for each reward on each other model, at strength 1: its quantities and gains, means over tuning seeds.

    The rewards are the experiment's own, at α = 0, and the variants.

    Raises:
        InputError: if there are fewer than three.
    """
    theory, summary = ((t if "pretraining" in t else t.assign(pretraining=0)) for t in (theory, summary))
    means = theory.groupby([*ON, "alpha", "variant"], dropna=False, sort=False)[list(QUANTITIES)].mean().reset_index()
    rows = summary[summary["headline"] & ~summary["lora"]]
    plain = rows[rows["strength"].fillna(1).eq(1)]
    prt = plain[plain["method"] == "prt"].rename(columns={"value": "accuracy"})
    found = means.merge(prt[[*ON, "alpha", "variant", "accuracy"]], on=[*ON, "alpha", "variant"])
    for gain, baseline in (("gain", "pretrained"), ("kept", "source_ft")):
        of = plain[plain["method"] == baseline].set_index(ON)["value"]
        found[gain] = found["accuracy"] - of.reindex(pd.MultiIndex.from_frame(found[ON])).to_numpy()
    own = found["variant"].isna() & found["alpha"].ne(0)  # Figure 6's, on one data set alone
    found = found[(found["source"] != found["target"]) & ~own].reset_index(drop=True)
    if len(found) < 3:
        raise InputError("fewer than three rewards were put on other models: no correlation can be told.")
    return found


def correlations(rows: pd.DataFrame, quantity: str, gain: str) -> tuple[list[float], list[float]]:
    """Spearman's rank correlations of a quantity with a gain, one for each pretraining.

    Returns:
        Over all rewards and targets; and within transfers, where the rewards of one source on one target alone are
        ranked, as the mean over transfers. Where a quantity or gain has fewer than three values, there is none.
    """
    over, within = [], []
    for _, of in rows.groupby("pretraining", sort=False):
        over += _spearman(of, quantity, gain)
        inner = [rho for _, one in of.groupby(ON, sort=False) for rho in _spearman(one, quantity, gain)]
        within += [float(np.mean(inner))] if inner else []
    return over, within


def _spearman(rows: pd.DataFrame, quantity: str, gain: str) -> list[float]:
    from scipy.stats import spearmanr  # here: slow to import

    if rows[quantity].nunique() < 3 or rows[gain].nunique() < 3:
        return []
    return [float(spearmanr(rows[quantity], rows[gain]).statistic)]


def said(values: list[float]) -> str:
    """Correlations as their mean, and their range where there are several."""
    mean = f"{np.mean(values):+.2f}".replace("-", "−")
    if len(values) < 2:
        return mean
    return f"{mean} ({min(values):+.2f} to {max(values):+.2f})".replace("-", "−")


@plain_style
def figure(rows: pd.DataFrame) -> Figure:
    """The figure of the rows that :func:`select` gave: a column for each quantity, a row for each gain."""
    of = conditions(rows)
    colours = dict(zip(of, itertools.cycle(OTHERS), strict=False))
    drawn = Figure(figsize=(7.4, 3.9), layout="constrained")
    axes = drawn.subplots(len(GAINS), len(QUANTITIES), sharex="col", sharey="row")
    shade = [colours[condition] for condition in zip(rows["dataset"], rows["shots"], strict=True)]
    for line, (gain, name) in zip(axes, GAINS.items(), strict=True):
        for axis, (quantity, unit) in zip(line, QUANTITIES.items(), strict=True):
            axis.axhline(0, color=INK, linewidth=0.6)
            axis.scatter(rows[quantity], 100 * rows[gain], s=5, c=shade, alpha=0.6, linewidths=0)
            if (rows[quantity] > 0).all():
                axis.set_xscale("log")
                wide = rows[quantity].max() > 100 * rows[quantity].min()
                axis.xaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 3.0), numticks=5))
                axis.xaxis.set_major_formatter("{x:g}")
                axis.xaxis.set_minor_formatter(NullFormatter())
            over, within = correlations(rows, quantity, gain)
            lines = [f"ρ {said(over)}"] if over else []
            lines += [f"in a transfer {said(within)}"] if within else []
            axis.set_title("\n".join(lines), fontsize=5.5)
            if gain == list(GAINS)[-1]:
                axis.set_xlabel(unit)
        line[0].set_ylabel(name)
    drawn.supylabel("gain in accuracy (points)")
    handles = [
        Line2D([], [], color=colours[condition], marker="o", linestyle="none", label=title)
        for condition, title in zip(of, titles(of), strict=True)
    ]
    legend(drawn, handles)
    return drawn
