"""Tables 1 and 2: peak memory and time of a batch, beside the time to launch it and the bound of its arithmetic."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from prt.errors import InputError
from prt.figures.style import INK, save, sober

METHODS = {"ft": "FT", "eft": "EFT", "prt": "PRT", "prt_cached": "PRT, log π cached"}
QUANTITIES = {
    "peak_memory": "memory",
    "time_per_batch": "time",
    "launch_time_per_batch": "launch",
    "flop_bound": "bound",
}
# Inches: a column without and with a standard deviation, the gap between two groups, the height of a line, a letter.
NARROW, WIDE, GAP, LINE, LETTER = 0.46, 0.8, 0.16, 0.17, 0.063


def draw(costs: pd.DataFrame, stem: Path) -> None:
    """Draw Table 1 or 2 to ``stem``.pdf, .png and .csv.

    Raises:
        InputError: if the table holds both, or measurements of several devices, batches or versions.
    """
    for column in ("table", "device", "batch", "torch", "peak_from"):
        if costs[column].nunique() > 1:
            values = " and ".join(map(str, costs[column].unique()[:2]))
            raise InputError(f"the table holds more than one '{column}' ({values}); select one.")
    rows = costs[costs["quantity"].isin(QUANTITIES) & costs["method"].isin(METHODS)]
    save(figure(rows), rows, stem)


@sober
def figure(rows: pd.DataFrame) -> Figure:
    """The table: a line for each network, or pair and variant; a group of columns for each method."""
    names = [name for name in ("source", "target", "variant", "precision") if rows[name].notna().any()]
    titles = {"source": "source" if "target" in names else "network"}
    methods = [method for method in METHODS if method in set(rows["method"])]
    # In the order of the last method, which has every variant: FT has none of those that need two networks.
    lines = pd.concat([rows[rows["method"] == methods[-1]], rows])[names].drop_duplicates()
    quantities = [quantity for quantity in QUANTITIES if quantity in set(rows["quantity"])]
    units = rows.drop_duplicates("quantity").set_index("quantity")["unit"]

    widths = [0.2 + LETTER * max(len(str(text)) for text in [titles.get(n, n), *lines[n]]) for n in names]
    starts = [sum(widths[:i]) for i in range(len(names))]
    columns = [WIDE if quantity == "time_per_batch" else NARROW for quantity in quantities]
    lefts = [sum(widths) + (sum(columns) + GAP) * i for i in range(len(methods))]
    width, height = lefts[-1] + sum(columns) + GAP, LINE * (len(lines) + 4)

    drawn = Figure(figsize=(width + 0.2, height + 0.2))
    axis = drawn.add_axes((0, 0, 1, 1))
    axis.set(xlim=(-0.1, width + 0.1), ylim=(height + 0.1, -0.1))
    axis.set_axis_off()

    def write(x: float, line: float, text: str, **how: Any) -> None:
        axis.text(x, (line + 0.5) * LINE, text, va="center_baseline", **how)

    def rule(line: float, left: float, right: float, thick: float) -> None:
        axis.plot([left, right], [line * LINE] * 2, color=INK, linewidth=thick)

    def numbers(line: float, left: float, text: Callable[[str], str]) -> None:
        right = left + GAP
        for quantity, wide in zip(quantities, columns, strict=True):
            right += wide
            write(right, line, text(quantity), ha="right")

    rule(0, 0, width, 1)
    for name, start in zip(names, starts, strict=True):
        write(start, 2, titles.get(name, name), fontweight="bold")
    for left, method in zip(lefts, methods, strict=True):
        write(left + (GAP + sum(columns) + GAP) / 2, 0, METHODS[method], ha="center", fontweight="bold")
        rule(1, left + GAP, left + GAP + sum(columns), 0.4)
        numbers(1, left, QUANTITIES.__getitem__)
        numbers(2, left, lambda quantity: f"({units[quantity]})")
    rule(3, 0, width, 0.6)

    above: tuple[Any, ...] = ()
    for line, (_, key) in enumerate(lines.iterrows(), start=3):
        pair = tuple(key[name] for name in names if name in ("source", "target"))
        if pair != above and above:
            rule(line, 0, width, 0.4)
        for name, start in zip(names, starts, strict=True):
            if pair != above or name in ("variant", "precision"):
                write(start, line, str(key[name]))
        above = pair
        here = rows[(rows[names] == key).all(axis=1)]
        for left, method in zip(lefts, methods, strict=True):
            cells = here[here["method"] == method].set_index("quantity")
            numbers(line, left, lambda quantity, cells=cells: _cell(cells, quantity))  # type: ignore[misc]
    rule(len(lines) + 3, 0, width, 1)
    one = rows.iloc[0]
    speed = {"datasheet": "its data sheet's peak", "matmul": "the speed of a large matrix product"}[one["peak_from"]]
    facts = f"batch {one['batch']}; {one['device']}; torch {one['torch']}; bound: FLOPs at {speed}"
    write(0, len(lines) + 3.2, facts, color="#777777")
    return drawn


def _cell(cells: pd.DataFrame, quantity: str) -> str:
    """A mean in three digits or so, the time's with its standard deviation; – where nothing was measured."""
    if quantity not in cells.index:
        return "–"
    value, std = cells.loc[quantity, "value"], cells.loc[quantity, "std"]
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f}" + (f" ± {std:.{digits}f}" if quantity == "time_per_batch" and pd.notna(std) else "")
