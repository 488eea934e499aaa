"""The quantities of Proposition 3.2: how far a reward may be carried. All logarithms are natural (nats)."""

import torch
from torch import Tensor

from prt import combine


def kl(p: Tensor, q: Tensor) -> Tensor:
    """KL(p ‖ q) of two models' logits or log-probabilities (..., L): shape (...)."""
    p, q = combine.log_probs(p), combine.log_probs(q)
    return torch.where(p.isneginf(), 0.0, p.exp() * (p - q)).sum(-1)


def epsilon(source: Tensor, target: Tensor) -> Tensor:
    """ε(x) = KL(π_pt ‖ π̃_pt), shape (...); Table 7 has its mean over inputs."""
    return kl(source, target)


def concentration(source: Tensor, reward: Tensor) -> Tensor:
    """C(x) = max_y e^r / E_{y~π_pt} e^r of a reward on the model it was trained on, shape (...)."""
    source, reward = combine.log_probs(source), reward.to(torch.promote_types(reward.dtype, torch.float32))
    return (reward.amax(-1) - torch.logsumexp(source + reward, dim=-1)).exp()


def transfer_bound(source: Tensor, target: Tensor, reward: Tensor) -> Tensor:
    """Proposition 3.2's explicit bound on KL(π_θ ‖ π̃_θ): C·ε + log(1 + C·‖π̃_pt − π_pt‖₁), shape (...).

    C·ε alone is a bound too, and a tighter one: with w = e^r / E e^r ≤ C, the sum
    Σ_y w·(π log(π/π̃) − π + π̃) has no negative term, so it is at most C·ε; and log z ≤ z − 1.
    """
    distance = (combine.log_probs(source).exp() - combine.log_probs(target).exp()).abs().sum(-1)
    c = concentration(source, reward)
    return c * epsilon(source, target) + torch.log1p(c * distance)
