"""The paper's numbers beside ours: a picture of both on one scale, and a table."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from prt.figures.sheet import sheet
from prt.figures.style import COLOUR, INK, legend, save, sober

TITLE = {
    "table1": "Table 1: a training step",
    "table2": "Table 2: inference on a batch",
    "table5": "Table 5: noise",
    "table7": "Table 7: theory",
}
QUANTITY = {
    "peak_memory": "peak memory",
    "time_per_batch": "time, finished",
    "launch_time_per_batch": "time to launch",
    "top1_clean": "clean images",
    "top1_noise": "noisy images",
    "epsilon": "ε",
    "C": "C",
}
METHOD = {
    "ft": "FT",
    "eft": "EFT",
    "prt": "PRT",
    "untuned": "reward of clean images",
    "tuned": "tuned further on noise",
}


def draw(rows: pd.DataFrame, stem: Path) -> None:
    """Draw the picture to ``stem``.pdf, .png and .csv, and the table to ``stem``_table.pdf and .png."""
    save(figure(rows), rows, stem)
    save(table(rows), rows, stem.with_name(f"{stem.name}_table"))


def _place(row: pd.Series) -> str:
    """What is measured: a network, or a pair of them."""
    return row["source"] if row["source"] == row["target"] else f"{row['source']} → {row['target']}"


def _ours(row: pd.Series) -> str:
    """Our own networks in that place."""
    if pd.isna(row["our_source"]):
        return "–"
    alone = row["our_source"] == row["our_target"]
    return row["our_source"] if alone else f"{row['our_source']} → {row['our_target']}"


@sober
def figure(rows: pd.DataFrame) -> Figure:
    """A panel per table and quantity: hollow circles are the paper's numbers, full ones ours."""
    panels = list(dict.fromkeys(zip(rows["item"], rows["quantity"], rows["unit"].fillna(""), strict=True)))
    lines = [rows[(rows["item"] == item) & (rows["quantity"] == quantity)] for item, quantity, _ in panels]
    columns = 2
    heights = [max(map(len, lines[i : i + columns])) + 5 for i in range(0, len(lines), columns)]
    drawn = Figure(figsize=(7.4, 0.115 * sum(heights) + 0.3), layout="constrained")
    axes = drawn.subplots(len(heights), columns, squeeze=False, height_ratios=heights)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for axis, (item, quantity, unit), here in zip(axes.flat, panels, lines, strict=False):
        y = np.arange(len(here))
        for column, full in (("paper", "none"), ("ours", COLOUR["prt"])):
            colour = INK if column == "paper" else COLOUR["prt"]
            axis.plot(here[column], y, "o", color=colour, markerfacecolor=full, markersize=3.6)
        axis.hlines(y, here[["paper", "ours"]].min(axis=1), here[["paper", "ours"]].max(axis=1), INK, linewidth=0.4)
        many = here["method"].nunique() > 1
        axis.set_yticks(y, [_place(r) + (f", {METHOD[r['method']]}" if many else "") for _, r in here.iterrows()])
        axis.set_ylim(len(here) - 0.5, -0.5)
        axis.grid(axis="x")
        axis.set_title(f"{TITLE[item]}, {QUANTITY[quantity]}", loc="right")
        axis.set_xlabel(unit)
        if unit == "%":
            axis.set_xlim(0, 100)
        elif quantity == "epsilon":
            axis.set_xscale("symlog", linthresh=1e-3)
            axis.set_xlim(left=0)
        else:
            axis.set_xscale("log")
    paper = Line2D([], [], color=INK, marker="o", markerfacecolor="none", linestyle="none", label="the paper")
    legend(drawn, [paper, Line2D([], [], color=COLOUR["prt"], marker="o", linestyle="none", label="ours")])
    return drawn


def table(rows: pd.DataFrame) -> Figure:
    """A line for each number of the paper."""
    lines = []
    for _, r in rows.iterrows():
        unit = f" ({r['unit']})" if isinstance(r["unit"], str) else ""
        names = [r["item"].replace("table", "Table "), _place(r), QUANTITY[r["quantity"]] + unit, METHOD[r["method"]]]
        paper = _short(r["paper"]) + (f" ± {_short(r['paper_std'])}" if pd.notna(r["paper_std"]) else "")
        lines.append((names, [paper, _short(r["ours"]), _ours(r)]))
    return sheet(["table", "network or pair", "quantity", "method"], [("", ["paper", "ours", "measured with"])], lines)


def _short(number: float) -> str:
    if pd.isna(number):
        return "–"
    return f"{number:.4g}"
