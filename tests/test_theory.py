"""Proposition 3.2's quantities, and that its bound holds."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from prt import combine, theory

matrices = arrays(np.float64, (4, 7), elements=st.floats(-12, 12)).map(torch.from_numpy)


@given(matrices, matrices, matrices)
def test_the_bound_holds(source: torch.Tensor, target: torch.Tensor, reward: torch.Tensor) -> None:
    actual = theory.kl(combine.prt(source, reward), combine.prt(target, reward))
    c, eps = theory.concentration(source, reward), theory.epsilon(source, target)
    slack = 1e-8 * (1 + c * eps)
    assert (actual <= c * eps + slack).all()
    assert (actual <= theory.transfer_bound(source, target, reward) + slack).all()


@given(matrices, matrices)
def test_against_plain_probabilities(a: torch.Tensor, r: torch.Tensor) -> None:
    p = torch.softmax(a, -1)
    c = r.exp().amax(-1) / (p * r.exp()).sum(-1)
    torch.testing.assert_close(theory.concentration(a, r), c)
    assert (theory.concentration(a, r) >= 1 - 1e-9).all()
    q = torch.softmax(r, -1)
    torch.testing.assert_close(theory.epsilon(a, r), (p * (p / q).log()).sum(-1), atol=1e-9, rtol=1e-6)


@given(matrices, matrices)
def test_the_source_itself(source: torch.Tensor, reward: torch.Tensor) -> None:
    torch.testing.assert_close(theory.epsilon(source, source), torch.zeros(4, dtype=torch.float64))
    torch.testing.assert_close(theory.transfer_bound(source, source, reward), torch.zeros(4, dtype=torch.float64))


def test_kl_of_a_label_without_probability() -> None:
    p = torch.tensor([[0.5, 0.5, 0.0]]).log()
    assert theory.kl(p, torch.zeros(1, 3)).item() == pytest.approx(np.log(1.5))


def test_a_flat_reward_has_concentration_one() -> None:
    assert theory.concentration(torch.randn(2, 9), torch.full((2, 9), 3e4)).tolist() == pytest.approx([1, 1])
