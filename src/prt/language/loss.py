"""The training losses over a big vocabulary, without ever holding the logits of all tokens.

Logits of a chunk of tokens are made, turned into their loss and their gradients, and dropped: the gradients are ready
after the forward pass. What is kept is of the size of the hidden states and of the output matrix.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

ENTRIES = 2**23  # logits of a chunk: 32 MiB in float32; four such tensors are held at most


def ft_loss(hidden: Tensor, weight: Tensor, labels: Tensor, *, size: int, items: float) -> Tensor:
    """Plain fine-tuning: the sum of the tokens' cross-entropies by ``items``.

    Args:
        hidden: hidden states (T, d) of the tokens that have a label; bfloat16 is multiplied as such.
        weight: the output matrix (V, d).
        labels: the next token of each (T,).
        size: tokens of the tokenizer, not more than V. The rows beyond are padding: they get no probability, and no
            gradient.
        items: what the sum is divided by, usually the number of labels of the whole batch.

    Returns:
        A scalar in float32 (float64 for inputs of float64); it can be differentiated once.
    """
    return _Chunked.apply(hidden, weight, labels, None, None, 0.0, size, items, _dtype(hidden))


def prt_loss(
    hidden: Tensor,
    weight: Tensor,
    reference: Tensor,
    reference_weight: Tensor,
    labels: Tensor,
    alpha: float = 0.0,
    *,
    size: int,
    items: float,
) -> Tensor:
    """Reward tuning (eq. 7-8 and 12): cross-entropy of softmax(log π_pt + r) minus α times the entropy of softmax(r).

    Args:
        hidden: hidden states (T, d) of the reward network; ``weight`` (V, d) is its output matrix: r = hidden·weightᵀ.
        reference: hidden states (T, d') of the frozen pretrained model, ``reference_weight`` (V', d') its output
            matrix. They get no gradient.
        alpha: weight of entropy maximisation, not negative; 0 is vanilla PRT.

    The rest is as in :func:`ft_loss`.
    """
    return _Chunked.apply(
        hidden, weight, labels, reference.detach(), reference_weight.detach(), alpha, size, items, _dtype(hidden)
    )


def _dtype(hidden: Tensor) -> torch.dtype:
    """What the products with the output matrices are computed in: autocast's type where it is on, else the input's."""
    kind = hidden.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        labels: Tensor,
        reference: Tensor | None,
        reference_weight: Tensor | None,
        alpha: float,
        size: int,
        items: float,
        dtype: torch.dtype,
    ) -> Tensor:
        wide = torch.promote_types(dtype, torch.float32)
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        with torch.autocast(hidden.device.type, enabled=False):
            rows = weight[:size].to(dtype)
            frozen = None if reference_weight is None else reference_weight[:size].to(dtype)
            total = torch.zeros((), dtype=wide, device=hidden.device)
            grad_hidden = torch.empty_like(hidden) if wants_hidden else None
            # Sums over chunks are kept in float32, as in bfloat16 each sum would round.
            grad_weight = torch.zeros_like(weight, dtype=wide) if wants_weight else None
            step = max(1, ENTRIES // size)
            for start in range(0, len(hidden), step):
                chunk = slice(start, start + step)
                h, truth = hidden[chunk].to(dtype), labels[chunk, None]
                reward = (h @ rows.T).to(wide)
                if reference is None or frozen is None:
                    logits = reward
                else:
                    # log π_pt is the reference's logits but for a shift of each token, which a softmax does not see.
                    logits = (reference[chunk].to(dtype) @ frozen.T).to(wide).add_(reward)
                normaliser = logits.logsumexp(-1, keepdim=True)
                total += (normaliser - logits.gather(-1, truth)).sum()
                entropy_part = None
                if alpha:
                    log_rho = reward.sub_(reward.logsumexp(-1, keepdim=True))
                    rho = log_rho.exp()
                    entropy = -torch.bmm(rho[:, None], log_rho[:, :, None])[:, :, 0]  # products are not kept
                    total -= alpha * entropy.sum()
                    entropy_part = rho.mul_(log_rho.add_(entropy)).mul_(alpha)  # −α·dH/dr
                if grad_hidden is None and grad_weight is None:
                    continue
                slope = logits.sub_(normaliser).exp_()  # the gradient by r: probabilities, less 1 at the label
                slope.scatter_add_(-1, truth, torch.full_like(truth, -1, dtype=wide))
                if entropy_part is not None:
                    slope += entropy_part
                narrow = slope.div_(items).to(dtype)
                if grad_hidden is not None:
                    grad_hidden[chunk] = narrow @ rows
                if grad_weight is not None:
                    part = grad_weight[:size]
                    part += narrow.T @ h
        ctx.gradients = grad_hidden, None if grad_weight is None else grad_weight.to(weight.dtype)
        return total / items

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor | None, ...]:
        by_hidden, by_weight = (None if g is None else g.mul_(grad[0]) for g in ctx.gradients)
        del ctx.gradients  # scaled in place, as a copy would be as big as the output matrix; so once only
        return by_hidden, by_weight, None, None, None, None, None, None, None
