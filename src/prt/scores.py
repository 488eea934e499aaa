"""Scores: a model evaluated on a split is a matrix, N examples × L labels, in one safetensors file."""

from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from prt.atomic import read_tensors, write_tensors
from prt.errors import InputError


@dataclass(frozen=True)
class Scores:
    """What a model says of every example of a split.

    Attributes:
        values: (N, L) float32: log-probabilities of a model, or raw rewards of a reward.
        labels: (N,) int64, the truth.
        kind: which of the two ``values`` are.
        method: ``pretrained``, ``ft``, ``prt`` or ``adapted``; all but the first have shots and a seed, and the rewards
            (the last two) an alpha.
        dataset, fingerprint, split, classes: what was scored; only equal ones may be combined.
    """

    values: Tensor
    labels: Tensor
    kind: Literal["log_probs", "reward"]
    backbone: str
    method: str
    dataset: str
    fingerprint: str
    split: str
    classes: list[str]
    shots: str = "full"
    seed: int | None = None
    alpha: float | None = None

    def save(self, path: Path) -> None:
        """Write one file, whole or not at all."""
        if torch.isnan(self.values).any():
            raise InputError(
                f"the scores of {self.backbone} ({self.method}) on {self.dataset} hold NaN; use precision fp32."
            )
        header = asdict(self) | {"values": None, "labels": None}
        write_tensors(path, {"scores": self.values.float(), "labels": self.labels.long()}, header)

    @classmethod
    def load(cls, path: Path) -> "Scores":
        """Read and check one file.

        Raises:
            InputError: if it is missing, truncated, corrupt, of the wrong shape, or holds NaN.
        """
        tensors, header = read_tensors(path, "score file")
        try:
            scores = cls(**(header | {"values": tensors["scores"], "labels": tensors["labels"]}))
        except (KeyError, TypeError):
            raise InputError(f"{path} is no score file; delete it and score the model again.") from None
        expected = (len(scores.labels), len(scores.classes))
        if tuple(scores.values.shape) != expected:
            raise InputError(
                f"the score file {path} has shape {tuple(scores.values.shape)}, not {expected}; make it again."
            )
        if torch.isnan(scores.values).any():
            raise InputError(f"the score file {path} holds NaN; score the model again in fp32.")
        return scores


def check_same_labels(a: list[str], b: list[str], what_a: str, what_b: str) -> None:
    """Refuse to combine models of different labels, or of the same labels in another order.

    Raises:
        InputError: naming the labels that differ.
    """
    if a == b:
        return
    only_a, only_b = [x for x in a if x not in set(b)], [x for x in b if x not in set(a)]
    if only_a or only_b:
        said = [
            f"only {what} has {', '.join(map(repr, only[:5]))}{' …' if len(only) > 5 else ''}"
            for what, only in ((what_a, only_a), (what_b, only_b))
            if only
        ]
        raise InputError(
            f"{what_a} and {what_b} have different labels: {'; '.join(said)}. Use a model with the same labels."
        )
    at, here, there = next((i, x, y) for i, (x, y) in enumerate(zip_longest(a, b)) if x != y)
    raise InputError(
        f"{what_a} and {what_b} have the same labels in another order "
        f"(number {at} is {here!r} here and {there!r} there); put them in one order."
    )


def check_same_examples(a: Scores, b: Scores) -> None:
    """Refuse to combine scores of different data sets, splits or labels.

    Raises:
        InputError: naming what differs.
    """
    names: list[Any] = [f"{s.backbone} ({s.method}) on {s.dataset}" for s in (a, b)]
    check_same_labels(a.classes, b.classes, *names)
    if (a.fingerprint, a.split) != (b.fingerprint, b.split) or not torch.equal(a.labels, b.labels):
        raise InputError(
            f"{names[0]}/{a.split} and {names[1]}/{b.split} were scored on different examples; "
            "score both again on one data set."
        )
