"""A model whose weights are a sum: task arithmetic (Ilharco et al., ICLR 2023), one forward pass."""

import copy
from collections.abc import Sequence
from dataclasses import replace

import torch

from prt.combine import check_strength
from prt.errors import InputError
from prt.language.fit import fitted
from prt.language.models import Causal


@torch.no_grad()
def merged(target: Causal, parts: Sequence[tuple[Causal, float]], method: str) -> Causal:
    """A target with the weights of other models of its architecture added to its own, each with its factor.

    Sums are made in float32. Every model stays as it is.

    Raises:
        InputError: for tokenizers that differ, a tensor that not all have in one shape, or a factor that is not finite.
    """
    for _, factor in parts:
        check_strength(factor)
    fitted(target, [part for part, _ in parts])
    model = copy.deepcopy(target.model)
    others = [(part, factor, dict(part.model.named_parameters())) for part, factor in parts]
    own = dict(model.named_parameters())
    for part, _, theirs in others:
        for name in sorted(own.keys() | theirs.keys()):
            shapes = [tuple(of[name].shape) if name in of else None for of in (own, theirs)]
            if shapes[0] != shapes[1]:
                raise InputError(
                    f"weights are added within one architecture, but '{name}' of {target.name} has shape {shapes[0]}, "
                    f"and of {part.name} {shapes[1]}; take models of one architecture."
                )
    for name, value in own.items():
        total = value.float()
        for _, factor, theirs in others:
            total = total + factor * theirs[name].float().to(value.device)
        value.copy_(total)
    added = ", ".join(f"{factor:+g} {part.name}" for part, factor in parts)
    return replace(target, name=f"{target.name} ({method}: {added})", model=model)
