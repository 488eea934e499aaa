"""Table 3: time of a decoded token, beside the bound of the bytes that it moves."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from prt.errors import InputError
from prt.figures.costs_table import one_of_each
from prt.figures.printed import beside
from prt.figures.sheet import sheet
from prt.figures.style import save, short

METHODS = ("pretrained", "eft", "prt", "prt_speculative")
QUANTITIES = {
    "time_per_token": "ms/token",
    "tokens_per_second": "tokens/s",
    "bytes_bound": "bound (ms)",
    "relative_speed": "speed",
    "acceptance": "accepted",
}

PLACE = ["source", "target", "method", "variant"]


def draw(
    costs: pd.DataFrame,
    stem: Path,
    *,
    published: pd.DataFrame | None = None,
    names: Mapping[str, str] | None = None,
) -> None:
    """Draw Table 3 to ``stem``.pdf, .png and .csv.

    Args:
        costs: a row for each measured quantity.
        stem: name of the files, without their ending.
        published: the paper's numbers: item, source, target, method, quantity, value and std. They stand beside the
            first variant of each method, the plainest.
        names: our models' names → the paper's, where they differ.

    Raises:
        InputError: if the table holds measurements of several devices, precisions, lengths or versions, or one twice.
    """
    one_of_each(costs, ("device", "precision", "weights", "prompt_tokens", "new_tokens", "repeats", "torch"))
    rows = costs[costs["quantity"].isin(QUANTITIES)]
    if rows.empty:
        raise InputError("the table has no times of decoding; measure them first.")
    if twice := rows[rows.duplicated([*PLACE, "quantity"])].to_dict("records"):
        source, target, method, variant, quantity = (twice[0][key] for key in [*PLACE, "quantity"])
        raise InputError(
            f"the table holds two values of {quantity} for {method} of {source} on {target}, {variant}; keep one."
        )
    plainest = rows.groupby(["source", "target", "method"], sort=False, dropna=False)["variant"].transform("first")
    printed = None
    if published is not None:
        printed = published[published["item"] == "table3"].rename(columns={"quantity": "dataset"})
    both = beside(rows.assign(dataset=rows["quantity"]), printed, names or {}).drop(columns="dataset")
    both.loc[rows["variant"].ne(plainest) & rows["variant"].notna(), ["paper", "paper_std"]] = float("nan")
    save(figure(both), both, stem)


def figure(rows: pd.DataFrame) -> Figure:
    """The table: a line for each pair, method and variant."""
    printed = rows["paper"].notna().any()
    quantities = [quantity for quantity in QUANTITIES if rows["quantity"].eq(quantity).any()]
    headers = [QUANTITIES[quantity] for quantity in quantities]
    columns = [("", headers)] if not printed else [("ours", headers), ("paper", ["ms/token", "speed"])]
    lines = []
    for (source, target), pair in rows.groupby(["source", "target"], sort=False):
        alone = pair[pair["method"] == "pretrained"]["paper"].max()
        for method in dict.fromkeys([*METHODS, *pair["method"]]):
            of = pair[pair["method"] == method]
            for variant, here in of.groupby("variant", sort=False, dropna=False):
                cells = here.set_index("quantity")
                texts = [_cell(cells, quantity) for quantity in quantities]
                if printed:
                    ms, std = cells["paper"].max(), cells["paper_std"].max()
                    texts += ["–", "–"] if pd.isna(ms) else [f"{ms:.1f} ± {std:.1f}", f"×{alone / ms:.2f}"]
                names = [source, target, short(method), "–" if pd.isna(variant) else variant]
                lines.append((names, texts))
    one = rows.iloc[0]
    foot = (
        f"{one['device']}; {one['precision']}; torch {one['torch']}; "
        f"{one['weights']} weights; prompt of {one['prompt_tokens']} tokens, "
        f"{one['new_tokens']} new ones, {one['repeats']} repeats; speed: relative to the target alone"
    )
    if "bytes_bound" in quantities:
        foot += "; bound: the bytes that a token must move, at the device's bandwidth"
    return sheet(["source", "target", "method", "variant"], columns, lines, foot)


def _cell(cells: pd.DataFrame, quantity: str) -> str:
    """A number as Table 3 shows it, a time's with its standard deviation; – where nothing was measured."""
    if quantity not in cells.index:
        return "–"
    value, std = cells.loc[quantity, "value"], cells.loc[quantity, "std"]
    if quantity == "relative_speed":
        return f"×{value:.2f}"
    if quantity == "acceptance":
        return f"{100 * value:.0f} %"
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f}" + (f" ± {std:.{digits}f}" if quantity == "time_per_token" and pd.notna(std) else "")
