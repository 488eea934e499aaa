"""Two rewards on a target at once: accuracy over the strengths of both."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from prt.figures.style import legend, plain_style, save
from prt.methods import METHODS

CHOSEN = METHODS["adapted"].colour


def draw(rows: pd.DataFrame, rewards: Sequence[str], test: str, validation: str, stem: Path) -> None:
    """Draw a table of :mod:`prt.together` to ``stem``.pdf, .png and .csv; see :func:`figure`."""
    save(figure(rows, rewards, test, validation), rows, stem)


@plain_style
def figure(rows: pd.DataFrame, rewards: Sequence[str], test: str, validation: str) -> Figure:
    """A row of panels for each data set and for both, a column for each target; all of a row have one scale.

    Args:
        rewards: what the first and the second were tuned on.
        test: what a value of a data set is of, ``{}`` being the data set.
        validation: what the choice is made on.
    """
    datasets, targets = (list(rows[column].unique()) for column in ("dataset", "target"))
    drawn = Figure(figsize=(0.7 + 2.0 * len(targets), 0.4 + 1.75 * len(datasets)), layout="constrained")
    axes = drawn.subplots(len(datasets), len(targets), squeeze=False, sharex=True, sharey=True)
    drawn.supxlabel(f"strength of the reward tuned on {rewards[0]}")
    drawn.supylabel(f"strength of the reward tuned on {rewards[1]}")
    for dataset, line in zip(datasets, axes, strict=True):
        here = rows[rows["dataset"] == dataset]
        scale = Normalize(here["value"].min(), here["value"].max())
        for target, axis in zip(targets, line, strict=True):
            _panel(axis, here[here["target"] == target], scale)
            if dataset == datasets[0]:
                axis.set_title(f"on {target}")
        what = "mean of both" if dataset == datasets[-1] else test.format(dataset)
        line[0].set_ylabel(f"{what} (%)", fontweight="bold")
    mark = Rectangle((0, 0), 1, 1, fill=False, edgecolor=CHOSEN, linewidth=1.5, label=f"best on {validation}")
    legend(drawn, [mark])
    return drawn


def _panel(axis: Axes, rows: pd.DataFrame, scale: Normalize) -> None:
    grid = rows.pivot(index="second", columns="first", values="value")
    axis.imshow(grid, origin="lower", cmap="cividis", norm=scale, aspect="auto")
    axis.grid(visible=False)
    axis.set_xticks(range(len(grid.columns)), [f"{x:g}" for x in grid.columns])
    axis.set_yticks(range(len(grid.index)), [f"{y:g}" for y in grid.index])
    for (y, x), value in np.ndenumerate(grid.to_numpy()):
        dark = scale(value) < 0.6
        axis.text(x, y, f"{100 * value:.0f}", ha="center", va="center", color="white" if dark else "black", fontsize=6)
    best = rows[rows["chosen"]].iloc[0]
    corner = (list(grid.columns).index(best["first"]) - 0.5, list(grid.index).index(best["second"]) - 0.5)
    axis.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=CHOSEN, linewidth=1.5, clip_on=False, zorder=3))
