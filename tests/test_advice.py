"""Advice on a few examples: against known values, libraries and brute force."""

import itertools

import numpy as np
import pytest
from scipy.stats import ttest_1samp, ttest_rel

from prt import stats
from prt.advice import (
    FOLDS,
    LOSS,
    RIGHT,
    advise,
    as_text,
    cross_validated,
    needed_by_mcnemar,
    needed_by_t_test,
    with_strengths,
)


def pair(both: int, first: int, second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """Two ways that were right on so many examples."""
    one = np.repeat([True, True, False, False], [both, first, second, neither])
    return one, np.repeat([True, False, True, False], [both, first, second, neither])


@pytest.mark.parametrize(
    ("counts", "expected"),
    [((50, 20, 5, 25), 84.8), ((0, 15, 10, 75), 782.5), ((60, 20, 10, 10), 233.1)],
)
def test_mcnemar_s_examples_are_by_connor_s_formula(counts, expected):
    """With a calculator: ψ = 0.25, δ = 0.15 → (1.95996·0.5 + 0.84162·√0.2275)² / 0.0225, and so on."""
    one, other = pair(*counts)
    assert needed_by_mcnemar(one.astype(float), other.astype(float)) == np.ceil(expected)


def test_so_many_examples_tell_them_apart_four_times_of_five():
    """McNemar's test on examples drawn anew, in the shares that were seen."""
    counts = np.array([50, 20, 8, 22])
    needed = needed_by_mcnemar(*(x.astype(float) for x in pair(*counts)))
    drawn = np.random.default_rng(0).multinomial(needed, counts / 100, 20000)
    b, c = drawn[:, 1], drawn[:, 2]
    assert (abs(b - c) / np.sqrt(b + c) > stats.Z).mean() == pytest.approx(0.8, abs=0.03)


def test_the_best_comes_first_with_the_paired_difference():
    best, second = pair(50, 30, 10, 10)
    worst = np.zeros(100, bool)
    found = advise({"a": worst, "b": second, "c": best}, RIGHT)
    assert list(found.means) == ["c", "b", "a"]
    x = best.astype(float) - second
    half = 1.9842169515 * x.std(ddof=1) / 10  # Student's, 99 degrees of freedom
    assert (found.difference.value, found.difference.low) == pytest.approx((0.2, 0.2 - half))
    said = as_text(found).splitlines()
    assert said[0].startswith("c  80.0 (") and said[-1] == "these two are told apart (p < 0.05)"
    alike = advise({"a": best, "b": best}, RIGHT)
    assert list(alike.means) == ["a", "b"]  # the simpler of equal ones
    assert alike.needed is None
    assert as_text(alike).splitlines()[-1].startswith("not told apart: both were right")
    one, other = pair(50, 12, 8, 30)
    near = advise({"a": one, "b": other}, RIGHT)
    assert near.needed is not None
    assert as_text(near).splitlines()[-1].startswith(f"not told apart: about {near.needed - 100} more examples")
    # The second is of another method: not the best with another strength.
    assert advise({"a": best, "a, changed": best, "b": worst, "c": second}, RIGHT).second == "c"


def test_no_example_is_measured_with_a_strength_that_it_chose():
    """Against the folds by hand; and on coin tosses the chosen strength is no better than chance."""
    rng = np.random.default_rng(1)
    rights = {s: rng.random(53) < 0.5 + 0.1 * s for s in (0.5, 1.0, 2.0)}
    right, chosen = cross_validated(rights, RIGHT)
    assert sum(rights[chosen]) == max(map(sum, rights.values()))
    folds = np.random.default_rng(0).permutation(53) % FOLDS
    for fold in range(FOLDS):
        kept = {s: r[folds != fold].sum() for s, r in rights.items()}
        best = max(kept.values())
        allowed = [s for s in (1.0, 0.5, 2.0) if kept[s] == best]  # nearest to 1 first
        assert (right[folds == fold] == rights[allowed[0]][folds == fold]).all()
    tosses = [cross_validated({s: rng.random(40) < 0.5 for s in range(1, 8)}, RIGHT)[0].mean() for _ in range(400)]
    assert np.mean(tosses) == pytest.approx(0.5, abs=0.02)
    naive = [max((rng.random(40) < 0.5).mean() for _ in range(7)) for _ in range(400)]
    assert np.mean(naive) > 0.58  # what choosing on the same examples would say
    assert cross_validated({s: np.ones(20, bool) for s in (0.5, 1.0, 2.0)}, RIGHT)[1] == 1.0
    twice = [cross_validated(rights, RIGHT) for _ in range(2)]
    assert all(itertools.starmap(np.array_equal, zip(*twice, strict=True)))


def losses(shift: float, size: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two ways' losses of chats, of which some are hard for both; the second's are greater by ``shift`` on average."""
    rng = np.random.default_rng(seed)
    hard = rng.gamma(2.0, 2.0, size)
    return hard, hard + shift + 0.5 * rng.normal(size=size)


def test_the_least_loss_comes_first_with_the_paired_t_test():
    one, other = losses(0.5)
    worst = 3 * one + 9
    found = advise({"a": worst, "b": other, "c": one}, LOSS)
    assert list(found.means) == ["c", "b", "a"]
    test = ttest_rel(other, one)
    assert (found.difference.value, found.difference.p) == pytest.approx(((other - one).mean(), test.pvalue))
    assert (found.difference.low, found.difference.high) == pytest.approx(tuple(test.confidence_interval(0.95)))
    assert found.means["a"].high == pytest.approx(ttest_1samp(worst, 0).confidence_interval(0.95).high)
    far = advise({"a": worst, "c": one}, LOSS)
    assert far.difference.high > 1  # nats have no bound, as shares have
    said = as_text(found).splitlines()
    assert said[0].startswith("loss in nats per token of the assistant")
    assert said[1].startswith(f"c  {one.mean():.3f} (")
    assert said[-2].startswith(f"best on 40 chats: c; {(other - one).mean():.3f} (")
    assert said[-2].endswith(" nats below the best other method, b")
    assert said[-1] == "these two are told apart (p < 0.05)"


def test_losses_that_do_not_differ_are_not_told_apart():
    one, other = losses(0.02)
    near = advise({"a": one, "b": other}, LOSS)
    assert near.needed is not None
    assert near.needed > 40
    assert as_text(near).endswith(f"not told apart: about {near.needed - 40} more chats would, four times of five")
    for same in (one, one + 1e-13 * other, one + 0.25):  # equal, but for rounding, and by as much on every chat
        found = advise({"a": one, "b": same}, LOSS)
        assert found.needed is None
        assert np.isnan([found.difference.low, found.difference.high, found.difference.p]).all()
        assert f"; {found.difference.value:.3f} nats below the best other method, " in as_text(found)
        assert as_text(found).splitlines()[-1].startswith("not told apart: both losses are the same, or differ alike")


def test_so_many_chats_tell_them_apart_four_times_of_five():
    """By hand: s = 2, δ = 0.5 → ((1.95996 + 0.84162)·2 / 0.5)² = 125.6; and with the t-test on chats drawn anew."""
    apart = np.repeat([0.5 - 2, 0.5 + 2], 50) * np.sqrt(99 / 100)
    apart += 0.5 - apart.mean()
    needed = needed_by_t_test(apart, np.zeros(100))
    assert needed == 126
    drawn = np.random.default_rng(0).normal(0.5, 2, (5000, needed))
    assert (ttest_1samp(drawn, 0, axis=1).pvalue < 0.05).mean() == pytest.approx(0.8, abs=0.03)


def test_of_losses_the_least_is_chosen_and_no_chat_chooses_its_own():
    rng = np.random.default_rng(3)
    swept = {s: rng.gamma(2.0, 1.0, 23) for s in (0.5, 1.0, 2.0)}
    values, chosen = cross_validated(swept, LOSS)
    assert swept[chosen].sum() == min(each.sum() for each in swept.values())
    folds = np.random.default_rng(0).permutation(23) % FOLDS
    for fold in range(FOLDS):
        best = min(swept, key=lambda s, fold=fold: swept[s][folds != fold].sum())
        assert (values[folds == fold] == swept[best][folds == fold]).all()
    ways = with_strengths({"x": swept[0.5]}, {"y": swept}, LOSS)
    assert list(ways) == ["x", "y", f"y, strength chosen ({chosen:g})"]
    assert ways["y"] is swept[1.0]
