"""Two rewards on a target at once, from cached scores: accuracy over their strengths (eq. 10 with two rewards)."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from prt import classification, combine
from prt.scores import Scores, check_same_examples
from prt.together import Pair, best_pairs, every_pair, over_strengths


def measured(
    target: Callable[[str, str], Scores],
    reward: Callable[[str, str, str, int], Scores],
    datasets: Sequence[str],
    seeds: Sequence[int],
    strengths: Sequence[float],
) -> pd.DataFrame:
    """Top-1 accuracy of a target with two rewards, on the test images of both data sets and as their mean (``both``).

    Args:
        target: (data set, split) → the target's own scores.
        reward: (data set that it was tuned on, data set, split, seed) → a reward's scores.
        datasets: the two that the rewards were tuned on.
        strengths: of each reward; every pair of them is a row.

    Returns:
        As :func:`prt.together.over_strengths`; ``chosen`` is the best of its data set on the validation images.

    Raises:
        InputError: if scores are missing, or of different images or labels.
    """
    pairs = every_pair(strengths)
    known, test = (
        {
            dataset: np.stack(
                [
                    _right(target(dataset, split), [reward(of, dataset, split, seed) for of in datasets], pairs)
                    for seed in seeds
                ],
                axis=1,
            )
            for dataset in datasets
        }
        for split in ("validation", "test")
    )
    return over_strengths(test, pairs, best_pairs(known))


def _right(target: Scores, rewards: Sequence[Scores], pairs: Sequence[Pair]) -> np.ndarray:
    """1 where a pair of strengths is right (pairs, N), in float64: sums do not depend on their order."""
    for reward in rewards:
        check_same_examples(target, reward)
    values = [reward.values.double() for reward in rewards]
    return np.stack(
        [
            (classification.rank(combine.prt(target.values.double(), values, pair), target.labels) == 0)
            .double()
            .numpy()
            for pair in pairs
        ]
    )
