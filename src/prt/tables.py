"""Reading and writing tidy tables: one row a measurement."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from prt.atomic import write_text
from prt.errors import InputError, known


def read_csv(path: Path, dtype: Any = None) -> pd.DataFrame:
    """Read a table; ``dtype`` as in pandas.

    Raises:
        InputError: if the file is missing or no table.
    """
    if not path.is_file():
        raise InputError(f"the table {path} does not exist; make it first, or correct the path.")
    try:
        return pd.read_csv(path, dtype=dtype)
    except ValueError as error:
        told = " ".join(str(error).split())
        raise InputError(f"the table {path} cannot be read ({told}); delete it and make it again.") from None


def write_table(path: Path, table: pd.DataFrame, digits: int = 10) -> None:
    """Write a table whole or not at all, its numbers with so many significant digits."""
    write_text(path, table.to_csv(index=False, float_format=f"%.{digits}g", lineterminator="\n"))


def read_table(path: Path, select: dict[str, Any], columns: Iterable[str]) -> pd.DataFrame:
    """Read a table with ``columns`` and keep the rows that ``select`` names: a value, or a list under the plural.

    Rows with no value in a selected column (a method without alpha, say) are kept.

    Raises:
        InputError: if the file is missing or no table, lacks a column or rows, or nothing is left.
    """
    table = read_csv(path, {"shots": str, "dataset": str, "source": str, "target": str})
    if missing := [column for column in columns if column not in table.columns]:
        raise InputError(f"the table {path} has no column '{missing[0]}'; give the table that this figure shows.")
    if table.empty:
        raise InputError(f"the table {path} is empty, a header without rows; make it again.")
    for key, wanted in select.items():
        column = key.removesuffix("s") if isinstance(wanted, list) else key
        known(column, table.columns, "column to select")
        values = wanted if isinstance(wanted, list) else [wanted]
        table = table[table[column].isin(values) | table[column].isna()]
    if table.empty:
        raise InputError(f"{path} has no row with {select}; correct the selection.")
    return table
