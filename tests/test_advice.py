"""Advice on a few examples: against known values, and against brute force."""

import itertools

import numpy as np
import pytest

from prt import stats
from prt.advice import FOLDS, advise, as_text, cross_validated, examples_needed


def pair(both: int, first: int, second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """Two ways that were right on so many examples."""
    one = np.repeat([True, True, False, False], [both, first, second, neither])
    return one, np.repeat([True, False, True, False], [both, first, second, neither])


@pytest.mark.parametrize(
    ("counts", "expected"),
    [((50, 20, 5, 25), 84.8), ((0, 15, 10, 75), 782.5), ((60, 20, 10, 10), 233.1)],
)
def test_examples_needed_is_connor_s_formula(counts, expected):
    """With a calculator: ψ = 0.25, δ = 0.15 → (1.95996·0.5 + 0.84162·√0.2275)² / 0.0225, and so on."""
    one, other = pair(*counts)
    assert examples_needed(one.astype(float), other.astype(float)) == np.ceil(expected)


def test_so_many_examples_tell_them_apart_four_times_of_five():
    """McNemar's test on examples drawn anew, in the shares that were seen."""
    counts = np.array([50, 20, 8, 22])
    needed = examples_needed(*(x.astype(float) for x in pair(*counts)))
    drawn = np.random.default_rng(0).multinomial(needed, counts / 100, 20000)
    b, c = drawn[:, 1], drawn[:, 2]
    assert (abs(b - c) / np.sqrt(b + c) > stats.Z).mean() == pytest.approx(0.8, abs=0.03)


def test_the_best_comes_first_with_the_paired_difference():
    best, second = pair(50, 30, 10, 10)
    worst = np.zeros(100, bool)
    found = advise({"a": worst, "b": second, "c": best})
    assert list(found.accuracies) == ["c", "b", "a"]
    x = best.astype(float) - second
    half = 1.9842169515 * x.std(ddof=1) / 10  # Student's, 99 degrees of freedom
    assert (found.difference.value, found.difference.low) == pytest.approx((0.2, 0.2 - half))
    said = as_text(found, 100).splitlines()
    assert said[0].startswith("c  80.0 (") and said[-1] == "these two are told apart (p < 0.05)"
    assert list(advise({"a": best, "b": best}).accuracies) == ["a", "b"]  # the simpler of equal ones
    assert advise({"a": best, "b": best}).needed is None
    assert as_text(advise({"a": best, "b": best}), 100).splitlines()[-1].startswith("not told apart: both were right")
    one, other = pair(50, 12, 8, 30)
    near = advise({"a": one, "b": other})
    assert near.needed is not None
    assert as_text(near, 100).splitlines()[-1].startswith(f"not told apart: about {near.needed - 100} more examples")
    # The second is of another method: not the best with another strength.
    assert advise({"a": best, "a, changed": best, "b": worst, "c": second}).second == "c"


def test_no_example_is_measured_with_a_strength_that_it_chose():
    """Against the folds by hand; and on coin tosses the chosen strength is no better than chance."""
    rng = np.random.default_rng(1)
    rights = {s: rng.random(53) < 0.5 + 0.1 * s for s in (0.5, 1.0, 2.0)}
    right, chosen = cross_validated(rights)
    assert sum(rights[chosen]) == max(map(sum, rights.values()))
    folds = np.random.default_rng(0).permutation(53) % FOLDS
    for fold in range(FOLDS):
        kept = {s: r[folds != fold].sum() for s, r in rights.items()}
        best = max(kept.values())
        allowed = [s for s in (1.0, 0.5, 2.0) if kept[s] == best]  # nearest to 1 first
        assert (right[folds == fold] == rights[allowed[0]][folds == fold]).all()
    tosses = [cross_validated({s: rng.random(40) < 0.5 for s in range(1, 8)})[0].mean() for _ in range(400)]
    assert np.mean(tosses) == pytest.approx(0.5, abs=0.02)
    naive = [max((rng.random(40) < 0.5).mean() for _ in range(7)) for _ in range(400)]
    assert np.mean(naive) > 0.58  # what choosing on the same examples would say
    assert cross_validated({s: np.ones(20, bool) for s in (0.5, 1.0, 2.0)})[1] == 1.0
    assert all(itertools.starmap(np.array_equal, zip(cross_validated(rights), cross_validated(rights), strict=True)))
