"""The losses in chunks: equal to the naive ones, and their gradients too."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from prt import objective
from prt.language import loss
from prt.language.loss import ft_loss, prt_loss


def drawn(seed: int, *shape: int, scale: float = 1.0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale


def gradients(value: Tensor, *inputs: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(value, inputs))


@settings(max_examples=40)
@given(
    seed=st.integers(0, 1000),
    tokens=st.integers(1, 9),
    size=st.integers(2, 12),
    padding=st.integers(0, 3),
    alpha=st.sampled_from([0.0, 1e-3, 0.1, 2.0]),
    entries=st.sampled_from([1, 20, 2**24]),
    scale=st.sampled_from([0.1, 1.0, 5.0]),
)
def test_equal_to_the_naive_losses(
    seed: int, tokens: int, size: int, padding: int, alpha: float, entries: int, scale: float
) -> None:
    h, w = drawn(seed, tokens, 4, scale=scale).requires_grad_(), drawn(seed + 1, size + padding, 4).requires_grad_()
    # The reference may have another width and another padding.
    h_ref, w_ref = drawn(seed + 2, tokens, 5, scale=scale), drawn(seed + 3, size + 1, 5)
    labels = torch.randint(size, (tokens,), generator=torch.Generator().manual_seed(seed))
    items = 7.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loss, "ENTRIES", entries)
        mine = prt_loss(h, w, [(h_ref, w_ref)], labels, alpha, size=size, items=items)
        plain = ft_loss(h, w, labels, size=size, items=items)
        mine_gradients, plain_gradients = gradients(3 * mine, h, w), gradients(plain, h, w)
    naive = objective.prt_loss(h_ref @ w_ref[:size].T, h @ w[:size].T, labels, alpha) * tokens / items
    torch.testing.assert_close(mine, naive)
    for ours, theirs in zip(mine_gradients, gradients(3 * naive, h, w), strict=True):
        torch.testing.assert_close(ours, theirs)
    naive = objective.ft_loss(h @ w[:size].T, labels) * tokens / items
    torch.testing.assert_close(plain, naive)
    for ours, theirs in zip(plain_gradients, gradients(naive, h, w), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert not mine_gradients[1][size:].any()


def test_padding_rows_get_no_probability() -> None:
    h, w, labels = drawn(0, 3, 4), drawn(1, 8, 4), torch.tensor([0, 1, 5])
    wild = torch.cat([w[:6], torch.full((1, 4), 1e6), torch.full((1, 4), -1e6)])
    assert torch.equal(ft_loss(h, w, labels, size=6, items=3), ft_loss(h, wild, labels, size=6, items=3))
    assert ft_loss(h, wild, labels, size=8, items=3) > 1e5


def test_an_output_matrix_that_is_the_embedding_s() -> None:
    w, ids = drawn(0, 6, 4).requires_grad_(), torch.tensor([0, 3, 5, 5])
    w_ref, labels = drawn(1, 6, 4), torch.tensor([1, 2, 3, 4])
    h_ref = drawn(2, 4, 4)
    mine = prt_loss(torch.tanh(w[ids]), w, [(h_ref, w_ref)], labels, 0.1, size=6, items=4)
    naive = objective.prt_loss(h_ref @ w_ref.T, torch.tanh(w[ids]) @ w.T, labels, 0.1)
    torch.testing.assert_close(gradients(mine, w)[0], gradients(naive, w)[0])


@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16_is_near_float32(autocast: bool) -> None:
    """Products in bfloat16, sums and softmax in float32: as near as the rounding of the products lets it be."""
    h, w, h_ref, w_ref = (drawn(i, n, 32).float() for i, n in enumerate((64, 50, 64, 50)))
    labels = torch.randint(50, (64,), generator=torch.Generator().manual_seed(0))
    kept = torch.float32 if autocast else torch.bfloat16
    inputs = [h.to(kept).requires_grad_(), w.to(kept).requires_grad_()]
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        mine = prt_loss(*inputs, [(h_ref.to(kept), w_ref.to(kept))], labels, 0.1, size=50, items=64)
    assert mine.dtype == torch.float32
    wide = [h.requires_grad_(), w.requires_grad_()]
    naive = objective.prt_loss(h_ref @ w_ref.T, h @ w.T, labels, 0.1)
    torch.testing.assert_close(mine, naive, rtol=0.02, atol=0)
    for ours, theirs in zip(gradients(mine, *inputs), gradients(naive, *wide), strict=True):
        assert ours.dtype == kept
        assert (ours.float() - theirs).norm() < 0.03 * theirs.norm()


def test_without_gradients() -> None:
    """Validation makes none, and an adapter leaves the output matrix alone."""
    h, w, labels = drawn(0, 3, 4), drawn(1, 6, 4), torch.tensor([0, 1, 5])
    assert not ft_loss(h, w, labels, size=6, items=3).requires_grad
    value = ft_loss(h.requires_grad_(), w, labels, size=6, items=3)
    value.backward()
    assert w.grad is None
    assert h.grad is not None


def test_no_tokens_and_no_number() -> None:
    h, w = torch.zeros(0, 4, requires_grad=True), torch.ones(6, 4, requires_grad=True)
    value = ft_loss(h, w, torch.zeros(0, dtype=torch.long), size=6, items=3)
    assert value == 0
    assert not gradients(value, w)[0].any()
    assert ft_loss(torch.full((1, 4), math.nan), w, torch.tensor([0]), size=6, items=1).isnan()


@settings(max_examples=20)
@given(
    seed=st.integers(0, 1000),
    tokens=st.integers(1, 9),
    alpha=st.sampled_from([0.0, 0.1]),
    entries=st.sampled_from([1, 20, 2**24]),
    several=st.booleans(),
)
def test_less_of_a_reference_and_several(seed: int, tokens: int, alpha: float, entries: int, several: bool) -> None:
    """Each token with its own β, beside its own model: equal to the naive loss, and its gradients too."""
    size = 5
    h, w = drawn(seed, tokens, 4).requires_grad_(), drawn(seed + 1, size + 2, 4).requires_grad_()
    references = [(drawn(seed + 2 + k, tokens, 3 + k), drawn(seed + 5 + k, size + k, 3 + k)) for k in range(3)]
    generator = torch.Generator().manual_seed(seed)
    labels, model = (torch.randint(n, (tokens,), generator=generator) for n in (size, 3))
    beta = 2 * torch.rand(tokens, generator=generator)
    given = {"beta": beta, "model": model} if several else {"beta": beta}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loss, "ENTRIES", entries)
        mine = prt_loss(h, w, references[: 3 if several else 1], labels, alpha, size=size, items=7.0, **given)
        slopes = gradients(mine, h, w)
    seen = torch.stack([h_ref @ w_ref[:size].T for h_ref, w_ref in references])
    seen = seen[model, torch.arange(tokens)] if several else seen[0]
    naive = objective.prt_loss(seen, h @ w[:size].T, labels, alpha, beta[:, None]) * tokens / 7.0
    torch.testing.assert_close(mine, naive)
    for ours, theirs in zip(slopes, gradients(naive, h, w), strict=True):
        torch.testing.assert_close(ours, theirs)
