"""Attention heads that vLLM has no kernel for on a CPU, made wider by zeros: the same numbers, for small models."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

# The others that are known to work here take the size from the width, or have a norm of q and k.
ARCHITECTURES = ("LlamaForCausalLM",)


def size(config: Any) -> int:
    """The size of a model's heads."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def wider(config: Any, supported: Iterable[int]) -> int | None:
    """The size that a model's heads can be brought to: the least multiple that is supported, or None."""
    rope = getattr(config, "rope_parameters", None) or {}
    if (config.architectures or [""])[0] not in ARCHITECTURES or rope.get("rope_type", "default") != "default":
        return None
    return next((head for head in sorted(supported) if head % size(config) == 0), None)


def widened(weights: Iterable[tuple[str, Tensor]], old: int, new: int) -> Iterator[tuple[str, Tensor]]:
    """The weights of a model whose heads of ``old`` become heads of ``new``, a multiple.

    The rotary angle of pair i of n is base^(−2i/n), so it is that of pair i · new / old of the wider head. Scores are
    divided by the root of the head's size, for which q makes up.
    """
    times = new // old
    half = torch.arange(old // 2) * times
    turned, plain = torch.cat([half, half + new // 2]), torch.arange(old)
    for name, weight in weights:
        layer = name.split(".")[-2] if "." in name else ""
        if layer in ("q_proj", "k_proj", "v_proj"):
            heads = weight.unflatten(0, (-1, old))
            made = heads.new_zeros(len(heads), new, *heads.shape[2:])
            made[:, plain if layer == "v_proj" else turned] = heads * times**0.5 if layer == "q_proj" else heads
            weight = made.flatten(0, 1)
        elif layer == "o_proj" and name.endswith(".weight"):
            heads = weight.unflatten(1, (-1, old))
            made = heads.new_zeros(len(heads), heads.shape[1], new)
            made[..., plain] = heads
            weight = made.flatten(1)
        yield name, weight
