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
    assert (hit * stats.weights(truth, "top1")).mean() == pytest.approx(accuracy_score(truth, predicted))
    recall = (hit * stats.weights(truth, "mean_per_class_recall")).mean()
    expected = recall_score(truth, predicted, labels=np.unique(truth), average="macro", zero_division=0)
    assert recall == pytest.approx(expected)


def test_interval_covers_the_truth() -> None:
    """Seeds and examples drawn at random: 95 % of the intervals hold the true mean, to within simulation error."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(600):
        chance = 0.7 + 0.1 * rng.normal(size=(1, 300)) + 0.03 * rng.normal(size=(20, 1))
        e = stats.mean_over_seeds((rng.random((20, 300)) < chance).astype(float))
        covered += e.low <= 0.7 <= e.high
    assert 0.92 <= covered / 600 <= 0.98


def test_one_seed_has_the_examples_alone() -> None:
    x = np.array([[1.0, 0.0, 1.0, 1.0]])
    e = stats.mean_over_seeds(x)
    assert e.value == 0.75
    assert e.high - e.value == pytest.approx(stats.Z * x.std(ddof=1) / 2)
