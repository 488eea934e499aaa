"""The one look of all figures: type, colours and names of the methods, the grid of panels, and saving."""

import itertools
import math
import re
from collections.abc import Sequence
from pathlib import Path

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.typing import ColorType

from prt.atomic import replacing

NAME = {
    "pretrained": "Pretrained",
    "eft": "EFT",
    "prt": "PRT",
    "ft": "FT (target's own)",
    "instruct": "Instruct (published)",
    "source_ft": "source's FT, kept as it is",
    "poe": "PoE",
    "reward": "reward alone",
}

# Okabe and Ito's palette, told apart by colour-blind readers.
COLOUR = {
    "pretrained": "#B3B3B3",
    "eft": "#E69F00",
    "prt": "#0072B2",
    "ft": "#009E73",
    "instruct": "#F0E442",
    "source_ft": "#000000",
    "poe": "#CC79A7",
    "reward": "#56B4E9",
}

INK = "#333333"

MOST = 6  # panels beside each other, where there is a single source

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

# Used as a decorator on whatever makes or saves artists. DejaVu Sans comes with matplotlib, so every machine
# draws the same letters; starting from the defaults keeps a user's own matplotlibrc out.
sober = matplotlib.style.context(
    {
        "font.family": "DejaVu Sans",
        "font.size": 6.5,
        "axes.titlesize": 7.5,
        "axes.labelsize": 7,
        "figure.labelsize": 7,
        "xtick.labelsize": 6,
        "ytick.labelsize": 6,
        "legend.fontsize": 7,
        "legend.frameon": False,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "axes.linewidth": 0.6,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "grid.color": "#E4E4E4",
        "grid.linewidth": 0.5,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "xtick.major.size": 2,
        "ytick.major.size": 2,
        "lines.linewidth": 1.1,
        "lines.markersize": 3.2,
        "pdf.fonttype": 42,
        "text.parse_math": False,  # a dollar sign is a dollar sign
    },
    after_reset=True,
)

Condition = tuple[str, str]


def headline(summary: pd.DataFrame) -> pd.DataFrame:
    """The rows that figures show: top-1; of a language table, each benchmark's headline metric, without LoRA."""
    if "headline" not in summary:
        return summary[summary["metric"] == "top1"]
    return summary[summary["headline"] & ~summary["lora"]]


def measure(summary: pd.DataFrame) -> str:
    """What :func:`headline` keeps, in words."""
    return "headline" if "headline" in summary else "top-1"


def _shots(table: pd.DataFrame) -> pd.Series:
    """Shots as text; language models are tuned on all of their data."""
    return table["shots"].astype(str) if "shots" in table else pd.Series("full", index=table.index)


def conditions(table: pd.DataFrame) -> list[Condition]:
    """The distinct (dataset, shots) of a table, in its order."""
    return list(dict.fromkeys(zip(table["dataset"], _shots(table), strict=True)))


def titles(of: Sequence[Condition]) -> list[str]:
    """One title per condition; shots are told only where some model saw less than the full data."""
    if all(shots == "full" for _, shots in of):
        return [dataset for dataset, _ in of]
    return [f"{dataset}, {'full data' if shots == 'full' else f'{shots} shots'}" for dataset, shots in of]


def cell(table: pd.DataFrame, source: str, condition: Condition) -> pd.DataFrame:
    """The rows of one panel: one source on one (dataset, shots)."""
    dataset, shots = condition
    return table[(table["source"] == source) & (table["dataset"] == dataset) & (_shots(table) == shots)]


def grid(
    sources: Sequence[str], columns: Sequence[Condition], width: float, height: float
) -> tuple[Figure, np.ndarray]:
    """A figure and its axes: a row of panels per source, a column per (dataset, shots); sizes in inches.

    Many panels of a single source go into several rows. All panels of a data set share their y axis, in percent.
    """
    wide = (
        len(columns)
        if len(sources) > 1 or len(columns) <= MOST
        else math.ceil(len(columns) / math.ceil(len(columns) / MOST))
    )
    panels = list(itertools.product(sources, zip(columns, titles(columns), strict=True)))
    rows = math.ceil(len(panels) / wide)
    figure = Figure(figsize=(max(0.6 + width * wide, 3.5), 0.3 + height * rows), layout="constrained")
    axes = figure.subplots(rows, wide, squeeze=False).ravel()
    for axis in axes[len(panels) :]:
        axis.remove()
    first: dict[str, Axes] = {}
    for number, (axis, (source, ((dataset, _), title))) in enumerate(zip(axes, panels, strict=False)):
        if axis is not first.setdefault(dataset, axis):
            axis.sharey(first[dataset])
        if number < len(columns):
            axis.set_title(title)
        if number % wide == 0:
            axis.set_ylabel(folded(f"source: {source}", 20), fontweight="bold")
    figure.supylabel("accuracy (%)")
    return figure, axes[: len(panels)]


def folded(name: str, width: int) -> str:
    """A name in lines of about ``width`` letters, broken after a space, a hyphen or an underscore."""
    lines = [""]
    for part in re.findall(r"[^ _-]+[ _-]?|[ _-]", name):
        if lines[-1] and len(lines[-1] + part.strip()) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(line.strip() for line in lines)


def places(rows: pd.DataFrame, names: Sequence[str]) -> np.ndarray:
    """The group, at x = 0, 1, …, of each row's target."""
    return np.array([names.index(target) for target in rows["target"]], dtype=float)


def group_labels(axis: Axes, names: Sequence[str]) -> None:
    """Name the groups at x = 0, 1, …; slanted and folded, so that long names stay apart."""
    lines = [folded(name, 12) for name in names]
    axis.set_xticks(range(len(names)), lines, rotation=45, ha="right", va="top", rotation_mode="anchor")
    axis.tick_params(axis="x", length=0, pad=1)
    axis.set_xlim(-0.52, len(names) - 0.48)


def legend(figure: Figure, handles: Sequence[Artist]) -> None:
    """The one legend of a figure, above its panels, in as many lines as its width asks for."""
    inches = [0.37 + 0.048 * len(str(handle.get_label())) for handle in handles]
    for lines in range(1, len(inches) + 1):  # matplotlib fills column by column
        columns = np.array_split(inches, math.ceil(len(inches) / lines))
        if sum(max(column) for column in columns) <= figure.get_figwidth():
            break
    figure.set_figheight(figure.get_figheight() + 0.17 * lines)
    figure.legend(
        handles=list(handles), loc="outside upper center", ncols=len(columns),
        columnspacing=1.2, handlelength=1.6,
    )  # fmt: skip


def interval(rows: pd.DataFrame) -> list[pd.Series]:
    """The lengths, in percent, of the error bars below and above the values."""
    below, above = rows["value"] - rows["low"], rows["high"] - rows["value"]
    return [100 * below.clip(lower=0), 100 * above.clip(lower=0)]


def alpha_colour(alpha: float) -> ColorType:
    """PRT's own colour for α = 0 (vanilla PRT); from purple to yellow for 1e-5 to 1e-1."""
    if alpha == 0:
        return COLOUR["prt"]
    return colormaps["plasma"](0.3 + 0.6 * min(max((math.log10(alpha) + 5) / 4, 0), 1))


def alpha_name(alpha: float) -> str:
    """α as a reader writes it: a power of ten, or the plain number."""
    power = round(math.log10(alpha)) if alpha > 0 else 0
    if power and math.isclose(alpha, 10.0**power):
        return f"α = 10{str(power).translate(_SUPERSCRIPT)}"
    return f"α = {alpha:g}"


@sober
def save(figure: Figure, table: pd.DataFrame, stem: Path) -> None:
    """Write ``stem``.pdf, .png and .csv (the rows that were drawn), each whole or not at all.

    The PDF carries no date: the same rows give the same bytes.
    """
    with replacing(stem.with_name(f"{stem.name}.pdf")) as aside:
        figure.savefig(aside, format="pdf", metadata={"CreationDate": None})
    with replacing(stem.with_name(f"{stem.name}.png")) as aside:
        figure.savefig(aside, format="png", dpi=200)
    with replacing(stem.with_name(f"{stem.name}.csv")) as aside:
        table.to_csv(aside, index=False, lineterminator="\n")
