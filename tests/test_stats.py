"""Measures and intervals against libraries and simulation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, recall_score

from prt import stats


@given(st.integers(1, 500), st.data())
def test_wilson_is_scipys(n: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, n))
    expected = binomtest(right, n).proportion_ci(0.95, "wilson")
    found = stats.wilson(right / n, n)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60))
def test_metrics_are_scikit_learns(pairs: list[tuple[int, int]]) -> None:
    truth, predicted = np.array(pairs).T
    hit = (truth == predicted).astype(float)
    assert stats.mean(hit, stats.strata(truth, "top1")) == pytest.approx(accuracy_score(truth, predicted))
    recall = stats.mean(hit, stats.strata(truth, "mean_per_class_recall"))
    expected = recall_score(truth, predicted, labels=np.unique(truth), average="macro", zero_division=0)
    assert recall == pytest.approx(expected)


def test_interval_covers_the_truth() -> None:
    """Seeds and examples drawn at random: 95 % of the intervals hold the true mean, to within simulation error."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(600):
        chance = 0.7 + 0.1 * rng.normal(size=(1, 300)) + 0.03 * rng.normal(size=(20, 1))
        e = stats.mean_over_seeds((rng.random((20, 300)) < chance).astype(float), np.zeros(300))
        covered += e.low <= 0.7 <= e.high
    assert 0.92 <= covered / 600 <= 0.98


def test_one_seed_has_the_examples_alone() -> None:
    x = np.array([[1.0, 0.0, 1.0, 1.0]])
    e = stats.mean_over_seeds(x, np.zeros(4))
    assert e.value == 0.75
    assert e.high - e.value == pytest.approx(stats.Z * x.std(ddof=1) / 2)


def test_recall_of_unbalanced_classes() -> None:
    """All right leaves no doubt; else the rare class's few examples make the interval wide, and it covers."""
    groups = np.repeat([0, 1], [90, 10])
    e = stats.mean_over_seeds(np.ones((3, 100)), groups)
    assert (e.low, e.value, e.high) == (1, 1, 1)
    assert stats.effective_size(groups) == pytest.approx(36)
    assert stats.effective_size(np.zeros(50)) == 50
    rng = np.random.default_rng(0)
    chance = np.where(groups == 0, 0.9, 0.5)
    estimates = [stats.mean_over_seeds((rng.random((1, 100)) < chance).astype(float), groups) for _ in range(600)]
    assert 0.90 <= np.mean([e.low <= 0.7 <= e.high for e in estimates]) <= 0.98
