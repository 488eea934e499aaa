"""Every row of the language tables, from results of evaluated models: one value per example, and no model loaded."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from numpy.typing import NDArray

from prt import stats
from prt.atomic import read_json
from prt.errors import InputError

KEYS = ["dataset", "source", "target", "method", "alpha", "lora", "strength"]
TRANSFER = [*KEYS, "seed", "metric", "headline", "value", "low", "high", "n"]
SUMMARY = [*KEYS, "metric", "headline", "value", "std", "low", "high", "seeds", "n"]
ALONE = ("pretrained", "instruct", "ft", "reward")  # one model; what the others make of a target needs a source, too
COMPARISON = ["dataset", "source", "target", "lora", "method", "baseline", "metric", "difference", "low", "high"]
COMPARISON += ["verdict", "seeds", "n"]
BASELINES = ("pretrained", "source_ft", "poe", "eft", "ft", "instruct")
OWN = ("batch", "context", "dtype", "template")  # of a protocol: how a model was run, which may differ between models

_NUMBER = {"type": ["number", "null"]}
_CELL = {
    "target": {"type": "string"},
    "method": {"enum": [*ALONE, "prt", "eft", "poe"]},
    "source": {"type": ["string", "null"]},
    "alpha": _NUMBER,
    "lora": {"type": "boolean"},
    "strength": _NUMBER,
    "seed": {"type": ["integer", "null"]},
}
_RESULT = {
    "benchmark": {"type": "string"},
    "cell": {"type": "object", "required": list(_CELL), "properties": _CELL},
    "headline": {"type": "string"},
    "metrics": {"type": "object", "minProperties": 1, "additionalProperties": {"type": "number"}},
    "examples": {"type": "object", "additionalProperties": {"type": "array", "minItems": 1}},
    "documents": {"type": "string"},
    "protocol": {"type": "object"},
}
SCHEMA = {"type": "object", "required": list(_RESULT), "properties": _RESULT}

Examples = dict[str, NDArray[np.float64]]  # metric → one value per example (N,)


class Cell(NamedTuple):
    """What was evaluated. ``source`` is None for a model that nothing was put on."""

    method: str
    source: str | None
    target: str
    alpha: float | None
    lora: bool
    strength: float | None
    seed: int | None

    def __str__(self) -> str:
        place = f"'{self.method}'" + (f" with source '{self.source}'" if self.source else "") + f" on '{self.target}'"
        facts = {"alpha": self.alpha, "strength": self.strength, "seed": self.seed}
        told = [*(["LoRA"] if self.lora else []), *(f"{n} {x:g}" for n, x in facts.items() if x is not None)]
        return place + (f" ({', '.join(told)})" if told else "")


class Variant(NamedTuple):
    """What all seeds of a row of the summary share; ``method`` may be ``source_ft``, too."""

    method: str
    alpha: float | None = None
    lora: bool = False
    strength: float | None = None

    @property
    def plain(self) -> bool:
        """As in the paper's main results: no entropy term, strength 1."""
        return not self.alpha and self.strength in (None, 1)


@dataclass(frozen=True)
class Benchmark:
    """The evaluated cells of one benchmark: all on the same examples, under one protocol."""

    name: str
    headline: str
    cells: dict[Cell, Examples]

    def get(self, cell: Cell) -> Examples:
        """The values of a cell.

        Raises:
            InputError: if it was not evaluated.
        """
        if cell not in self.cells:
            raise InputError(f"{self.name} has no result of {cell}; evaluate it and run again.")
        return self.cells[cell]

    def pair(self, source: str, target: str) -> dict[Variant, dict[int | None, Examples]]:
        """All that is known of a pair: variant → seed → values; empty where the pair was not evaluated.

        On the source itself EFT is its own fine-tuned model, by definition (eq. 3).

        Raises:
            InputError: if one of the methods lacks a seed that another has.
        """
        found: dict[Variant, dict[int | None, Examples]] = {}
        for lora in (False, True):
            own = [c for c in self.cells if (c.source, c.target, c.lora) == (source, target, lora)]
            if not own:
                continue
            for cell in own:
                variant = Variant(cell.method, cell.alpha, lora, cell.strength)
                found.setdefault(variant, {})[cell.seed] = self.cells[cell]
            tuned = [c for c in self.cells if c.method == "ft" and c.lora == lora]
            plain = [v for v in found if v.lora == lora and v.plain]
            needed = {Variant("prt", 0.0, lora, 1.0): "prt", Variant("eft", None, lora, 1.0): "eft"}
            needed |= {v: v.method for v in plain} | {Variant("source_ft", None, lora): "ft"}
            for seed in sorted({seed for v in plain for seed in found[v] if seed is not None}):
                for variant, method in needed.items():
                    cell = Cell(method, source, target, variant.alpha, lora, variant.strength, seed)
                    if method == "ft" or (method == "eft" and source == target):
                        cell = Cell("ft", None, source, None, lora, None, seed)
                    found.setdefault(variant, {})[seed] = self.get(cell)
            for c in tuned:
                if c.target == target:
                    found.setdefault(Variant("ft", None, lora), {})[c.seed] = self.cells[c]
            for c in self.cells:
                if c.method == "reward" and (c.target, c.lora) == (source, lora):
                    found.setdefault(Variant("reward", c.alpha, lora), {})[c.seed] = self.cells[c]
        if found:
            alone = Cell("pretrained", None, target, None, False, None, None)
            found[Variant("pretrained")] = {None: self.get(alone)}
            if (published := alone._replace(method="instruct")) in self.cells:
                found[Variant("instruct")] = {None: self.cells[published]}
        return found


def read(files: Iterable[Path]) -> list[Benchmark]:
    """Read results, ``result.json`` of evaluated cells; they are told apart by what they say of themselves.

    Raises:
        InputError: if there are none, one is missing or corrupt, two hold the same cell, or two of one benchmark were
            measured on different examples or under different protocols (but for ``OWN``).
    """
    benchmarks: dict[str, Benchmark] = {}
    first: dict[str, tuple[Path, dict[str, Any]]] = {}
    for path in files:
        result = read_json(path, "result")
        cell, examples = _checked(path, result)
        name = result["benchmark"]
        other, like = first.setdefault(name, (path, result))
        _same(name, other, like, path, result)
        here = benchmarks.setdefault(name, Benchmark(name, result["headline"], {}))
        if cell in here.cells:
            raise InputError(f"{path} holds {name} of {cell}, which another file holds, too; give each result once.")
        here.cells[cell] = examples
    if not benchmarks:
        raise InputError("no results were given; evaluate the models first.")
    return list(benchmarks.values())


def _checked(path: Path, result: dict[str, Any]) -> tuple[Cell, Examples]:
    """The cell, without what has no meaning for its method, and its values."""

    def refuse(told: str) -> InputError:
        return InputError(f"the result {path} is corrupt ({told}); delete it and make it again.")

    error = best_match(Draft202012Validator(SCHEMA).iter_errors(result))
    if error is not None:
        raise refuse(f"{'.'.join(map(str, error.absolute_path)) or 'top level'}: {error.message[:200]}")
    if result["headline"] not in result["metrics"]:
        raise refuse(f"no metric '{result['headline']}', which is its headline")
    examples = {}
    for metric, value in result["metrics"].items():
        try:
            x = np.array(result["examples"].get(metric, []), dtype=np.float64)
        except (TypeError, ValueError):
            raise refuse(f"{metric}: an example's value is no number") from None
        if x.ndim != 1 or not len(x) or not abs(x.mean() - value) < 1e-6:  # NaN is refused, too
            raise refuse(f"{metric} is not the mean of its examples")
        examples[metric] = x
    if len({len(x) for x in examples.values()}) > 1:
        raise refuse("its metrics have different numbers of examples")
    cell = Cell(**{key: result["cell"][key] for key in Cell._fields})
    if cell.method == "reward":  # of its source alone, whatever it will be put on
        cell = cell._replace(target=cell.source or cell.target)
    if cell.method in ALONE:
        cell = cell._replace(source=None, strength=None)
    elif cell.source is None:
        raise refuse(f"'{cell.method}' without a source")
    if cell.method not in ("prt", "reward"):
        cell = cell._replace(alpha=None)
    if cell.method in ("pretrained", "instruct"):
        cell = cell._replace(lora=False, seed=None)
    return cell, examples


def _same(name: str, first: Path, like: dict[str, Any], path: Path, result: dict[str, Any]) -> None:
    """Refuse two results of one benchmark that cannot be compared."""
    protocols = [{k: v for k, v in r["protocol"].items() if k not in OWN} for r in (like, result)]
    differ = [key for key in {**protocols[0], **protocols[1]} if protocols[0].get(key) != protocols[1].get(key)]
    if differ:
        values = " and ".join(repr(p.get(differ[0])) for p in protocols)
        told = f"under different protocols ({differ[0]}: {values})"
    elif like["documents"] != result["documents"] or _count(like) != _count(result):
        told = "on different examples"
    elif like["headline"] != result["headline"] or set(like["metrics"]) != set(result["metrics"]):
        told = "in different metrics"
    else:
        return
    raise InputError(f"{first} and {path} measured {name} {told}; evaluate both again in the same way.")


def _count(result: dict[str, Any]) -> int:
    """The number of examples."""
    return len(result["examples"][result["headline"]])


def transfer(files: Iterable[Path], pairs: list[tuple[str, str]]) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """The tidy tables of all benchmarks that were measured.

    Args:
        files: ``result.json`` of evaluated cells.
        pairs: (source, target); a target may be its source. A pair has rows in the benchmarks it was evaluated in.

    Returns:
        ``transfer``, a row for each pair, variant, seed and metric, with intervals over the examples; ``summary``, over
        seeds, with intervals over seeds and examples; ``comparison``, the paired differences, in the headline metric,
        of transferred models from the baselines. ``headline`` marks the rows of a benchmark's headline metric. A run
        with LoRA has rows of its own; its baselines are LoRA runs, too, but for the published models. Where no seed
        has a meaning, there is none.

    Raises:
        InputError: if a result is missing, corrupt, or cannot be compared with the others.
    """
    rows: dict[str, list[dict[str, Any]]] = {"transfer": [], "summary": [], "comparison": []}
    benchmarks = read(files)
    for source, target in pairs:
        evaluated = False
        for benchmark in benchmarks:
            place = {"dataset": benchmark.name, "source": source, "target": target}
            found = benchmark.pair(source, target)
            evaluated |= bool(found)
            for variant, seeds in found.items():
                here = place | variant._asdict()
                for metric in next(iter(seeds.values())):
                    row = here | {"metric": metric, "headline": metric == benchmark.headline}
                    x = np.stack([values[metric] for values in seeds.values()])
                    n = {"n": x.shape[1]}
                    each = [vars(stats.mean_of_examples(of)) for of in x]
                    rows["transfer"] += [row | {"seed": s} | e | n for s, e in zip(seeds, each, strict=True)]
                    over = {"std": np.nan} | each[0]
                    if len(x) > 1:
                        over = stats.share_over_seeds(x, np.zeros(x.shape[1], np.int64))
                    rows["summary"].append(row | over | {"seeds": len(x)} | n)
            rows["comparison"] += _compare(place, found, benchmark.headline)
        if not evaluated:
            raise InputError(f"no result puts '{source}' on '{target}'; evaluate this pair, or take it out.")
    table = pd.DataFrame(rows["transfer"])[TRANSFER].astype({"seed": "Int64"})
    return table, pd.DataFrame(rows["summary"])[SUMMARY], pd.DataFrame(rows["comparison"], columns=COMPARISON)


def _compare(
    place: dict[str, Any], found: dict[Variant, dict[int | None, Examples]], metric: str
) -> Iterator[dict[str, Any]]:
    """What is transferred (at α = 0 and strength 1) minus each baseline, example by example, over the common seeds."""
    plain = {(v.method, v.lora): seeds for v, seeds in found.items() if v.plain}
    for (method, lora), seeds in plain.items():
        for baseline in BASELINES if method in ("prt", "eft", "poe") else ():
            other = plain.get((baseline, False if baseline in ("pretrained", "instruct") else lora), {})
            common = [s for s in seeds if s in other or None in other]
            if not common or method == baseline or (method, baseline) == ("poe", "eft"):
                continue
            x = np.stack([seeds[s][metric] - other[s if s in other else None][metric] for s in common])
            e = stats.mean_over_seeds(x, np.zeros(x.shape[1], np.int64))
            verdict = "better" if e.low > 0 else "worse" if e.high < 0 else "not told apart"
            yield place | {"lora": lora, "method": method, "baseline": baseline, "metric": metric} | {
                "difference": e.value, "low": e.low, "high": e.high, "verdict": verdict,
                "seeds": len(common), "n": x.shape[1],
            }  # fmt: skip
