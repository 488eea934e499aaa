"""Scores: a model evaluated on a split is a matrix, N examples × L labels, in one safetensors file."""

from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal, Self

import torch
from pydantic import BaseModel, ValidationError, model_validator
from torch import Tensor

from prt.atomic import check_finite, read_tensors, write_tensors
from prt.class_names import ClassNames
from prt.errors import InputError, first_line
from prt.methods import REWARDS


@dataclass(frozen=True)
class Scores:
    """What a model says of every example of a split.

    Attributes:
        values: (N, L) float32: log-probabilities of a model, or raw rewards of a reward.
        labels: (N,) int64, the truth.
        kind: which of the two ``values`` are.
        method: ``pretrained``, ``ft``, ``prt``, ``adapted`` or ``difference``; all but the first have shots and a seed,
            and the rewards (``prt`` and ``adapted``) an alpha.
        variant: of a reward, as of its run.
        source, strength: of a ``difference`` of weights: what was added to the backbone's, and how much of it.
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
    variant: str | None = None
    source: str | None = None
    strength: float | None = None

    def save(self, path: Path) -> None:
        """Write one file, whole or not at all."""
        check_finite({"scores": self.values}, f"the scores of {self.backbone} ({self.method}) on {self.dataset}")
        header = asdict(self) | {"values": None, "labels": None}
        write_tensors(path, {"scores": self.values.float(), "labels": self.labels.long()}, header)

    @classmethod
    def load(cls, path: Path) -> "Scores":
        """Read and check one file.

        Raises:
            InputError: if it is missing, truncated, corrupt, of the wrong shape, or holds what is no finite number; if
                it says of itself what cannot be.
        """
        tensors, header = read_tensors(path, "score file")
        try:
            about = _Header.model_validate({k: v for k, v in header.items() if k not in ("values", "labels")})
            values, labels = tensors["scores"], tensors["labels"]
        except (KeyError, ValidationError) as error:
            raise InputError(
                f"{path} is no score file ({first_line(error)}); delete it and score the model again."
            ) from None
        expected = (labels.numel(), len(about.classes))
        if tuple(values.shape) != expected or labels.ndim != 1:
            raise InputError(f"the score file {path} has shape {tuple(values.shape)}, not {expected}; make it again.")
        if (values.dtype, labels.dtype) != (torch.float32, torch.int64):
            raise InputError(f"the score file {path} holds {values.dtype} and {labels.dtype}; make it again.")
        if len(labels) and not (labels.min() >= 0 and labels.max() < len(about.classes)):
            raise InputError(f"the score file {path} has a label that is none of its classes; make it again.")
        check_finite({"scores": values}, f"the scores in {path}")
        return cls(values=values, labels=labels, **dict(about))


class _Header(BaseModel, strict=True, extra="forbid", allow_inf_nan=False):
    """What a score file says of its scores."""

    kind: Literal["log_probs", "reward"]
    backbone: str
    method: Literal["pretrained", "ft", "prt", "adapted", "difference"]
    dataset: str
    fingerprint: str
    split: str
    classes: ClassNames
    shots: str
    seed: int | None
    alpha: float | None
    variant: str | None = None
    source: str | None = None
    strength: float | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.kind == "reward") != (self.method in REWARDS):
            raise ValueError(f"{self.kind} of a run of method {self.method}")
        if (self.alpha is None) != (self.kind != "reward") or (self.seed is None) != (self.method == "pretrained"):
            raise ValueError(f"alpha {self.alpha} and seed {self.seed} of a run of method {self.method}")
        if (self.source is None, self.strength is None) != (self.method != "difference",) * 2:
            raise ValueError(f"source {self.source} and strength {self.strength} of a run of method {self.method}")
        return self


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
