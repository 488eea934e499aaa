"""What makes a reward portable: what each way to tune or to add one gains on the targets that it is carried to."""

import itertools
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from prt.errors import InputError
from prt.figures.style import INK, OTHERS, folded, legend, plain_style, save
from prt.methods import METHODS

# Over what a gain is: each with the baseline of methods at strength 1, and of those whose strength is chosen.
OVER = {
    "over the target alone": ("pretrained", "pretrained"),
    "over the source's FT, kept": ("source_ft", "source_ft"),
    "over PoE": ("poe", "poe_chosen"),
}
ALSO = ("prt_best", "prt_chosen", "eft", "poe", "difference")  # beside PRT and its variants
FIRST = "PRT"


def draw(comparison: pd.DataFrame, stem: Path) -> None:
    """Draw the gains to ``stem``.pdf, .png and .csv.

    Args:
        comparison: of one experiment or of several pretrainings, as :mod:`prt.tables` and :mod:`prt.pretrainings` make.
        stem: name of the files, without their ending.

    Raises:
        InputError: if the table compares no variant.
    """
    rows = select(comparison)
    save(figure(rows), rows, stem)


def select(comparison: pd.DataFrame) -> pd.DataFrame:
    """The gains that are shown, with columns ``way`` (how the reward was tuned, or the method) and ``over``.

    What is put on the source itself is no transfer; LoRA has its own table. A strength that is chosen is compared with
    one that is chosen.

    Raises:
        InputError: if there is no variant.
    """
    carried = comparison[(comparison["source"] != comparison["target"]) & ~comparison["lora"]]
    variants = list(carried.loc[carried["method"].eq("prt"), "variant"].dropna().unique())
    if not variants:
        raise InputError("the comparison has no variant of a reward on another model; add one to the configuration.")
    back = carried.assign(
        method=carried["baseline"], baseline=carried["method"], difference=-carried["difference"],
        low=-carried["high"], high=-carried["low"],
    )  # fmt: skip
    # A difference stands in the table once, in one direction.
    both = pd.concat([carried, back[back["method"].eq("difference")]])
    parts = []
    for variant in (None, *variants):
        own = both["variant"].isna() if variant is None else both["variant"].eq(variant)
        parts.append(both[own & both["method"].eq("prt")].assign(way=variant or FIRST))
    parts += [
        both[both["method"].eq(name) & both["variant"].isna()].assign(way=METHODS[name].label)
        for name in ALSO
        if both["method"].eq(name).any()
    ]
    found = pd.concat(parts)
    chosen = found["method"].map(lambda name: METHODS[name].at is not None)
    shown = []
    for over, (plain, alike) in OVER.items():
        baseline = chosen.map({False: plain, True: alike})
        shown.append(found[found["baseline"].eq(baseline)].assign(over=over))
    return pd.concat(shown, ignore_index=True)


@plain_style
def figure(rows: pd.DataFrame) -> Figure:
    """The figure of the rows that :func:`select` gave: a row of panels for each data set, a column a baseline."""
    datasets, ways = list(rows["dataset"].unique()), list(rows["way"].unique())
    transfers = list(dict.fromkeys(zip(rows["source"], rows["target"], strict=True)))
    colour = dict(zip(transfers, itertools.cycle(OTHERS), strict=False))
    drawn = Figure(figsize=(7.4, 0.5 + len(datasets) * (0.4 + 0.2 * len(ways))), layout="constrained")
    axes = drawn.subplots(len(datasets), len(OVER), squeeze=False, sharex="row", sharey=True)
    for line, dataset in zip(axes, datasets, strict=True):
        for axis, over in zip(line, OVER, strict=True):
            here = rows[rows["dataset"].eq(dataset)]
            _panel(axis, here[here["over"].eq(over)], ways, colour, limits(here))
            if dataset == datasets[0]:
                axis.set_title(over)
        line[0].set_ylabel(dataset, fontweight="bold")
    drawn.supxlabel("gain in accuracy (points)")
    handles = [
        Line2D([], [], color=colour[pair], marker="o", linewidth=0.7, markersize=2.6, label=f"{pair[0]} → {pair[1]}")
        for pair in transfers
    ]
    handles.append(Line2D([], [], color=INK, marker="|", linestyle="none", markersize=7, label="mean"))
    legend(drawn, handles)
    return drawn


def limits(rows: pd.DataFrame) -> tuple[float, float]:
    """What is shown, in points: all but weight differences, which may lose more than all others gain."""
    shown = 100 * rows.loc[rows["method"] != "difference", "difference"]
    low, high = min(shown.min(), 0), max(shown.max(), 0)
    return low - 0.1 * (high - low), high + 0.1 * (high - low)


def _panel(
    axis: Axes,
    rows: pd.DataFrame,
    ways: list[str],
    colour: dict[tuple[str, str], str],
    shown: tuple[float, float],
) -> None:
    """A line for each way, from above, with a point and its interval for each transfer; a number where it is beyond."""
    axis.set_xlim(*shown)
    axis.axvline(0, color=INK, linewidth=0.6)
    axis.grid(axis="y", visible=False)
    axis.grid(axis="x", visible=True)
    axis.set_yticks(range(len(ways)), [folded(way, 26) for way in ways])
    axis.tick_params(axis="y", length=0)
    axis.set_ylim(len(ways) - 0.5, -0.5)
    for number, way in enumerate(ways):
        if number % 2:
            axis.axhspan(number - 0.5, number + 0.5, color="#F5F5F5", linewidth=0, zorder=0)
        here = rows[rows["way"] == way]
        if here.empty:
            continue
        mean = 100 * here["difference"].mean()
        if not shown[0] <= mean <= shown[1]:
            side, to = ("left", shown[0]) if mean < shown[0] else ("right", shown[1])
            said = f"mean {mean:.0f}".replace("-", "−")
            axis.text(to, number, f" {said} ", ha=side, va="center", fontsize=5.5)
            continue
        for pair, row in here.set_index(["source", "target"]).iterrows():
            place = number + 0.75 * ((list(colour).index(pair) + 0.5) / len(colour) - 0.5)
            axis.plot([100 * row["low"], 100 * row["high"]], [place] * 2, color=colour[pair], linewidth=0.7)
            axis.plot(100 * row["difference"], place, "o", color=colour[pair], markersize=2.2)
        axis.plot([mean] * 2, [number - 0.42, number + 0.42], color=INK, linewidth=1.4, zorder=3)
