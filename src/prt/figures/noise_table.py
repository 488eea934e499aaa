"""Table 5: accuracy on clean and noisy images of every target, with the reward before and after tuning on noise."""

import itertools
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from prt.errors import InputError
from prt.figures.costs_table import one_of_each
from prt.figures.sheet import sheet
from prt.figures.style import save
from prt.select import headline, plain

REWARD = {"pretrained": "none (target alone)", "prt": "tuned on clean images", "adapted": "tuned further on noise"}


def draw(summary: pd.DataFrame, stem: Path) -> None:
    """Draw Table 5 to ``stem``.pdf, .png and .csv.

    Raises:
        InputError: if there are several sources or shots, or no accuracies of the reward.
    """
    rows = select(summary)
    save(figure(rows), rows, stem)


def select(summary: pd.DataFrame) -> pd.DataFrame:
    """The headline metric of the target alone and with each reward, at α = 0 and strength 1.

    ``summary`` holds the clean data set and the noisy one, for one source and one number of shots.

    Raises:
        InputError: if there are several sources or shots, or no accuracies of the reward.
    """
    one_of_each(summary, ("source", "shots"))
    rows = plain(headline(summary))
    for method in ("prt", "adapted"):
        if not rows["method"].eq(method).any():
            raise InputError(f"the summary has no headline accuracy of '{method}'; evaluate it and run again.")
    return rows[rows["method"].isin(list(REWARD))]


def figure(rows: pd.DataFrame) -> Figure:
    """A line per data set and reward, a column per target: percent, ± half of the 95 % interval."""
    targets = list(dict.fromkeys(rows["target"]))
    lines = []
    for dataset, method in itertools.product(dict.fromkeys(rows["dataset"]), REWARD):
        here = rows[rows["dataset"].eq(dataset) & rows["method"].eq(method)]
        cells = {
            r["target"]: f"{100 * r['value']:.1f} ± {50 * (r['high'] - r['low']):.1f}" for r in here.to_dict("records")
        }
        if cells:
            lines.append(([dataset, REWARD[method]], [cells.get(target, "–") for target in targets]))
    source = rows["source"].iloc[0]
    return sheet(["images", "reward"], [(f"reward of {source}, put on", targets)], lines)
