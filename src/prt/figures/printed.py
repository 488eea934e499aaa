"""The paper's numbers put beside the rows of ours that measure the same."""

from collections.abc import Mapping

import pandas as pd

from prt.errors import InputError

SAME = ["source", "target", "method", "dataset"]


def beside(rows: pd.DataFrame, printed: pd.DataFrame | None, names: Mapping[str, str]) -> pd.DataFrame:
    """Our rows with the columns ``paper`` and ``paper_std``, in the paper's unit; NaN where the paper has no number.

    Args:
        rows: ours, with the columns of ``SAME``.
        printed: the same columns and ``value``, maybe ``std``; None where nothing was printed.
        names: our models' names → the paper's; a model that is not among them has the same name there.

    Raises:
        InputError: if the paper's table has two numbers for one place.
    """
    if printed is None or printed.empty:
        return rows.assign(paper=float("nan"), paper_std=float("nan"))
    if twice := printed[printed.duplicated(SAME)].to_dict("records"):
        place = ", ".join(str(twice[0][key]) for key in SAME)
        raise InputError(f"the paper's table has two numbers for {place}; keep one.")
    theirs = printed.rename(columns={"value": "paper", "std": "paper_std"}).reindex(
        columns=[*SAME, "paper", "paper_std"]
    )
    there = {name: rows[name].map(lambda ours: names.get(ours, ours)) for name in ("source", "target")}
    found = rows.assign(**there)[SAME].merge(theirs, "left", SAME)
    return rows.assign(paper=found["paper"].to_numpy(), paper_std=found["paper_std"].to_numpy())
