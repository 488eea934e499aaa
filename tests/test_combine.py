"""The inference equations against brute force and their invariances (eq. 4, 5, 6, 10; Proposition 3.1)."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import minimize

from prt import combine

LABELS = 5


def logits(rows: int = 3) -> st.SearchStrategy[torch.Tensor]:
    return arrays(np.float64, (rows, LABELS), elements=st.floats(-20, 20)).map(torch.from_numpy)


def regret(z: np.ndarray, pt: np.ndarray, r: np.ndarray, lam: float) -> float:
    """Minus E_π[r] − λ·KL(π ‖ π_pt) of π = softmax(z)."""
    log_pi = z - np.logaddexp.reduce(z)
    return -np.exp(log_pi) @ (r - lam * (log_pi - pt))


def test_prt_maximises_the_regularised_reward() -> None:
    """Eq. 1 and 5: no distribution has a higher E_π[r] − λ·KL(π ‖ π_pt) than π_pt·e^{r/λ}/Z."""
    rng = np.random.default_rng(0)
    for strength in (0.5, 1.0, 3.0):
        pretrained = torch.log_softmax(torch.from_numpy(rng.normal(size=LABELS)), -1)
        reward = torch.from_numpy(rng.normal(size=LABELS))

        arguments = (pretrained.numpy(), reward.numpy(), 1 / strength)
        best = minimize(regret, np.zeros(LABELS), arguments, method="BFGS", options={"gtol": 1e-9}).x
        found = np.exp(best - np.logaddexp.reduce(best))
        closed = combine.prt(pretrained, reward, strength).exp().numpy()
        np.testing.assert_allclose(closed, found, atol=1e-6)


@given(logits(), logits())
def test_implicit_reward_gives_the_finetuned_model_back(finetuned: torch.Tensor, pretrained: torch.Tensor) -> None:
    """Proposition 3.1: r = log π_ft − log π_pt has E_{π_pt}[e^r] = 1, and on π_pt it is π_ft."""
    implicit = combine.log_probs(finetuned) - combine.log_probs(pretrained)
    torch.testing.assert_close(
        torch.logsumexp(combine.log_probs(pretrained) + implicit, -1),
        torch.zeros(3, dtype=torch.float64),
        atol=1e-9,
        rtol=0,
    )
    torch.testing.assert_close(combine.prt(pretrained, implicit), combine.log_probs(finetuned))
    torch.testing.assert_close(combine.eft(pretrained, finetuned, pretrained), combine.log_probs(finetuned))


@given(logits(), logits(), arrays(np.float64, (3, 1), elements=st.floats(-50, 50)), st.floats(0, 4))
def test_a_constant_per_input_changes_nothing(target: torch.Tensor, r: torch.Tensor, c: np.ndarray, s: float) -> None:
    shift = torch.from_numpy(c)
    torch.testing.assert_close(combine.prt(target, r + shift, s), combine.prt(target, r, s))
    torch.testing.assert_close(combine.prt(target + shift, r, s), combine.prt(target, r, s))
    torch.testing.assert_close(combine.reward_only(r + shift), combine.reward_only(r))


@given(logits(), logits(), logits(), st.floats(-2, 2), st.floats(-2, 2))
def test_several_rewards_add_up(target: torch.Tensor, a: torch.Tensor, b: torch.Tensor, s: float, t: float) -> None:
    torch.testing.assert_close(combine.prt(target, [a, b], [s, t]), combine.prt(combine.prt(target, a, s), b, t))
    torch.testing.assert_close(combine.prt(target, [a, b], s), combine.prt(target, a + b, s))


@given(logits(), logits())
def test_strength_nought_is_the_target(target: torch.Tensor, r: torch.Tensor) -> None:
    for combined in (combine.prt(target, r, 0.0), combine.eft(target, r, r), combine.poe(target, r, 0.0)):
        torch.testing.assert_close(combined, combine.log_probs(target))


@given(logits(), logits(), logits())
def test_against_plain_probabilities(target: torch.Tensor, ft: torch.Tensor, pt: torch.Tensor) -> None:
    p, q, s = (torch.softmax(x, -1) for x in (target, ft, pt))
    torch.testing.assert_close(combine.poe(target, ft).exp(), p * q / (p * q).sum(-1, keepdim=True))
    ratio = p * q / s
    torch.testing.assert_close(combine.eft(target, ft, pt).exp(), ratio / ratio.sum(-1, keepdim=True))


def test_as_many_strengths_as_rewards() -> None:
    x = torch.zeros(1, LABELS)
    with pytest.raises(ValueError):
        combine.prt(x, [x, x], [1.0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    """CLIP's logits reach 100; in half precision the sum of a softmax over many labels would be far from 1."""
    torch.manual_seed(0)
    target, r = (100 * torch.rand(4, 1000)).to(dtype), (100 * torch.rand(4, 1000)).to(dtype)
    out = combine.prt(target, r)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out.double(), combine.prt(target.double(), r.double()), atol=1e-4, rtol=1e-5)


def test_extreme_values_stay_finite_where_they_can() -> None:
    target = torch.tensor([[0.0, -float("inf"), 1e4]])
    out = combine.prt(target, torch.tensor([[3e4, 0.0, -3e4]]))
    assert not torch.isnan(out).any()
    assert out[0, 1] == -float("inf")
