"""Every cell of every transfer figure, from cached scores: sums of two or three matrices and an argmax."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from prt import combine, stats, theory
from prt.errors import InputError
from prt.scores import Scores, check_same_examples

NAN = float("nan")  # one object, so that keys holding it are equal
METRICS = ("top1", "mean_per_class_recall")
KEYS = ["dataset", "shots", "source", "target", "method", "alpha", "strength"]
COLUMNS = [*KEYS, "seed", "metric", "value", "low", "high", "n"]


class Table:
    """Score files of one data set and split, found by what they say of themselves."""

    def __init__(self, files: Iterable[Path]) -> None:
        self._scores: dict[tuple[Any, ...], Scores] = {}
        for path in files:
            s = Scores.load(path)
            key = (s.backbone, s.method, s.alpha, s.shots if s.seed is not None else None, s.seed)
            if key in self._scores:
                raise InputError(f"{path} holds scores of a run that another file holds, too; give each run once.")
            self._scores[key] = s
        if not self._scores:
            raise InputError("no score files were given; score the backbones first.")
        self.any = next(iter(self._scores.values()))
        for s in self._scores.values():
            check_same_examples(self.any, s)
        if not self.regimes():
            raise InputError("all score files are of pretrained models; tune some and give their scores, too.")

    def get(
        self, backbone: str, method: str, alpha: float | None = None, shots: str | None = None, seed: int | None = None
    ) -> Tensor:
        """Values (N, L) in float64, so that sums do not depend on their order.

        Raises:
            InputError: if there are none.
        """
        key = (backbone, method, alpha, shots, seed)
        if key not in self._scores:
            raise InputError(
                f"no scores of {backbone} ({method}, alpha {alpha}, shots {shots}, seed {seed}); make them first."
            )
        return self._scores[key].values.double()

    def rewards(self, backbone: str, shots: str) -> list[float]:
        """The αs of this backbone's rewards."""
        return sorted({k[2] for k in self._scores if k[:2] == (backbone, "prt") and k[3] == shots})

    def runs(self, shots: str) -> list[int]:
        """The seeds of this regime."""
        return sorted({k[4] for k in self._scores if k[3] == shots})

    def regimes(self) -> list[str]:
        """The numbers of shots that were tuned on."""
        return sorted({k[3] for k in self._scores if k[3] is not None})


def cells(
    table: Table, source: str, target: str, shots: str, seed: int, strengths: list[float]
) -> Iterator[tuple[str, float, float, Tensor]]:
    """All predictions for one pair and run: (method, alpha, strength, log-probabilities or rewards (N, L)).

    NAN stands for an alpha or a strength that has no meaning. ``strengths`` other than 1 are tried with α = 0.
    """
    at_target = table.get(target, "pretrained")
    at_source = table.get(source, "pretrained")
    source_ft = table.get(source, "ft", None, shots, seed)
    yield "pretrained", NAN, NAN, at_target
    yield "ft", NAN, NAN, table.get(target, "ft", None, shots, seed)
    yield "source_ft", NAN, NAN, source_ft
    yield "poe", NAN, 1.0, combine.poe(at_target, source_ft)
    for s in strengths:
        yield "eft", NAN, s, combine.eft(at_target, source_ft, at_source, s)
    for alpha in table.rewards(source, shots):
        r = table.get(source, "prt", alpha, shots, seed)
        yield "reward", alpha, NAN, combine.reward_only(r)
        for s in strengths if alpha == 0 else [1.0]:
            yield "prt", alpha, s, combine.prt(at_target, r, s)


def transfer(
    files: list[Path], pairs: list[tuple[str, str]], strengths: list[float]
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """The tidy tables of one data set.

    Returns:
        ``transfer``, a row for each pair, method, alpha, strength, seed and metric, with Wilson intervals over the
        test examples; ``summary``, over seeds, with intervals over seeds and examples; ``comparison``, the paired
        differences of top-1 between transferred models and the baselines; ``theory``, Proposition 3.2's quantities.
    """
    table, strengths = Table(files), sorted({1.0, *strengths})
    labels = table.any.labels.numpy()
    strata = {metric: stats.strata(labels, metric) for metric in METRICS}
    rows: dict[str, list[dict[str, Any]]] = {"transfer": [], "summary": [], "comparison": [], "theory": []}
    for shots in table.regimes():
        seeds = table.runs(shots)
        for source, target in pairs:
            place = {"dataset": table.any.dataset, "shots": shots, "source": source, "target": target}
            right: dict[tuple[str, float, float], list[np.ndarray]] = {}
            for seed in seeds:
                for method, alpha, s, predicted in cells(table, source, target, shots, seed, strengths):
                    hit = (predicted.argmax(-1).numpy() == labels).astype(float)
                    right.setdefault((method, alpha, s), []).append(hit)
                    cell = place | {"method": method, "alpha": alpha, "strength": s, "seed": seed}
                    for metric, groups in strata.items():
                        share = vars(stats.share(hit, groups))
                        rows["transfer"].append(cell | {"metric": metric} | share | {"n": len(labels)})
                rows["theory"] += _theory(table, place, seed)
            for key, hits in right.items():
                for metric, groups in strata.items():
                    cell = place | dict(zip(KEYS[4:], key, strict=True)) | {"metric": metric}
                    cell |= stats.share_over_seeds(np.stack(hits), groups)
                    rows["summary"].append(cell | {"seeds": len(seeds), "n": len(labels)})
            rows["comparison"] += _compare(place, right, strata["top1"])
    summary = [*KEYS, "metric", "value", "std", "low", "high", "seeds", "n"]
    return (
        pd.DataFrame(rows["transfer"])[COLUMNS],
        pd.DataFrame(rows["summary"])[summary],
        pd.DataFrame(rows["comparison"]),
        pd.DataFrame(rows["theory"]),
    )


def _compare(place: dict[str, Any], right: dict[Any, list[np.ndarray]], groups: np.ndarray) -> Iterator[dict[str, Any]]:
    """What is transferred (at α = 0 and strength 1) minus each baseline, example by example, in top-1."""
    hits = {method: np.stack(x) for (method, alpha, s), x in right.items() if not alpha > 0 and not s < 1 and not s > 1}
    for method in ("prt", "eft", "poe"):
        for baseline in ("pretrained", "source_ft", "poe", "eft", "ft"):
            if method in hits and method != baseline and (method, baseline) != ("poe", "eft"):
                e = stats.mean_over_seeds(hits[method] - hits[baseline], groups)
                measured = {"difference": e.value, "low": e.low, "high": e.high, "seeds": len(hits[method])}
                yield place | {"method": method, "baseline": baseline} | measured | {"n": len(groups)}


def _theory(table: Table, place: dict[str, Any], seed: int) -> Iterator[dict[str, Any]]:
    source, target = (table.get(place[role], "pretrained") for role in ("source", "target"))
    for alpha in table.rewards(place["source"], place["shots"]):
        r = table.get(place["source"], "prt", alpha, place["shots"], seed)
        yield place | {
            "alpha": alpha,
            "seed": seed,
            "epsilon": theory.epsilon(source, target).mean().item(),
            "C": theory.concentration(source, r).mean().item(),
            "bound": theory.transfer_bound(source, target, r).mean().item(),
            "kl": theory.kl(combine.prt(source, r), combine.prt(target, r)).mean().item(),
        }
