"""The paper's training losses (Algorithm 1, eq. 7 and 12)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from prt import combine


def ft_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Plain fine-tuning: mean cross-entropy of logits (N, L) with labels (N,)."""
    return F.nll_loss(combine.log_probs(logits), labels)


def prt_loss(
    reference: Tensor, reward: Tensor, labels: Tensor, alpha: float = 0.0, beta: float | Tensor = 1.0
) -> Tensor:
    """Reward tuning: mean cross-entropy of softmax(β·log π_pt + r) minus α times the mean entropy of softmax(r).

    Args:
        reference: logits or log-probabilities of the frozen pretrained model, (N, L); gets no gradient.
        reward: raw outputs of the reward network, (N, L).
        labels: (N,).
        alpha: weight of entropy maximisation, not negative; 0 is vanilla PRT.
        beta: how much of the reference is seen in training, for all examples or for each, (N, 1). The paper's is 1; 0
            is plain fine-tuning.
    """
    loss = F.nll_loss(combine.log_probs(beta * combine.log_probs(reference.detach()) + reward), labels)
    return loss - alpha * entropy(reward) if alpha else loss


def entropy(reward: Tensor) -> Tensor:
    """Mean entropy, in nats, of ρ_θ = softmax(r) over a batch (N, L)."""
    log_rho = combine.reward_only(reward)
    # A label of probability 0 adds nothing; 0·(−∞) would be NaN.
    return -(log_rho.exp() * log_rho.clamp_min(torch.finfo(log_rho.dtype).min)).sum(-1).mean()
