"""Table 5: accuracy on clean and noisy images of every target, with the reward before and after tuning on noise."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from prt.errors import InputError
from prt.figures.sheet import sheet
from prt.figures.style import save

REWARD = {"none": "none (target alone)", "untuned": "tuned on clean images", "tuned": "tuned further on noise"}


def draw(table: pd.DataFrame, stem: Path) -> None:
    """Draw Table 5 to ``stem``.pdf, .png and .csv.

    Raises:
        InputError: if the table holds no top-1 accuracies.
    """
    rows = table[table["metric"] == "top1"]
    if rows.empty:
        raise InputError("the noise table has no top-1 accuracies; make it again.")
    save(figure(rows), rows, stem)


def figure(rows: pd.DataFrame) -> Figure:
    """A line per data set and reward, a column per target: percent, ± half of the 95 % interval."""
    targets = list(dict.fromkeys(rows["target"]))
    lines = []
    for (dataset, reward), here in rows.groupby(["dataset", "reward"], sort=False):
        cells = {
            r["target"]: f"{100 * r['value']:.1f} ± {50 * (r['high'] - r['low']):.1f}" for r in here.to_dict("records")
        }
        lines.append(([dataset, REWARD[reward]], [cells.get(target, "–") for target in targets]))
    source = rows["source"].iloc[0]
    return sheet(["images", "reward"], [(f"reward of {source}, put on", targets)], lines)
