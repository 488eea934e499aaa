"""The training losses over a big vocabulary, without ever holding the logits of all tokens.

Logits of a chunk of tokens are made, turned into their loss and their gradients, and dropped: the gradients are ready
after the forward pass. What is kept is of the size of the hidden states and of the output matrix.
"""

from collections.abc import Sequence
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
    return _Chunked.apply(hidden, weight, labels, (), None, None, 0.0, size, items, _dtype(hidden))


def prt_loss(
    hidden: Tensor,
    weight: Tensor,
    references: Sequence[tuple[Tensor, Tensor]],
    labels: Tensor,
    alpha: float = 0.0,
    *,
    size: int,
    items: float,
    beta: Tensor | None = None,
    model: Tensor | None = None,
) -> Tensor:
    """Reward tuning (eq. 7-8 and 12): cross-entropy of softmax(β·log π_pt + r) minus α times the entropy of softmax(r).

    Args:
        hidden: hidden states (T, d) of the reward network; ``weight`` (V, d) is its output matrix: r = hidden·weightᵀ.
        references: hidden states (T, d') of the frozen pretrained model, and its output matrix (V', d'); those of
            further models after it. They get no gradient.
        alpha: weight of entropy maximisation, not negative; 0 is vanilla PRT.
        beta: how much of the reference each token sees, (T,); None: 1, the paper's.
        model: the number of the reference that each token sees, (T,); needed if there are several.

    The rest is as in :func:`ft_loss`.
    """
    frozen = [(states.detach(), matrix.detach()) for states, matrix in references]
    return _Chunked.apply(hidden, weight, labels, frozen, beta, model, alpha, size, items, _dtype(hidden))


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
        references: Sequence[tuple[Tensor, Tensor]],
        beta: Tensor | None,
        model: Tensor | None,
        alpha: float,
        size: int,
        items: float,
        dtype: torch.dtype,
    ) -> Tensor:
        wide = torch.promote_types(dtype, torch.float32)
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        with torch.autocast(hidden.device.type, enabled=False):
            rows = weight[:size].to(dtype)
            frozen = [(states, matrix[:size].to(dtype)) for states, matrix in references]
            total = torch.zeros((), dtype=wide, device=hidden.device)
            grad_hidden = torch.empty_like(hidden) if wants_hidden else None
            # Sums over chunks are kept in float32, as in bfloat16 each sum would round.
            grad_weight = torch.zeros_like(weight, dtype=wide) if wants_weight else None
            step = max(1, ENTRIES // size)
            for start in range(0, len(hidden), step):
                chunk = slice(start, start + step)
                h, truth = hidden[chunk].to(dtype), labels[chunk, None]
                reward = (h @ rows.T).to(wide)
                if not frozen:
                    logits = reward
                else:
                    # log π_pt is the reference's logits but for a shift of each token, which a softmax does not see.
                    logits = _logits(frozen, chunk, None if model is None else model[chunk], dtype, wide)
                    if beta is not None:
                        logits.mul_(beta[chunk, None])
                    logits.add_(reward)
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
        return by_hidden, by_weight, *(None,) * 8


def _logits(
    frozen: Sequence[tuple[Tensor, Tensor]], chunk: slice, model: Tensor | None, dtype: torch.dtype, wide: torch.dtype
) -> Tensor:
    """Logits of the references, each token's of the one that it sees."""
    if model is None:
        (states, matrix), *_ = frozen
        return (states[chunk].to(dtype) @ matrix.T).to(wide)
    logits = torch.empty(len(model), len(frozen[0][1]), dtype=wide, device=model.device)
    for number, (states, matrix) in enumerate(frozen):
        mine = model == number
        logits[mine] = (states[chunk][mine].to(dtype) @ matrix.T).to(wide)
    return logits
