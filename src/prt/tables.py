"""The tidy tables of all experiments: one row a measurement, made of results by one piece of code."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from prt import stats
from prt.atomic import must_exist, write_text
from prt.cell import TABLES, Cell
from prt.errors import InputError
from prt.methods import METHODS
from prt.results import Measure, Result

KEYS = ["dataset", "shots", "source", "target", "method", "alpha", "variant", "lora", "strength"]
TRANSFER = [*KEYS, "seed", "metric", "headline", "value", "low", "high", "n"]
SUMMARY = [*KEYS, "metric", "headline", "value", "std", "low", "high", "seeds", "n"]
PLACE = ["dataset", "shots", "source", "target", "lora"]
DIFFERENCE = ["difference", "low", "high", "p", "p_holm", "verdict", "seeds", "n"]
COMPARISON = [*PLACE, "method", "variant", "baseline", "metric", *DIFFERENCE]


# Columns of numbers, which may be empty, and of yes and no, in these and in all other tables.
NUMBERS = {
    *("alpha", "strength", "seed", "value", "std", "low", "high", "n", "seeds", "difference", "p", "p_holm"),
    *("epsilon", "C", "bound", "kl", "ours", "published", "tolerance", "iteration"),
}
CHOICES = {"headline", "lora"}

Seeds = dict[int | None, Result]  # the results of one row of the summary


class Tables(NamedTuple):
    """The tables of some cells; all intervals are of 95 %, as in :mod:`prt.stats`.

    ``transfer`` has a row for each cell and metric, with an interval over the examples; ``summary`` one for all seeds
    of a cell, with their spread and an interval over seeds and examples; ``comparison`` the paired differences, in
    the headline metric, of what is transferred (at α = 0 and strength 1) from the other methods. A model without a
    seed has one row, no seed, no spread over seeds, and an interval over the examples.

    Of a method whose strength, or variant, is chosen, ``transfer`` says which it was, and ``summary`` none; it is
    compared with what transfers with a chosen strength, too, and others with what does not. A variant is compared with
    the experiment's own.

    ``verdict`` and ``p`` are of each comparison alone; ``p_holm`` is corrected for all comparisons of these tables;
    those of variants, weight differences and chosen strengths are a family of their own.
    """

    transfer: pd.DataFrame
    summary: pd.DataFrame
    comparison: pd.DataFrame


def tables(cells: Sequence[Cell], measured: Callable[[Cell], Result]) -> Tables:
    """The tables of ``cells``, each with a source and a target, of what ``measured`` knows of each.

    Raises:
        InputError: if there are no cells, or as ``measured`` raises it for a cell without a result.
    """
    if not cells:
        raise InputError("there is nothing to make tables of: the configuration compares no models here.")
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in TABLES}
    places: dict[tuple[Any, ...], dict[Cell, Seeds]] = {}  # what is compared with each other
    for cell in dict.fromkeys(cell.clean() for cell in cells):
        variant = cell.model_copy(update={"seed": None})
        of = places.setdefault((cell.dataset, cell.shots, cell.source, cell.target), {})
        of.setdefault(variant, {})[cell.seed] = measured(cell)
    for variants in places.values():
        for variant, seeds in variants.items():
            for row, table in _rows(variant, seeds):
                rows[table].append(row)
        rows["comparison"] += _compare(variants)
    names = {"variant": "str"}  # also where there is none
    comparison = pd.DataFrame(rows["comparison"], columns=COMPARISON).astype(names)
    return Tables(
        pd.DataFrame(rows["transfer"], columns=TRANSFER).astype(names | {"seed": "Int64"}),
        pd.DataFrame(rows["summary"], columns=SUMMARY).astype(names),
        comparison.assign(
            p_holm=comparison.groupby(extra(comparison))["p"].transform(lambda p: stats.holm(p.to_numpy(float)))
        ),
    )


def extra(comparison: pd.DataFrame) -> pd.Series:
    """The comparisons that are this project's extensions, and a family of their own when p-values are corrected."""
    ours = [name for name, of in METHODS.items() if of.at or of.merged]
    return comparison["variant"].notna() | comparison["method"].isin(ours)


def _rows(variant: Cell, seeds: Seeds) -> Iterator[tuple[dict[str, Any], str]]:
    """The rows of one line of the summary, each with the name of its table."""
    first = next(iter(seeds.values()))
    for metric in first.measures:
        here = variant.model_dump() | {"metric": metric, "headline": metric == first.headline}
        measures = {seed: result.measures[metric] for seed, result in seeds.items()}
        n = {"n": len(first.measures[metric].values)}
        for seed, measure in measures.items():
            chosen = {key: getattr(seeds[seed], key) for key in ("strength", "alpha", "variant")}
            chosen = {key: value for key, value in chosen.items() if value is not None}
            row = here | {"seed": seed} | chosen | vars(measure.interval(measure.values, measure.groups)) | n
            yield row, "transfer"
        x, groups = _stacked(list(measures.values()))
        spread = {"std": stats.spread(x, groups), "seeds": len(seeds)}
        yield here | vars(first.measures[metric].interval(x, groups)) | spread | n, "summary"


def _stacked(measures: Sequence[Measure]) -> tuple[np.ndarray, np.ndarray]:
    return np.stack([measure.values for measure in measures]), measures[0].groups


def _compare(variants: dict[Cell, Seeds]) -> Iterator[dict[str, Any]]:
    """What is transferred minus each other method, example by example, over the common seeds."""
    plain = {
        (cell.method, cell.lora, cell.variant): (cell, seeds)
        for cell, seeds in variants.items()
        if (not cell.alpha or cell.variant) and cell.strength in (None, 1)
    }
    order = list(METHODS)
    for (method, lora, variant), (cell, seeds) in plain.items():
        if not METHODS[method].transfers:
            continue
        for baseline, of in METHODS.items():
            own = variant is not None and baseline == method
            before = of.transfers and order.index(baseline) <= order.index(method) and not own
            before = before or (of.transfers and (of.at is None) != (METHODS[method].at is None))
            _, other = plain.get((baseline, lora and of.seeded, None), (None, {}))
            common = [seed for seed in seeds if seed in other or None in other]
            if before or (of.has_alpha and not of.transfers) or not common:
                continue
            metric = next(iter(seeds.values())).headline
            mine, groups = _stacked([seeds[s].measures[metric] for s in common])
            theirs, _ = _stacked([other[s if s in other else None].measures[metric] for s in common])
            e = stats.difference(mine - theirs, groups)
            verdict = "better" if e.low > 0 else "worse" if e.high < 0 else "not told apart"
            yield {key: getattr(cell, key) for key in PLACE} | {
                "method": method, "variant": variant, "baseline": baseline, "metric": metric,
                "difference": e.value, "low": e.low, "high": e.high, "p": e.p, "verdict": verdict,
                "seeds": len(common), "n": len(groups),
            }  # fmt: skip


def read_csv(path: Path, dtype: Any = None, **options: Any) -> pd.DataFrame:
    """Read a table; ``dtype`` as in pandas.

    Raises:
        InputError: if the file is missing or no table.
    """
    must_exist(path, "table")
    try:
        return pd.read_csv(path, dtype=dtype, **options)
    except (ValueError, OverflowError, OSError) as error:
        said = " ".join(str(error).split())
        raise InputError(f"the table {path} cannot be read ({said}); delete it and make it again.") from None


def write_table(path: Path, table: pd.DataFrame, digits: int = 10) -> None:
    """Write a table whole or not at all, its numbers with so many significant digits."""
    write_text(path, table.to_csv(index=False, float_format=f"%.{digits}g", lineterminator="\n"))


def read_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read a table that must have ``columns``.

    Raises:
        InputError: if the file is missing or no table, lacks a column or rows, or has text where numbers belong.
    """
    names = dict.fromkeys(("shots", "dataset", "source", "target", "variant"), str)
    table = read_csv(path, names, keep_default_na=False, na_values=[""])  # a name may be NA
    if missing := [column for column in columns if column not in table.columns]:
        raise InputError(f"the table {path} has no column '{missing[0]}'; delete it and make it again.")
    if table.empty:
        raise InputError(f"the table {path} is empty, a header without rows; make it again.")
    for column in columns:
        kind = table[column].dtype
        wrong = column in NUMBERS and (not is_numeric_dtype(kind) or np.isinf(table[column]).any())
        if wrong or (column in CHOICES and not is_bool_dtype(kind)):
            raise InputError(f"the table {path} has a wrong value in its column '{column}'; mend it, or make it again.")
    return table


def collected(paths: Sequence[Path]) -> pd.DataFrame:
    """Tables with the same columns under each other, their cells as they are written."""
    return pd.concat([read_csv(path, str) for path in paths])
