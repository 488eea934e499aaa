"""Measures, intervals and tests against libraries and simulation."""

from collections.abc import Callable
from itertools import chain, combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import binomtest, ttest_1samp, ttest_ind, ttest_rel
from sklearn.metrics import accuracy_score, recall_score

from prt import stats


@given(st.integers(1, 500), st.data())
def test_wilson_is_scipys(n: int, data: st.DataObject) -> None:
    """And so is the interval of right and wrong answers, of one seed or of several that agree."""
    right = data.draw(st.integers(0, n))
    expected = binomtest(right, n).proportion_ci(0.95, "wilson")
    x = np.repeat([1.0, 0.0], [right, n - right])
    for found in (
        stats.wilson(right / n, n),
        stats.share(x, np.zeros(n)),
        stats.share(np.stack([x] * 3), np.zeros(n)),
    ):
        assert found.value == pytest.approx(right / n)
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60))
def test_metrics_are_scikit_learns(pairs: list[tuple[int, int]]) -> None:
    truth, predicted = np.array(pairs).T
    hit = (truth == predicted).astype(float)
    assert stats.mean(hit, stats.strata(truth, "top1")) == pytest.approx(accuracy_score(truth, predicted))
    recall = stats.mean(hit, stats.strata(truth, "mean_per_class_recall"))
    expected = recall_score(truth, predicted, labels=np.unique(truth), average="macro", zero_division=0)
    assert recall == pytest.approx(expected)


def answers(rng: np.random.Generator, right: np.ndarray, spread: float = 0, seeds: int = 3) -> np.ndarray:
    """Answers of seeds, ``right`` on average: examples are easy or hard for all, means differ by ``spread``."""
    easy = rng.beta(right, 1 - right)
    effect = spread * rng.normal(size=(seeds, 1)) * easy * (1 - easy) / (right * (1 - right) / 2)
    return (rng.random((seeds, len(right))) < easy + effect).astype(float)


def covered(truth: float, draw: Callable[[], stats.Estimate]) -> float:
    """The part of intervals that hold the truth; the simulation's own error is below 0.01."""
    return float(np.mean([e.low <= truth <= e.high for e in (draw() for _ in range(800))]))


MOSTLY = np.full(200, 0.7)
ONE = np.zeros(200, int)  # all examples in one group
LEAST = {1: 0.93, 2: 0.88, 3: 0.93, 5: 0.93}  # two seeds know their spread badly: Satterthwaite's is an approximation


@pytest.mark.parametrize(
    ("seeds", "spread"), [(1, 0), *((seeds, spread) for seeds in (2, 3, 5) for spread in (0, 0.01, 0.02, 0.05))]
)
def test_intervals_cover_the_truth(seeds: int, spread: float) -> None:
    """95 % of them over seeds and examples, of a share and of a paired difference, whose p finds as few."""
    rng = np.random.default_rng(1)
    assert LEAST[seeds] <= covered(0.7, lambda: stats.share(answers(rng, MOSTLY, spread, seeds), ONE)) <= 0.985
    none = [stats.difference(answers(rng, MOSTLY, spread, seeds) - answers(rng, MOSTLY, 0, 1), ONE) for _ in range(800)]
    assert LEAST[seeds] <= np.mean([e.low <= 0 <= e.high for e in none]) <= 0.985
    assert all((e.p < 0.05) == (e.low > 0 or e.high < 0) for e in none)


def test_the_normal_quantile_does_not_cover(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three seeds far apart need Student's: such a simulation sees it."""
    rng, right, groups = np.random.default_rng(0), np.full(1000, 0.7), np.zeros(1000, int)
    monkeypatch.setattr(stats, "_quantile", lambda freedom: stats.Z)
    assert covered(0.7, lambda: stats.share(answers(rng, right, 0.05), groups)) < 0.88
    assert covered(0, lambda: stats.difference(answers(rng, right, 0.05) - answers(rng, right), groups)) < 0.92


@pytest.mark.parametrize("right", [0.005, 0.98])
@pytest.mark.parametrize(("seeds", "spread"), [(1, 0), (3, 0), (3, 0.2)])
def test_intervals_cover_near_0_and_1(right: float, seeds: int, spread: float) -> None:
    """The spread over seeds in parts of the distance to 0 or 1."""
    rng = np.random.default_rng(1)
    spread *= min(right, 1 - right)
    assert covered(right, lambda: stats.share(answers(rng, np.full(200, right), spread, seeds), ONE)) >= 0.90


@pytest.mark.parametrize(
    ("sizes", "least"),
    [([20] * 10, 0.93), ([3] * 100, 0.93), ([1] * 50, 0.93), ([90, 10], 0.93), ([200, 1, 1, 1], 0.87)],
)
@pytest.mark.parametrize(("seeds", "spread"), [(1, 0), (3, 0.02)])
def test_intervals_of_recall_cover_the_truth(sizes: list[int], least: float, seeds: int, spread: float) -> None:
    """Of few classes and many, rare ones, and such with a single example, some of them harder than others."""
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(len(sizes)), sizes)
    right = np.linspace(0.9, 0.7, len(sizes))[groups]
    assert covered(0.8, lambda: stats.share(answers(rng, right, spread, seeds), groups)) >= least


def test_effective_size() -> None:
    assert stats.effective_size(np.repeat([0, 1], [90, 10])) == pytest.approx(36)
    assert stats.effective_size(np.zeros(50)) == 50


def numbers(*shape: int) -> st.SearchStrategy[np.ndarray]:
    return arrays(float, shape, elements=st.floats(-0.5, 0.5, allow_subnormal=False, width=16))


@given(st.data(), st.integers(2, 30))
def test_one_seed_is_the_paired_t_test(data: st.DataObject, n: int) -> None:
    mine, theirs = data.draw(numbers(n)), data.draw(numbers(n))
    if np.ptp(mine - theirs) < 1e-3:
        return
    expected = ttest_rel(mine, theirs)
    found = stats.difference((mine - theirs)[None], np.zeros(n))
    interval = expected.confidence_interval(0.95)
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx((max(-1, interval.low), min(1, interval.high)))


@given(st.data(), st.integers(2, 6), st.integers(2, 30))
def test_seeds_and_examples_are_welchs_t_test(data: st.DataObject, seeds: int, n: int) -> None:
    """Effects of seeds and examples that add up are two independent samples; without the one, the other's alone."""
    of_seeds, of_examples = data.draw(numbers(seeds)), data.draw(numbers(n))
    if np.ptp(of_seeds) < 1e-3:
        return
    x, groups = of_seeds[:, None] + of_examples, np.zeros(n)
    if np.ptp(of_examples) == 0:
        expected = ttest_1samp(of_seeds, -of_examples[0])
    else:
        expected = ttest_ind(of_seeds, -of_examples, equal_var=False)
    found = stats.difference(x, groups)
    interval = expected.confidence_interval(0.95)
    low, high = np.array([interval.low, interval.high]) + (of_examples[0] if np.ptp(of_examples) == 0 else 0)
    assert found.p == pytest.approx(expected.pvalue, abs=1e-9)
    assert (found.low, found.high) == pytest.approx((max(-1, low), min(1, high)), abs=1e-9)


@given(st.lists(st.floats(0, 1), max_size=6))
def test_holm_is_the_closed_test(p: list[float]) -> None:
    """A hypothesis is rejected where Bonferroni's test rejects each set of hypotheses that it is in."""
    every = range(len(p))
    sets = list(chain.from_iterable(combinations(every, k) for k in range(1, len(p) + 1)))
    expected = [max(min(1, len(s) * min(p[j] for j in s)) for s in sets if i in s) for i in every]
    assert stats.holm(np.array(p)).tolist() == pytest.approx(expected)


@given(st.integers(1, 4), st.integers(1, 12), st.integers(1, 12), st.data())
def test_intervals_hold_their_value_and_are_never_empty(seeds: int, n: int, classes: int, data: st.DataObject) -> None:
    """Whatever the answers are: within bounds, around the value, not of length 0; p and the interval agree."""
    x = data.draw(arrays(float, (seeds, n), elements=st.sampled_from([0.0, 0.3, 1.0])))
    groups = data.draw(arrays(int, n, elements=st.integers(0, classes - 1)))
    e = stats.share(x, groups)
    assert e.value == pytest.approx(stats.mean(x, groups).mean())
    assert 0 <= e.low <= e.value + 1e-12 <= e.high + 2e-12 <= 1 + 3e-12
    assert e.high - e.low > 0.01
    y = x - data.draw(arrays(float, (seeds, n), elements=st.sampled_from([0.0, 0.3, 1.0])))
    d = stats.difference(y, groups)
    assert d.value == pytest.approx(stats.mean(y, groups).mean())
    assert -1 <= d.low <= d.value + 1e-12 <= d.high + 2e-12 <= 1 + 3e-12
    assert d.high > d.low
    assert (d.p < 0.05) == (d.low > 0 or d.high < 0)


def test_equal_examples_are_no_certainty() -> None:
    """All right, all wrong, all better, no difference: for one seed and several, of one example and many."""
    for seeds in (1, 3):
        for n, most in ((1, 0.8), (200, 0.02), (10_000, 0.0004)):
            groups = np.zeros(n)
            e = stats.share(np.ones((seeds, n)), groups)
            assert (e.value, e.high) == (1, 1)
            assert e.low == pytest.approx(binomtest(n, n).proportion_ci(0.95, "wilson").low)
            assert 1 - e.low < most
            assert stats.share(np.zeros((seeds, n)), groups).high == pytest.approx(1 - e.low)
            same = stats.difference(np.zeros((seeds, n)), groups)
            assert (same.value, same.p, same.low) == (0, 1, -same.high)
            assert 0 < same.high <= 1.2 * most + (n == 1)
            better = stats.difference(np.ones((seeds, n)), groups)
            assert (better.value, better.high, better.p < 0.05) == (1, 1, n > 1)
            assert better.low < 1
    assert stats.difference(np.ones((1, 3)), np.zeros(3)).p > 0.05  # three heads in a row


def test_what_is_added_to_equal_examples() -> None:
    """The paired t-test with one pair more that is better, and one that is worse."""
    expected = ttest_1samp(np.append(np.ones(8), [1, -1]), 0)
    found = stats.difference(np.ones((1, 8)), np.zeros(8))
    assert found.p == pytest.approx(expected.pvalue)
    assert found.low == pytest.approx(expected.confidence_interval(0.95).low)


def test_spread() -> None:
    x = np.array([[1.0, 0.0], [1.0, 1.0]])
    assert stats.spread(x, np.zeros(2)) == pytest.approx(np.std([0.5, 1], ddof=1))
    assert np.isnan(stats.spread(x[:1], np.zeros(2)))


@pytest.mark.parametrize(("seeds", "spread"), [(1, 0), (3, 0), (3, 0.3)])
def test_intervals_of_any_mean_cover_it(seeds: int, spread: float) -> None:
    """Of skewed numbers above 1, as losses are."""
    rng = np.random.default_rng(1)

    def draw() -> stats.Estimate:
        return stats.average(rng.exponential(2, 200) + rng.normal(0, spread, (seeds, 1)), ONE)

    assert 0.92 <= covered(2, draw) <= 0.985


def test_what_has_no_interval() -> None:
    """One example, examples that are all equal, and what is a mean by its formula only."""
    x = np.array([[1.0, 3.0], [2.0, 4.0]])
    found = [stats.average(x[:, :1], np.zeros(1)), stats.average(np.full((2, 9), 1.5), np.zeros(9))]
    found.append(stats.point(x, np.zeros(2)))
    assert [e.value for e in found] == [1.5, 1.5, 2.5]
    assert all(np.isnan([e.low, e.high]).all() for e in found)
