"""Two rewards on a target at once, from cached scores: accuracy over their strengths (eq. 10 with two rewards)."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from prt import classification, combine, stats
from prt.scores import Scores, check_same_examples

COLUMNS = ["dataset", "shots", "source", "target", "first", "second", "value", "low", "high", "seeds", "n", "chosen"]
BOTH = "both"


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
        ``dataset``; ``first`` and ``second``, the rewards' strengths; ``value`` with its interval over seeds and
        images; ``chosen``: whether the pair is the best of its data set on the validation images.

    Raises:
        InputError: if scores are missing, or of different images or labels.
    """
    pairs = [(first, second) for first in strengths for second in strengths]
    right = {
        (dataset, split): np.stack(
            [
                _right(target(dataset, split), [reward(of, dataset, split, seed) for of in datasets], pairs)
                for seed in seeds
            ],
            axis=1,
        )  # pairs × seeds × images
        for dataset in datasets
        for split in ("validation", "test")
    }
    rows = []
    for name, shown in [*((d, [d]) for d in datasets), (BOTH, list(datasets))]:
        known, values = (np.concatenate([right[d, split] for d in shown], -1) for split in ("validation", "test"))
        of_known, groups = (
            np.concatenate([np.full(right[d, split].shape[-1], i) for i, d in enumerate(shown)])
            for split in ("validation", "test")
        )
        best = max(range(len(pairs)), key=lambda i: stats.mean(known[i], of_known).mean())
        for i, (first, second) in enumerate(pairs):
            found = stats.share(values[i], groups)
            facts = (found.value, found.low, found.high, len(seeds), len(groups), i == best)
            rows.append((name, first, second, *facts))
    return pd.DataFrame(rows, columns=[c for c in COLUMNS if c not in ("shots", "source", "target")])


def _right(target: Scores, rewards: Sequence[Scores], pairs: Sequence[tuple[float, float]]) -> np.ndarray:
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
