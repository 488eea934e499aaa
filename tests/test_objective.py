"""The training losses and their gradients against brute force (Algorithm 1, eq. 7 and 12)."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from prt import objective

N, LABELS = 4, 6
matrices = arrays(np.float64, (N, LABELS), elements=st.floats(-15, 15)).map(torch.from_numpy)
labels = st.lists(st.integers(0, LABELS - 1), min_size=N, max_size=N).map(torch.tensor)


def plain_loss(reference: np.ndarray, reward: np.ndarray, truth: np.ndarray, alpha: float) -> float:
    """Eq. 7 and 12 in probabilities, one example at a time."""
    total = 0.0
    for f, r, y in zip(reference, reward, truth, strict=True):
        pt = np.exp(f - f.max()) / np.exp(f - f.max()).sum()
        tuned = pt * np.exp(r - r.max())
        rho = np.exp(r - r.max()) / np.exp(r - r.max()).sum()
        total += -np.log(tuned[y] / tuned.sum()) + alpha * (rho * np.log(rho)).sum()
    return total / len(truth)


@given(matrices, matrices, labels, st.sampled_from([0.0, 1e-3, 0.1, 1.0]))
def test_loss_and_gradient(reference: torch.Tensor, reward: torch.Tensor, truth: torch.Tensor, alpha: float) -> None:
    reward = reward.clone().requires_grad_()
    loss = objective.prt_loss(reference, reward, truth, alpha)
    assert loss.item() == pytest.approx(
        plain_loss(reference.numpy(), reward.detach().numpy(), truth.numpy(), alpha), abs=1e-9
    )
    loss.backward()
    at, step = reward.detach().numpy(), 1e-5
    for i in range(N):
        for j in range(LABELS):
            up, down = at.copy(), at.copy()
            up[i, j] += step
            down[i, j] -= step
            slope = (
                plain_loss(reference.numpy(), up, truth.numpy(), alpha)
                - plain_loss(reference.numpy(), down, truth.numpy(), alpha)
            ) / (2 * step)
            assert reward.grad[i, j].item() == pytest.approx(slope, abs=1e-6)


def test_gradient_of_the_reward_is_that_of_the_sum() -> None:
    """d loss / d r = (π_θ − onehot) / N: the reference shifts the model but is not learnt."""
    torch.manual_seed(0)
    reference, reward = torch.randn(N, LABELS, requires_grad=True), torch.randn(N, LABELS, requires_grad=True)
    truth = torch.tensor([0, 1, 2, 3])
    objective.prt_loss(reference, reward, truth).backward()
    assert reference.grad is None
    expected = torch.softmax(torch.log_softmax(reference, -1) + reward, -1).detach()
    expected[range(N), truth] -= 1
    torch.testing.assert_close(reward.grad, expected / N)


def test_a_uniform_reference_makes_prt_plain_fine_tuning() -> None:
    torch.manual_seed(0)
    reward, truth = torch.randn(N, LABELS), torch.tensor([5, 0, 2, 2])
    torch.testing.assert_close(
        objective.prt_loss(torch.zeros(N, LABELS), reward, truth), objective.ft_loss(reward, truth)
    )
    torch.testing.assert_close(objective.ft_loss(reward, truth), torch.nn.functional.cross_entropy(reward, truth))


@given(matrices)
def test_entropy_lies_between_nought_and_log_l(reward: torch.Tensor) -> None:
    assert -1e-9 <= objective.entropy(reward).item() <= np.log(LABELS) + 1e-9


def test_entropy_of_a_label_without_probability() -> None:
    reward = torch.tensor([[0.0, 0.0, -float("inf")]], requires_grad=True)
    value = objective.entropy(reward)
    assert value.item() == pytest.approx(np.log(2))
    value.backward()
    assert not torch.isnan(reward.grad).any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    reference, reward = (30 * torch.rand(8, 500)).to(dtype), (30 * torch.rand(8, 500)).to(dtype)
    truth = torch.arange(8)
    exact = objective.prt_loss(reference.double(), reward.double(), truth, 0.1)
    torch.testing.assert_close(objective.prt_loss(reference, reward, truth, 0.1).double(), exact, rtol=1e-4, atol=1e-4)


@given(matrices, matrices, labels, st.sampled_from([0.0, 0.1]), st.lists(st.floats(0, 2), min_size=N, max_size=N))
def test_a_reference_that_counts_less(
    reference: torch.Tensor, reward: torch.Tensor, truth: torch.Tensor, alpha: float, betas: list[float]
) -> None:
    """β of each example: softmax(β·log π_pt + r) is softmax(log_softmax(β·f) + r); at 0 it is fine-tuning."""
    beta = torch.tensor(betas, dtype=torch.float64)[:, None]
    loss = objective.prt_loss(reference, reward, truth, alpha, beta).item()
    assert loss == pytest.approx(plain_loss((beta * reference).numpy(), reward.numpy(), truth.numpy(), alpha), abs=1e-9)
    nothing = objective.prt_loss(reference, reward, truth, 0.0, 0.0)
    assert nothing.item() == pytest.approx(objective.ft_loss(reward, truth).item(), abs=1e-12)
    assert torch.equal(
        objective.prt_loss(reference, reward, truth, alpha, torch.ones(N, 1)),
        objective.prt_loss(reference, reward, truth, alpha),
    )
