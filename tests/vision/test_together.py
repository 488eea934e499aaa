"""Two rewards on a target at once, from cached scores: against single rewards, and against sums by hand."""

import numpy as np
import pytest
import torch
from helpers.scores import scores

from prt import combine
from prt.errors import InputError
from prt.figures import together
from prt.scores import Scores
from prt.vision.together import measured

DATA, SIZES = (
    ("one", "two"),
    {("one", "validation"): 30, ("one", "test"): 40, ("two", "validation"): 20, ("two", "test"): 10},
)
STRENGTHS = [0.0, 0.5, 1.0]


def made(number: int, dataset: str, split: str, **facts: object) -> Scores:
    size = SIZES[dataset, split]
    labels = torch.arange(size) % 3
    values = torch.randn(size, 3, generator=torch.Generator().manual_seed(number))
    return scores(values=values, labels=labels, dataset=dataset, split=split, fingerprint=dataset, **facts)


def target(dataset: str, split: str) -> Scores:
    return made(1, dataset, split, kind="log_probs", method="pretrained", seed=None, alpha=None)


def reward(of: str, dataset: str, split: str, seed: int) -> Scores:
    return made(10 * seed + 2 + DATA.index(of), dataset, split, seed=seed)


def right(dataset: str, split: str, seed: int, first: float, second: float) -> np.ndarray:
    alone, *added = (
        s.values.double() for s in (target(dataset, split), *(reward(of, dataset, split, seed) for of in DATA))
    )
    return (combine.prt(alone, added, [first, second]).argmax(-1) == target(dataset, split).labels).numpy()


def test_every_pair_of_strengths_is_its_sum() -> None:
    rows = measured(target, reward, DATA, [0, 1], STRENGTHS).set_index(["dataset", "first", "second"])
    assert len(rows) == 3 * 9
    for (dataset, first, second), row in rows.iterrows():
        shown = DATA if dataset == "both" else [dataset]
        means = [np.mean([right(d, "test", seed, first, second) for seed in (0, 1)]) for d in shown]
        assert row["value"] == pytest.approx(np.mean(means))  # of both: though one has four times the images
        assert row["low"] < row["value"] < row["high"]
        assert (row["seeds"], row["n"]) == (2, sum(SIZES[d, "test"] for d in shown))
    for dataset, here in rows.groupby("dataset"):
        chosen = here[here["chosen"]].index
        assert len(chosen) == 1
        shown = DATA if dataset == "both" else [dataset]

        def known(pair: tuple[str, float, float], shown: list[str] = shown) -> float:
            return float(np.mean([[right(d, "validation", seed, *pair[1:]).mean() for seed in (0, 1)] for d in shown]))

        assert known(chosen[0]) == max(map(known, here.index))


def test_one_reward_at_strength_0_leaves_the_other() -> None:
    both = measured(target, reward, DATA, [0], STRENGTHS)
    swapped = measured(target, reward, DATA[::-1], [0], STRENGTHS).rename(
        columns={"first": "second", "second": "first"}
    )
    keys = ["dataset", "first", "second"]
    same = both.merge(swapped, on=keys)
    assert (same["value_x"] == same["value_y"]).all()
    alone = both[(both["dataset"] == "one") & both["first"].eq(1) & both["second"].eq(0)]["value"].item()
    one = combine.prt(target("one", "test").values.double(), reward("one", "one", "test", 0).values.double())
    assert alone == (one.argmax(-1) == target("one", "test").labels).double().mean().item()


def test_other_labels_are_refused() -> None:
    def other(of: str, dataset: str, split: str, seed: int) -> Scores:
        return made(3, dataset, split, seed=seed, classes=["a", "b", "x" if of == "two" else "c"])

    with pytest.raises(InputError, match="have different labels"):
        measured(target, other, DATA, [0], STRENGTHS)


def test_the_picture_shows_every_number() -> None:
    rows = measured(target, reward, DATA, [0], STRENGTHS).assign(shots="16", source="s", target="t")
    drawn = together.figure(rows, DATA, "{} test images", "validation images")
    assert [axis.get_ylabel() for axis in drawn.axes] == [
        "one test images (%)",
        "two test images (%)",
        "mean of both (%)",
    ]
    for axis, dataset in zip(drawn.axes, ("one", "two", "both"), strict=True):
        here = rows[rows["dataset"] == dataset].set_index(["first", "second"])["value"]
        said = {text.get_position(): text.get_text() for text in axis.texts}
        assert said == {
            (STRENGTHS.index(x), STRENGTHS.index(y)): f"{100 * value:.0f}" for (x, y), value in here.items()
        }
        assert len(axis.patches) == 1
