"""Reading tidy tables: one row a measurement."""

from pathlib import Path
from typing import Any

import pandas as pd

from prt.errors import InputError, known


def read_table(path: Path, select: dict[str, Any]) -> pd.DataFrame:
    """Read a table and keep the rows that ``select`` names: a value, or a list under the column's plural.

    Rows with no value in a selected column (a method without alpha, say) are kept.

    Raises:
        InputError: if the file is missing or no table, a column is unknown, or nothing is left.
    """
    if not path.is_file():
        raise InputError(f"the table {path} does not exist; make it first, or correct the path.")
    try:
        table = pd.read_csv(path, dtype={"shots": str, "dataset": str, "source": str, "target": str})
    except ValueError as error:
        raise InputError(f"the table {path} cannot be read ({error}); delete it and make it again.") from None
    for key, wanted in select.items():
        column = key.removesuffix("s") if isinstance(wanted, list) else key
        known(column, table.columns, "column to select")
        values = wanted if isinstance(wanted, list) else [wanted]
        table = table[table[column].isin(values) | table[column].isna()]
    if table.empty:
        raise InputError(f"{path} has no row with {select}; correct the selection.")
    return table
