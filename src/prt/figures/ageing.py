"""Does a reward age? One reward on a chain of ever better targets, beside keeping its source and tuning anew."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.typing import LineStyleType

from prt.errors import InputError
from prt.figures.style import conditions, folded, interval, legend, plain_style, save, titles, within
from prt.methods import METHODS
from prt.select import chosen, headline, plain

LINES: dict[str, LineStyleType] = {
    **{"prt": "-", "prt_best": "-", "poe": ":", "difference": "-.", "source_ft": "--", "ft": "-", "pretrained": "-"}
}
APART = ("pretrained", "difference")  # often so far below that the others could not be told from each other


def draw(summary: pd.DataFrame, source: str, targets: Sequence[str], stem: Path) -> None:
    """Draw the accuracies along the chain ``targets`` to ``stem``.pdf, .png and .csv.

    Raises:
        InputError: if the table has nothing of the chain.
    """
    rows = select(summary, source, targets)
    save(figure(rows), rows, stem)


def select(summary: pd.DataFrame, source: str, targets: Sequence[str]) -> pd.DataFrame:
    """The rows of the chain at strength 1 or one that is chosen, in its order.

    Raises:
        InputError: if a target's own accuracy, PRT's or that of the source's FT is missing.
    """
    rows = plain(headline(chosen(summary, sources=source, targets=targets)))
    rows = rows[rows["method"].isin(list(LINES))]
    for method in ("pretrained", "prt", "source_ft"):
        if absent := set(targets) - set(rows.loc[rows["method"] == method, "target"]):
            raise InputError(f"the summary has no '{method}' on '{min(absent)}' of the chain; evaluate it.")
    return rows.sort_values("target", key=lambda names: names.map(list(targets).index), kind="stable")


@plain_style
def figure(rows: pd.DataFrame) -> Figure:
    """The figure of the rows that :func:`select` gave: above accuracies, below gains over keeping the source's FT."""
    columns, source = conditions(rows), rows["source"].iloc[0]
    drawn = Figure(figsize=(max(0.7 + 2.6 * len(columns), 4.5), 4.4), layout="constrained")
    axes = drawn.subplots(2, len(columns), squeeze=False, sharex="col", sharey="row")
    for (above, below), condition, title in zip(axes.T, columns, titles(columns), strict=True):
        above.set_title(title)
        _panels(above, below, within(rows, source, condition))
    axes[0, 0].set_ylabel("accuracy (%)")
    axes[1, 0].set_ylabel("gain over the source's FT, kept (points)")
    drawn.supxlabel(f"the target, and its own accuracy; what is carried was tuned on {source}")
    handles = [
        Line2D([], [], color=METHODS[name].colour, linestyle=line, marker="o", markersize=2, label=METHODS[name].label)
        for name, line in LINES.items()
        if rows["method"].eq(name).any()
    ]
    legend(drawn, handles)
    return drawn


def _panels(above: Axes, below: Axes, rows: pd.DataFrame) -> None:
    """The chain of one data set."""
    own = rows[rows["method"] == "pretrained"].set_index("target")["value"]
    names = list(own.index)
    kept = 100 * rows.loc[rows["method"] == "source_ft", "value"].iloc[0]
    for method, style in LINES.items():
        of = rows[rows["method"] == method]
        x, value = [names.index(target) for target in of["target"]], 100 * of["value"]
        colour = METHODS[method].colour
        # Of few pretrainings an interval may go beyond what an accuracy can be.
        ends = interval(of.assign(low=of["low"].clip(lower=0), high=of["high"].clip(upper=1)))
        above.errorbar(x, value, ends, linestyle=style, marker="o", markersize=2.4, color=colour, elinewidth=0.5)
        if method not in APART:
            below.plot(x, value - kept, style, marker="o", markersize=2.4, color=colour)
    below.set_xticks(range(len(names)), [f"{folded(name, 10)}\n{100 * own[name]:.0f} %" for name in names])
