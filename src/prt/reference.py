"""What a reward is tuned beside, drawn for every example: how much of a pretrained model, and of which."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prt.recipe import Referring


def drawn(
    recipe: Referring, seed: int, step: int, examples: NDArray[np.int64] | Tensor, total: int
) -> tuple[Tensor, Tensor]:
    """β and the model of some of ``total`` examples at an iteration.

    A pure function of (seed, step, example): no matter in how many parts or processes a batch is made, or from which
    iteration it goes on.

    Returns:
        β (N,), float32, and the number of the model that each example sees, (N,), int64: 0 is the source, i the i-th
        of ``references``.
    """
    rng = np.random.default_rng([seed, step, 1])  # the images' own draws are of [seed, step]
    uniform = rng.random((2, total), dtype=np.float64)[:, np.asarray(examples)]
    low, high = recipe.reference if isinstance(recipe.reference, list) else (recipe.reference, recipe.reference)
    beta = low + (high - low) * uniform[0]
    model = np.minimum(uniform[1] * (1 + len(recipe.references)), len(recipe.references)).astype(np.int64)
    return torch.from_numpy(beta).float(), torch.from_numpy(model)
