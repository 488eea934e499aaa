"""Zero-shot accuracy beside the published one: how far each backbone is from where it should be."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from prt.errors import InputError
from prt.figures.style import INK, legend, plain_style, save
from prt.methods import METHODS

MARK = {"top1": "o", "mean_per_class_recall": "s"}
METRIC = {"top1": "top-1", "mean_per_class_recall": "mean per-class recall"}
SHADE = {
    "agrees": (METHODS["ft"].colour, "within the tolerance"),
    "differs": ("#D55E00", "beyond the tolerance"),
    "not judged": (METHODS["pretrained"].colour, "other protocol, not judged"),
}


def draw(table: pd.DataFrame, stem: Path) -> None:
    """Draw the differences (ours − published) to ``stem``.pdf, .png and .csv (all rows).

    Raises:
        InputError: if no backbone has a published value.
    """
    if not table["published"].notna().any():
        raise InputError("the ledger has no published value for any backbone and data set; add some to its table.")
    save(figure(table), table, stem)


@plain_style
def figure(table: pd.DataFrame) -> Figure:
    """A panel per data set, a line per backbone: the difference in points, over a band of the tolerance."""
    rows = table[table["published"].notna()]
    datasets, backbones = (list(dict.fromkeys(rows[c])) for c in ("dataset", "backbone"))
    drawn = Figure(figsize=(1.2 + max(1.15 * len(datasets), 2.6), 0.7 + 0.19 * len(backbones)), layout="constrained")
    axes = drawn.subplots(1, len(datasets), sharex=True, sharey=True, squeeze=False)[0]
    for axis, dataset in zip(axes, datasets, strict=True):
        axis.axvspan(-100 * rows["tolerance"].iloc[0], 100 * rows["tolerance"].iloc[0], color="#EFEFEF", linewidth=0)
        axis.axvline(0, color=INK, linewidth=0.5)
        axis.grid(axis="x")
        axis.set_title(dataset)
        here = rows[rows["dataset"] == dataset]
        for shift, (metric, mark) in zip((-0.12, 0.12), MARK.items(), strict=True):
            for verdict, (colour, _) in SHADE.items():
                of = here[(here["metric"] == metric) & (here["verdict"] == verdict)]
                y = np.array([backbones.index(b) for b in of["backbone"]]) + shift
                error = 100 * np.array([of["ours"] - of["low"], of["high"] - of["ours"]])
                axis.errorbar(
                    100 * of["difference"], y, xerr=error, fmt=mark, color=colour, markersize=3, elinewidth=0.5
                )  # fmt: skip
    axes[0].set_yticks(range(len(backbones)), backbones)
    axes[0].set_ylim(len(backbones) - 0.5, -0.5)
    drawn.supxlabel("ours − published (points)")
    kinds = [Line2D([], [], color=INK, marker=MARK[m], linestyle="none", label=METRIC[m]) for m in MARK]
    seen = [shade for verdict, shade in SHADE.items() if rows["verdict"].eq(verdict).any()]
    legend(drawn, [*kinds, *(Line2D([], [], color=c, marker="o", linestyle="none", label=n) for c, n in seen)])
    return drawn
