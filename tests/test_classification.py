"""Top-k, likelihood and calibration against scikit-learn and against their definitions, bin by bin."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss, top_k_accuracy_score

from prt.classification import BINS, calibration_gap, nll, rank


def drawn(seed: int, n: int = 200, labels: int = 8, sharp: float = 2.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of examples whose true label is often, but not always, the likeliest."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randint(labels, (n,), generator=generator)
    scores = sharp * torch.randn(n, labels, generator=generator, dtype=torch.float64)
    scores[torch.arange(n), truth] += 1
    return torch.log_softmax(scores, -1), truth


@pytest.mark.parametrize("k", [1, 2, 5])
def test_rank_is_scikit_learns_top_k(k: int) -> None:
    scores, labels = drawn(0)
    found = (rank(scores, labels) < k).double().mean().item()
    assert found == pytest.approx(top_k_accuracy_score(labels, scores, k=k, labels=range(8)))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)), min_size=1), st.integers(0, 2))
def test_equal_scores_are_ranked_as_argmax_does(rows: list[tuple[int, ...]], label: int) -> None:
    """Every label has a rank of its own, so no tie makes top-5 of a model that knows nothing."""
    scores = torch.tensor(rows, dtype=torch.float64)
    ranks = torch.stack([rank(scores, torch.full((len(rows),), i)) for i in range(3)], 1)
    assert torch.equal(ranks.sort(1).values, torch.arange(3).expand(len(rows), 3))
    assert torch.equal(ranks[:, label] == 0, scores.argmax(1) == label)


def test_nll_is_scikit_learns_log_loss() -> None:
    """In nats."""
    scores, labels = drawn(1)
    expected = log_loss(labels, scores.exp().numpy(), labels=range(8))
    assert nll(scores, labels).mean().item() == pytest.approx(expected)
    assert nll(torch.full((1, 10), -np.log(10)), torch.tensor([3])).item() == pytest.approx(np.log(10))


@pytest.mark.parametrize("sharp", [0.1, 2.0, 50.0])
def test_calibration_error_is_that_of_its_definition(sharp: float) -> None:
    """Guo et al. 2017, eq. 5, in a loop over the bins, whose accuracies and confidences are scikit-learn's."""
    scores, labels = drawn(2, sharp=sharp)
    confidence, predicted = scores.exp().max(1)
    right = predicted == labels
    parts, curve = [], []
    for low, high in zip(np.arange(BINS) / BINS, np.arange(1, BINS + 1) / BINS, strict=True):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            curve.append([right[inside].double().mean().item(), confidence[inside].mean().item()])
            parts.append(inside.double().mean().item() * abs(curve[-1][0] - curve[-1][1]))
    assert calibration_gap(scores, labels).mean().item() == pytest.approx(sum(parts))
    accuracy, mean = calibration_curve(right.numpy(), confidence.numpy().clip(0, 1), n_bins=BINS)
    np.testing.assert_allclose(np.array(curve).T, [accuracy, mean])


def test_calibration_of_models_that_are_known() -> None:
    sure = torch.tensor([[0.0, -torch.inf]] * 4)
    assert calibration_gap(sure, torch.tensor([0, 0, 0, 0])).mean().item() == 0
    assert calibration_gap(sure, torch.tensor([0, 1, 1, 1])).mean().item() == pytest.approx(0.75)
    # 60 % and right in three of five: calibrated, though no single example is.
    careful = torch.tensor([[0.6, 0.4]]).log().expand(5, 2)
    assert calibration_gap(careful, torch.tensor([0, 0, 0, 1, 1])).mean().item() == pytest.approx(0, abs=1e-7)
