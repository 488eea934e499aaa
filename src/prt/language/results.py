"""Results of evaluated language models: ``result.json`` of each cell, one value per example, and no model loaded."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from pydantic import ValidationError

from prt.atomic import read_json
from prt.cell import Cell
from prt.errors import InputError, first_line
from prt.methods import method
from prt.results import Measure, Result

# Of a protocol: how a model was run, which may differ between models.
OWN = ("batch", "context", "dtype", "engine", "template")
_FIELDS = {
    "benchmark": {"type": "string"},
    "cell": {"type": ["object", "array"], "items": {"type": "object"}, "minItems": 1},
    "headline": {"type": "string"},
    "metrics": {"type": "object", "minProperties": 1, "additionalProperties": {"type": "number"}},
    "examples": {"type": "object", "additionalProperties": {"type": "array", "minItems": 1}},
    "documents": {"type": "string"},
    "strength": {"type": ["number", "null"]},
    "protocol": {"type": "object"},
}
# Results of before strengths were chosen do not say so.
SCHEMA = {"type": "object", "required": [key for key in _FIELDS if key != "strength"], "properties": _FIELDS}


class Evaluated:
    """The evaluated cells of some benchmarks: those of one benchmark on the same examples, under one protocol.

    Args:
        files: ``result.json`` of evaluated cells, or of several rewards on one target, which are told apart by what
            they say of themselves.

    Raises:
        InputError: if there are none, one is missing or corrupt, two hold the same cell, or two of one benchmark were
            measured on different examples or under different protocols (but for ``OWN``).
    """

    def __init__(self, files: Iterable[Path]) -> None:
        self._results: dict[tuple[Cell, ...], Result] = {}
        first: dict[str, tuple[Path, dict[str, Any]]] = {}
        for path in files:
            content = read_json(path, "result")
            cells, result = _checked(path, content)
            dataset = cells[0].dataset
            other, like = first.setdefault(dataset, (path, content))
            _same(dataset, other, like, path, content)
            if cells in self._results:
                raise InputError(
                    f"{path} holds {dataset} of {_named(cells)}, which another file holds, too; give each result once."
                )
            self._results[cells] = result
        if not self._results:
            raise InputError("no results were given; evaluate the models first.")

    def result(self, *cells: Cell) -> Result:
        """What was measured of a cell, or of several rewards on one target, a cell for each.

        Raises:
            InputError: if it was not.
        """
        key = tuple(cell.measured() for cell in cells)
        if key not in self._results:
            raise InputError(f"{key[0].dataset} has no result of {_named(key)}; evaluate it and run again.")
        return self._results[key]


def _named(cells: tuple[Cell, ...]) -> str:
    return " with ".join(map(str, cells))


def _checked(path: Path, content: dict[str, Any]) -> tuple[tuple[Cell, ...], Result]:
    """The measured cell or cells, without what has no meaning for their method, and the values."""

    def refuse(why: str) -> InputError:
        return InputError(f"the result {path} is corrupt ({why}); delete it and make it again.")

    error = best_match(Draft202012Validator(SCHEMA).iter_errors(content))
    if error is not None:
        raise refuse(f"{'.'.join(map(str, error.absolute_path)) or 'top level'}: {error.message[:200]}")
    if content["headline"] not in content["metrics"]:
        raise refuse(f"no metric '{content['headline']}', which is its headline")
    measures = {}
    for metric, value in content["metrics"].items():
        try:
            x = np.array(content["examples"].get(metric, []), dtype=np.float64)
        except (TypeError, ValueError):
            raise refuse(f"{metric}: an example's value is no number") from None
        if x.ndim != 1 or not len(x) or not abs(x.mean() - value) < 1e-6:  # NaN is refused, too
            raise refuse(f"{metric} is not the mean of its examples")
        measures[metric] = Measure.plain(x)
    if len({len(measure.values) for measure in measures.values()}) > 1:
        raise refuse("its metrics have different numbers of examples")
    several = content["cell"] if isinstance(content["cell"], list) else [content["cell"]]
    try:
        cells = [Cell(**({"dataset": content["benchmark"]} | cell)) for cell in several]
    except ValidationError as wrong:
        raise refuse(f"cell: {first_line(wrong)}") from None
    strength = content.get("strength")
    for cell in cells:
        if method(cell.method).transfers and cell.source is None:
            raise refuse(f"'{cell.method}' without a source")
        if (strength is not None) != (method(cell.method).at is not None):
            raise refuse(f"the chosen strength of '{cell.method}' is {strength}")
    return tuple(cell.measured() for cell in cells), Result(content["headline"], measures, strength)


def _same(name: str, first: Path, like: dict[str, Any], path: Path, content: dict[str, Any]) -> None:
    """Refuse two results of one benchmark that cannot be compared."""
    protocols = [{k: v for k, v in r["protocol"].items() if k not in OWN} for r in (like, content)]
    differ = [key for key in {**protocols[0], **protocols[1]} if protocols[0].get(key) != protocols[1].get(key)]
    if differ:
        values = " and ".join(repr(p.get(differ[0])) for p in protocols)
        how = f"under different protocols ({differ[0]}: {values})"
    elif like["documents"] != content["documents"] or _count(like) != _count(content):
        how = "on different examples"
    elif like["headline"] != content["headline"] or set(like["metrics"]) != set(content["metrics"]):
        how = "in different metrics"
    else:
        return
    raise InputError(f"{first} and {path} measured {name} {how}; evaluate both again in the same way.")


def _count(content: dict[str, Any]) -> int:
    """The number of examples."""
    return len(content["examples"][content["headline"]])
