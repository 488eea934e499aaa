"""Strengths that are chosen on validation data, and models that are sums of weights, in the tables."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.scores import scores
from torch.nn import functional as F

from prt.cell import Cell
from prt.errors import InputError
from prt.tables import tables
from prt.vision.results import Scored

CELL = Cell(dataset="digits", shots="16", source="s", target="t", method="prt_chosen", alpha=0.0, seed=0)
LABELS = {"validation": torch.tensor([0, 1, 1, 1]), "test": torch.tensor([0, 0, 0, 1])}
STRENGTHS = [0.0, 0.5, 1.0, 2.0]


def scored(split: str, folder: Path) -> Scored:
    """A target that says 0 by one nat, and a reward that says 1 by 1.5; from strength 1 on, the sum says 1.

    A variant's reward says nothing, another's what is right. A source's weights on the target's say 1 with scale 1, and
    0 with scale 2.
    """
    folder = folder / split
    facts: dict[str, Any] = {"labels": LABELS[split], "classes": ["a", "b"], "split": split}
    zero, one = torch.tensor([[1.0, 0.0]] * 4).log_softmax(-1), torch.tensor([[0.0, 1.5]] * 4)
    made = [
        scores(**facts, backbone="t", method="pretrained", kind="log_probs", values=zero, seed=None, alpha=None),
        scores(**facts, backbone="s", values=one, seed=0, alpha=0.0),
        scores(**facts, backbone="s", values=0 * one, seed=0, alpha=0.0, variant="mute"),
        scores(**facts, backbone="s", values=3.0 * F.one_hot(facts["labels"], 2), seed=0, alpha=0.1, variant="right"),
        *(
            scores(
                **facts, backbone="t", method="difference", kind="log_probs", seed=0, alpha=None, source="s",
                values=one.log_softmax(-1) if scale == 1 else zero, strength=scale,
            )
            for scale in STRENGTHS
        ),
    ]  # fmt: skip
    for number, of in enumerate(made):
        of.save(folder / f"{number}.safetensors")
    return Scored(sorted(folder.glob("*.safetensors")))


@pytest.fixture
def test(tmp_path: Path) -> Scored:
    found = scored("test", tmp_path)
    found.choose_on(scored("validation", tmp_path), STRENGTHS, {"mute": 0.0, "right": 0.1})
    return found


def accuracy(of: Scored, **changes: object) -> tuple[float | None, float]:
    result = of.result(CELL.model_copy(update=changes))
    return result.strength, result.measures["top1"].values.mean()


def test_validation_data_choose(test: Scored) -> None:
    """The test images are mostly 0, which the target alone says; the validation images, which count, 1."""
    assert accuracy(test) == (1.0, 0.25)  # 2 is as good on validation data, 1 the paper's
    assert accuracy(test, method="prt", strength=0.5) == (None, 0.75)
    assert accuracy(test, variant="mute") == (1.0, 0.75)  # all strengths are equal
    assert accuracy(test, method="difference_chosen", alpha=None) == (1.0, 0.25)
    assert accuracy(test, method="prt_best") == (1.0, 1.0)
    assert test.result(CELL.model_copy(update={"method": "prt_best"})).variant == "right"
    assert test.result(CELL).variant is None
    assert accuracy(test, method="difference", alpha=None, strength=2.0) == (None, 0.75)


def test_without_validation_data(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is chosen on validation data: give its scores, too"):
        scored("test", tmp_path).result(CELL)
    with pytest.raises(
        InputError, match=r"no scores of t on digits \(with the difference of weights of x, scale 1.0\)"
    ):
        scored("test", tmp_path / "b").result(Cell(**CELL.model_dump() | {
            "method": "difference", "alpha": None, "source": "x", "strength": 1.0}))  # fmt: skip


def test_the_tables_say_which(test: Scored) -> None:
    """Each seed's row its own strength, the summary none; variants are compared with the experiment's own."""
    facts = CELL.model_dump() | {"strength": 1.0}
    ways = [(name, None) for name in ("pretrained", "prt", "prt_chosen", "difference", "difference_chosen")]
    ways += [("prt_best", None), *((name, "mute") for name in ("prt", "prt_chosen"))]
    made = tables([Cell(**facts | {"method": name, "variant": way}) for name, way in ways], test.result)
    top1 = made.transfer[made.transfer["metric"] == "top1"]
    assert top1["strength"].fillna(-1).tolist() == [-1, 1, 1, 1, 1, 1, 1, 1]
    assert top1["variant"].fillna("").tolist() == [*[""] * 5, "right", "mute", "mute"]
    assert top1.loc[top1["method"] == "prt_best", "alpha"].tolist() == [0.1]  # that of the variant
    summary = made.summary[made.summary["metric"] == "top1"]
    assert summary["strength"].fillna(-1).tolist() == [-1, 1, -1, 1, -1, -1, 1, -1]
    assert summary["variant"].fillna("").tolist() == [*[""] * 6, "mute", "mute"]
    pairs = set(made.comparison[["method", "variant", "baseline"]].fillna("").itertuples(index=False, name=None))
    assert pairs == {
        ("prt", "", "pretrained"), ("prt", "", "difference"), ("difference", "", "pretrained"),
        ("prt_chosen", "", "pretrained"), ("prt_chosen", "", "difference_chosen"),
        ("difference_chosen", "", "pretrained"),
        ("prt_best", "", "pretrained"), ("prt_best", "", "prt_chosen"), ("prt_best", "", "difference_chosen"),
        ("prt", "mute", "pretrained"), ("prt", "mute", "prt"), ("prt", "mute", "difference"),
        ("prt_chosen", "mute", "pretrained"), ("prt_chosen", "mute", "prt_chosen"),
        ("prt_chosen", "mute", "difference_chosen"),
    }  # fmt: skip
