"""Every cell of every vision table, from cached scores: a sum of a few matrices and what is measured of it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from prt import classification, combine, stats, theory
from prt.cell import Cell
from prt.errors import InputError
from prt.methods import REWARDS, Network, method
from prt.results import Measure, Result
from prt.scores import Scores, check_same_examples

THEORY = ["dataset", "shots", "source", "target", "alpha", "variant", "seed", "epsilon", "C", "bound", "kl"]


class Scored:
    """The score files of one data set and split, found by what they say of themselves.

    Raises:
        InputError: if there are none, one is missing or damaged, two are of the same run, or of different examples.
    """

    def __init__(self, files: Iterable[Path]) -> None:
        self._scores: dict[tuple[Any, ...], Scores] = {}
        for path in files:
            s = Scores.load(path)
            shots = s.shots if s.seed is not None else None
            key = (s.backbone, s.method, s.alpha, s.variant, shots, s.seed, s.source, s.strength)
            if key in self._scores:
                raise InputError(f"{path} holds scores of a run that another file holds, too; give each run once.")
            self._scores[key] = s
        if not self._scores:
            raise InputError("no score files were given; score the backbones first.")
        self._any = next(iter(self._scores.values()))
        for s in self._scores.values():
            check_same_examples(self._any, s)
        self._result = cache(self._computed)
        self._validation: Scored | None = None
        self._strengths: Sequence[float] = ()
        self._variants: Mapping[str, float] = {}

    def choose_on(
        self, validation: "Scored", strengths: Sequence[float], variants: Mapping[str, float] | None = None
    ) -> None:
        """Choose by the accuracy on other scores, where a method asks for that.

        Args:
            validation: those scores.
            strengths: what is chosen among.
            variants: name → α of the ways to tune a reward that are chosen among, beside the experiment's own.
        """
        self._validation, self._strengths, self._variants = validation, strengths, variants or {}

    def network(self, cell: Cell, network: Network) -> Tensor:
        """Log-probabilities or rewards (N, L) of a network of a cell, in float64: sums do not depend on their order.

        Raises:
            InputError: if there are none.
        """
        backbone = cell.target if network.owner == "target" else cell.source
        tuned = network.model != "pretrained"
        alpha, variant = (cell.alpha, cell.variant) if network.model in REWARDS else (None, None)
        shots, seed = (cell.shots, cell.seed) if tuned else (None, None)
        facts = f"{network.model}, alpha {alpha}, shots {cell.shots}, seed {cell.seed}" if tuned else network.model
        return self._found(cell, (backbone, network.model, alpha, variant, shots, seed, None, None), facts)

    def _found(self, cell: Cell, key: tuple[Any, ...], facts: str) -> Tensor:
        if cell.dataset != self._any.dataset or key not in self._scores:
            raise InputError(f"no scores of {key[0]} on {cell.dataset} ({facts}); score that, and run again.")
        return self._scores[key].values.double()

    def predicted(self, cell: Cell) -> Tensor:
        """Log-probabilities (N, L) of a cell, up to a constant for each example."""
        of = method(cell.method)
        if of.merged:
            key = (cell.target, "difference", None, None, cell.shots, cell.seed, cell.source, cell.strength)
            return self._found(cell, key, f"with the difference of weights of {cell.source}, scale {cell.strength}")
        base = self.network(cell, of.base)
        if not of.added:
            return base
        strength = 1.0 if cell.strength is None else cell.strength
        added = [self.network(cell, network) for _, network in of.added]
        return combine.prt(base, added, [strength * sign for sign, _ in of.added])

    def result(self, cell: Cell) -> Result:
        """What is measured of a cell, for each example.

        Accuracies, shares of 1: ``top1``, the headline; ``top5``, where there are more than five labels;
        ``mean_per_class_recall``. Calibration: ``nll``, the negative log-likelihood in nats; ``ece``, the expected
        calibration error.

        Of a method whose strength is chosen: the one that is best on the validation scores, and of several the nearest
        to 1, of the reward that comes first.

        Raises:
            InputError: if scores are missing.
        """
        return self._result(cell.clean())

    def _chosen(self, cell: Cell) -> Result:
        if self._validation is None:
            raise InputError(f"the strength of {cell} is chosen on validation data: give its scores, too.")
        of = method(cell.method)
        ways = [(cell.alpha, cell.variant), *((a, name) for name, a in self._variants.items() if of.any_variant)]
        fixed = [
            cell.model_copy(update={"method": of.at, "strength": s, "alpha": alpha, "variant": variant})
            for alpha, variant in ways
            for s in self._strengths
        ]
        means = [self._validation.result(c).measures["top1"].values.mean() for c in fixed]
        best = max(zip(means, fixed, strict=True), key=lambda of: (of[0], -abs((of[1].strength or 0) - 1)))[1]
        found = replace(self.result(best), strength=best.strength)
        return replace(found, alpha=best.alpha, variant=best.variant) if of.any_variant else found

    def _computed(self, cell: Cell) -> Result:
        if method(cell.method).at:
            return self._chosen(cell)
        scores, labels = self.predicted(cell), self._any.labels
        log_probs, rank = combine.log_probs(scores), classification.rank(scores, labels)
        right = (rank == 0).double().numpy()
        measures = {"top1": Measure.plain(right)}
        if scores.shape[1] > 5:
            measures["top5"] = Measure.plain((rank < 5).double().numpy())
        measures["mean_per_class_recall"] = Measure(right, labels.numpy())
        measures["nll"] = Measure.plain(classification.nll(log_probs, labels).numpy(), stats.average)
        measures["ece"] = Measure.plain(classification.calibration_gap(log_probs, labels).numpy(), stats.point)
        return Result("top1", measures)

    def theory(self, cells: Sequence[Cell]) -> pd.DataFrame:
        """Proposition 3.2's quantities of every reward on every target, in nats, as means over the examples."""
        rows = []
        for cell in dict.fromkeys(c.model_copy(update={"strength": 1.0}) for c in cells if c.method == "prt"):
            alone = cell.model_copy(update={"target": cell.source})
            source, target = (self.network(c, method("pretrained").base) for c in (alone, cell))
            r = self.network(cell, method("reward").base)
            rows.append(
                {key: getattr(cell, key) for key in THEORY[:7]}
                | {
                    "epsilon": theory.epsilon(source, target).mean().item(),
                    "C": theory.concentration(source, r).mean().item(),
                    "bound": theory.transfer_bound(source, target, r).mean().item(),
                    "kl": theory.kl(combine.prt(source, r), combine.prt(target, r)).mean().item(),
                }
            )
        return pd.DataFrame(rows, columns=THEORY)
