"""Accuracy and calibration over the strength of rewards that were tuned in several ways."""

import itertools
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.typing import LineStyleType

from prt.errors import InputError
from prt.figures.style import INK, OTHERS, legend, plain_style, save, titles
from prt.methods import METHODS

METRICS = {"top1": "accuracy (%)", "ece": "calibration error (%)"}
BESIDE: dict[str, LineStyleType] = {"eft": "--", "poe": ":"}
KEYS = ["dataset", "shots", "source", "method", "variant", "strength", "metric"]


def draw(summary: pd.DataFrame, stem: Path) -> None:
    """Draw accuracy and expected calibration error over the strength to ``stem``.pdf, .png and .csv.

    Raises:
        InputError: if the table has no sweep over strengths of a reward on another model.
    """
    rows = select(summary)
    save(figure(rows), rows, stem)


def select(summary: pd.DataFrame) -> pd.DataFrame:
    """Means over the targets of each source, itself left out; ``targets`` says over how many.

    Raises:
        InputError: if there are none.
    """
    rows = summary[~summary["lora"]]
    rows = rows[rows["method"].isin(["prt", *BESIDE]) & rows["metric"].isin(list(METRICS))]
    rows = rows[(rows["source"] != rows["target"]) & ~(rows["variant"].isna() & rows["alpha"].fillna(0).ne(0))]
    if rows["strength"].nunique() < 2:
        raise InputError("the summary has no two strengths of a reward on another model; evaluate more of them.")
    found = rows.groupby(KEYS, dropna=False, sort=False)["value"].agg(["mean", "size"]).reset_index()
    return found.rename(columns={"mean": "value", "size": "targets"})


@plain_style
def figure(rows: pd.DataFrame) -> Figure:
    """The figure of the rows that :func:`select` gave: a column for each source on each data set, a row a metric."""
    panels = list(dict.fromkeys(zip(rows["dataset"], rows["shots"], rows["source"], strict=True)))
    variants = [name for name in rows["variant"].unique() if isinstance(name, str)]
    colours = dict(zip(variants, itertools.cycle(OTHERS), strict=False))
    drawn = Figure(figsize=(0.6 + 1.75 * len(panels), 3.6), layout="constrained")
    axes = drawn.subplots(len(METRICS), len(panels), squeeze=False, sharex=True, sharey="row")
    drawn.supxlabel("strength 1/λ")
    for column, (dataset, shots, source) in enumerate(panels):
        of = rows[rows["dataset"].eq(dataset) & rows["shots"].eq(shots) & rows["source"].eq(source)]
        axes[0, column].set_title(f"{titles([(dataset, shots)])[0]}\nsource: {source}")
        for axis, (metric, unit) in zip(axes[:, column], METRICS.items(), strict=True):
            here = of[of["metric"] == metric].sort_values("strength")
            axis.axvline(1, color=METHODS["pretrained"].colour, linewidth=0.8, zorder=0)
            for variant, colour in colours.items():
                line = here[here["variant"] == variant]
                axis.plot(line["strength"], 100 * line["value"], color=colour, linewidth=0.9)
            for method in (*BESIDE, "prt"):
                line = here[here["method"].eq(method) & here["variant"].isna()]
                axis.plot(line["strength"], 100 * line["value"], BESIDE.get(method, "-"), color=METHODS[method].colour)
            if column == 0:
                axis.set_ylabel(unit)
    handles = [
        Line2D([], [], color=METHODS[name].colour, linestyle=BESIDE.get(name, "-"), label=METHODS[name].label)
        for name in ("prt", *BESIDE)
        if rows["method"].eq(name).any()
    ]
    handles += [Line2D([], [], color=colour, linewidth=0.9, label=name) for name, colour in colours.items()]
    handles.append(Line2D([], [], color=INK, linestyle="none", label="means over the targets of a source"))
    legend(drawn, handles)
    return drawn
