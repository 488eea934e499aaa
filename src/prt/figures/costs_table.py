"""Tables 1 and 2: peak memory and time of a batch, beside the time to launch it and the bound of its arithmetic."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from prt.errors import InputError
from prt.figures.sheet import sheet
from prt.figures.style import save, short

METHODS = ("ft", "eft", "prt", "prt_cached")
QUANTITIES = {
    "peak_memory": "memory",
    "time_per_batch": "time",
    "launch_time_per_batch": "launch",
    "flop_bound": "bound",
}


def draw(costs: pd.DataFrame, stem: Path) -> None:
    """Draw Table 1 or 2 to ``stem``.pdf, .png and .csv.

    Raises:
        InputError: if the table holds both, or measurements of several devices, batches or versions.
    """
    one_of_each(costs, ("table", "device", "batch", "torch", "peak_from"))
    rows = costs[costs["quantity"].isin(QUANTITIES) & costs["method"].isin(METHODS)]
    save(figure(rows), rows, stem)


def one_of_each(costs: pd.DataFrame, columns: Iterable[str]) -> None:
    """Refuse a table that mixes measurements which cannot be compared.

    Raises:
        InputError: if one of ``columns`` holds several values.
    """
    for column in columns:
        if costs[column].nunique() > 1:
            values = " and ".join(map(str, costs[column].unique()[:2]))
            raise InputError(f"the table holds more than one '{column}' ({values}); select one.")


def figure(rows: pd.DataFrame) -> Figure:
    """The table: a line for each network, or pair and variant; a group of columns for each method."""
    names = [name for name in ("source", "target", "variant", "precision") if rows[name].notna().any()]
    titles = {"source": "source" if "target" in names else "network"}
    methods = [method for method in METHODS if method in set(rows["method"])]
    # In the order of the last method, which has every variant: FT has none of those that need two networks.
    keys = pd.concat([rows[rows["method"] == methods[-1]], rows])[names].drop_duplicates()
    quantities = [quantity for quantity in QUANTITIES if quantity in set(rows["quantity"])]
    units = rows.drop_duplicates("quantity").set_index("quantity")["unit"]
    lines = []
    for _, key in keys.iterrows():
        here = rows[(rows[names] == key).all(axis=1)]
        by_method = [here[here["method"] == method].set_index("quantity") for method in methods]
        lines.append((list(map(str, key)), [_cell(cells, quantity) for cells in by_method for quantity in quantities]))
    columns = [f"{QUANTITIES[quantity]} ({units[quantity]})" for quantity in quantities]
    one = rows.iloc[0]
    speed = {"datasheet": "its data sheet's peak", "matmul": "the fastest product of matrices"}[one["peak_from"]]
    foot = f"batch {one['batch']}; {one['device']}; torch {one['torch']}"
    return sheet(
        [titles.get(name, name) for name in names],
        [(short(method), columns) for method in methods],
        lines,
        foot + (f"; bound: FLOPs at {speed}" if "flop_bound" in quantities else ""),
    )


def _cell(cells: pd.DataFrame, quantity: str) -> str:
    """A mean in three digits or so, the time's with its standard deviation; – where nothing was measured."""
    if quantity not in cells.index:
        return "–"
    value, std = cells.loc[quantity, "value"], cells.loc[quantity, "std"]
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f}" + (f" ± {std:.{digits}f}" if quantity == "time_per_batch" and pd.notna(std) else "")
