"""The paper's numbers beside ours: a picture of both on one scale, and a table."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from prt.figures.sheet import sheet
from prt.figures.style import INK, legend, plain_style, save, short
from prt.methods import METHODS

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


def draw(rows: pd.DataFrame, stem: Path) -> None:
    """Draw the picture to ``stem``.pdf, .png and .csv, and the table to ``stem``_table.pdf, .png and .csv."""
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
    names = row["our_source"] if alone else f"{row['our_source']} → {row['our_target']}"
    return names + (f", {row['precision']}" if isinstance(row["precision"], str) else "")


@plain_style
def figure(rows: pd.DataFrame) -> Figure:
    """A row of panels per table, one for each quantity: hollow circles are the paper's numbers, full ones ours."""
    items = dict(list(rows.groupby("item")))
    lines = {item: list(dict.fromkeys(_line(r, here) for _, r in here.iterrows())) for item, here in items.items()}
    drawn = Figure(
        figsize=(7.4, 0.3 + sum(0.75 + 0.135 * len(names) for names in lines.values())), layout="constrained"
    )
    parts = drawn.subfigures(len(items), 1, height_ratios=[5.5 + len(names) for names in lines.values()], squeeze=False)
    for part, (item, here) in zip(parts[:, 0], items.items(), strict=True):
        part.suptitle(TITLE[item], fontsize=7.5, fontweight="bold")
        quantities = list(dict.fromkeys(here["quantity"]))
        for axis, quantity in zip(
            part.subplots(1, len(quantities), sharey=True, squeeze=False)[0], quantities, strict=True
        ):
            of = here[here["quantity"] == quantity]
            y = [lines[item].index(_line(r, here)) for _, r in of.iterrows()]
            unit = of["unit"].iloc[0]
            axis.hlines(y, of[["paper", "ours"]].min(axis=1), of[["paper", "ours"]].max(axis=1), INK, linewidth=0.4)
            axis.plot(of["paper"], y, "o", color=INK, markerfacecolor="none", markersize=3.6)
            axis.plot(of["ours"], y, "o", color=METHODS["prt"].colour, markersize=3.6)
            axis.set_yticks(range(len(lines[item])), lines[item])
            axis.set_ylim(len(lines[item]) - 0.5, -0.5)
            axis.grid(axis="x")
            axis.set_xlabel(QUANTITY[quantity] + (f" ({unit})" if isinstance(unit, str) else ""))
            if quantity == "epsilon":
                axis.set_xscale("symlog", linthresh=1e-3)
                axis.xaxis.set_major_formatter(
                    "{x:g}"
                )  # the scale's own writes mathematics, which the style prints raw
            highest = np.nanmax(of[["paper", "ours"]].to_numpy())
            axis.set_xlim(-0.02 * highest if quantity != "epsilon" else -1e-4, 100 if unit == "%" else 1.3 * highest)
    paper = Line2D([], [], color=INK, marker="o", markerfacecolor="none", linestyle="none", label="the paper")
    legend(drawn, [paper, Line2D([], [], color=METHODS["prt"].colour, marker="o", linestyle="none", label="ours")])
    return drawn


def _line(row: pd.Series, here: pd.DataFrame) -> str:
    """The name of a line among those of its table."""
    return _place(row) + (f", {short(row['method'])}" if here["method"].nunique() > 1 else "")


def table(rows: pd.DataFrame) -> Figure:
    """A line for each number of the paper."""
    lines = []
    for _, r in rows.iterrows():
        unit = f" ({r['unit']})" if isinstance(r["unit"], str) else ""
        names = [r["item"].replace("table", "Table "), _place(r), QUANTITY[r["quantity"]] + unit, short(r["method"])]
        paper = _number(r["paper"]) + (f" ± {_number(r['paper_std'])}" if pd.notna(r["paper_std"]) else "")
        lines.append((names, [paper, _number(r["ours"]), _ours(r)]))
    devices = ", ".join(rows["device"].dropna().unique())
    columns = ["paper", "ours", "measured with"]
    return sheet(
        ["table", "network or pair", "quantity", "method"], [("", columns)], lines, f"Tables 1 and 2: {devices}"
    )


def _number(number: float) -> str:
    if pd.isna(number):
        return "–"
    return f"{number:.4g}"
