"""The paper's inference equations: what a reward does to a model.

Every function takes logits, log-probabilities or rewards of shape (..., L) over one set of L labels and returns
log-probabilities of the same shape. Half precision is computed in float32.
"""

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

from prt.errors import InputError

T = TypeVar("T")
GREATEST = torch.finfo(torch.float32).max  # of the numbers that sums are made of


def log_probs(logits: Tensor) -> Tensor:
    """log π = log_softmax(f), normalised over the last axis."""
    return torch.log_softmax(_wide(logits), dim=-1)


def prt(target: Tensor, rewards: Tensor | Sequence[Tensor], strength: float | Sequence[float] = 1.0) -> Tensor:
    """Eq. 6 and 10: softmax(log π̃_pt + Σ_i s_i·r_i), for one reward or several; the paper has one and s = 1/λ = 1.

    Raises:
        ValueError: if there are not as many strengths as rewards.
    """
    rewards = [rewards] if isinstance(rewards, Tensor) else list(rewards)
    strengths = [float(strength)] * len(rewards) if isinstance(strength, (int, float)) else list(strength)
    total = log_probs(target)
    for reward, s in zip(rewards, strengths, strict=True):
        total = total + s * _wide(reward)
    return log_probs(total)


def eft(target: Tensor, finetuned: Tensor, pretrained: Tensor, strength: float = 1.0) -> Tensor:
    """Eq. 4: softmax(log π̃_pt + s·(log π_ft − log π_pt)), with the fine-tuned and the pretrained *source*."""
    return prt(target, log_probs(finetuned) - log_probs(pretrained), strength)


def poe(target: Tensor, finetuned: Tensor, strength: float = 1.0) -> Tensor:
    """A product of experts, softmax(log π̃_pt + s·log π_ft): PRT's cost, no reward trained; not in the paper."""
    return prt(target, log_probs(finetuned), strength)


def reward_only(reward: Tensor) -> Tensor:
    """ρ_θ = softmax(r): the reward's own predictions (eq. 12, dotted lines of Figure 6a)."""
    return log_probs(reward)


def check_strength(strength: float) -> None:
    """Refuse a strength 1/λ that no sum can be made with.

    Raises:
        InputError: if it is not finite in single precision.
    """
    if not abs(strength) <= GREATEST:
        raise InputError(f"the strength is {strength}, but must be a finite number; the paper's is 1.")


def strengths_for(count: int, given: float | Sequence[float]) -> list[float]:
    """A strength 1/λ for each of ``count`` rewards, of what was ``given``: none (each has 1), one for all, or as many.

    Raises:
        InputError: for another number of strengths, and for one that :func:`check_strength` refuses.
    """
    several = [given] if isinstance(given, (int, float)) else list(given)
    for strength in several:
        check_strength(strength)
    if len(several) in (0, 1):
        return [float(s) for s in several or [1.0]] * count
    if len(several) != count:
        raise InputError(
            f"{count} reward{'s were' if count > 1 else ' was'} given and {len(several)} strengths; give none (each "
            "has 1), one for all, or one for each."
        )
    return [float(s) for s in several]


def working(rewards: Sequence[T], strengths: Sequence[float]) -> list[tuple[T, float]]:
    """Rewards with their strengths, but for those at strength 0, which add nothing; the first alone where all do."""
    pairs = list(zip(rewards, strengths, strict=True))
    return [(reward, strength) for reward, strength in pairs if strength] or pairs[:1]


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
