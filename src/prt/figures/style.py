"""The one look of all figures: type, the grid of panels, names of what is shown, and saving."""

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
from prt.methods import METHODS

INK = "#333333"

# For what is no method, beside PRT's, EFT's and PoE's colours: of Okabe and Ito's palette and Tol's, and a brown.
OTHERS = ("#009E73", "#D55E00", "#882255", "#56B4E9", "#000000", "#999933", "#7F4F24", "#44AA99")

MOST = 6  # panels beside each other, where there is a single source

# Where a column has no room for the label, and what only tables of costs know.
_SHORT = {
    "ft": "FT",
    "source_ft": "source's FT",
    "instruct": "Instruct",
    "prt_cached": "PRT, log π cached",
    "prt_speculative": "PRT, speculative",
}

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

# Used as a decorator on whatever makes or saves artists. DejaVu Sans comes with matplotlib, so every machine
# draws the same letters; starting from the defaults keeps a user's own matplotlibrc out.
plain_style = matplotlib.style.context(
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


def short(method: str) -> str:
    """A method's name in a column of a table."""
    return _SHORT[method] if method in _SHORT else METHODS[method].label


def conditions(table: pd.DataFrame) -> list[Condition]:
    """The distinct (dataset, shots) of a table, in its order."""
    return list(dict.fromkeys(zip(table["dataset"], table["shots"], strict=True)))


def titles(of: Sequence[Condition]) -> list[str]:
    """One title per condition, with the shots only where some model saw less than the full data."""
    if all(shots == "full" for _, shots in of):
        return [dataset for dataset, _ in of]
    return [f"{dataset}, {'full data' if shots == 'full' else f'{shots} shots'}" for dataset, shots in of]


def within(table: pd.DataFrame, source: str, condition: Condition) -> pd.DataFrame:
    """The rows of one panel: one source on one (dataset, shots)."""
    dataset, shots = condition
    return table[(table["source"] == source) & (table["dataset"] == dataset) & (table["shots"] == shots)]


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
        return METHODS["prt"].colour
    return colormaps["plasma"](0.3 + 0.6 * min(max((math.log10(alpha) + 5) / 4, 0), 1))


def alpha_name(alpha: float) -> str:
    """α as a reader writes it: a power of ten, or the plain number."""
    power = round(math.log10(alpha)) if alpha > 0 else 0
    if power and math.isclose(alpha, 10.0**power):
        return f"α = 10{str(power).translate(_SUPERSCRIPT)}"
    return f"α = {alpha:g}"


@plain_style
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
