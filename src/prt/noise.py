"""Table 5: a reward trained on clean images, tested on clean and noisy ones, then tuned further on noisy ones."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from prt import combine, stats
from prt.errors import InputError
from prt.scores import Scores, check_same_examples
from prt.transfer import METRICS

COLUMNS = ["dataset", "shots", "source", "target", "reward", "metric", "value", "std", "low", "high", "seeds", "n"]


def noise_table(pretrained: list[Path], untuned: list[Path], tuned: list[Path]) -> pd.DataFrame:
    """Accuracy of every target with every reward, on each data set, from cached scores.

    Args:
        pretrained: score files of the targets, on the clean and on the noisy images.
        untuned: score files of the reward as trained on clean images, on both; one for each seed.
        tuned: the same of the reward tuned further on noisy images, on these.

    Returns:
        A row for each data set, target, reward (``none``: the target alone, ``untuned``, ``tuned``) and metric, with
        the mean over seeds, its standard deviation, and a 95 % interval over seeds and images.

    Raises:
        InputError: if files are missing or damaged, or were scored on different examples.
    """
    targets: dict[str, list[Scores]] = defaultdict(list)
    for path in pretrained:
        scores = Scores.load(path)
        targets[scores.dataset].append(scores)
    runs: dict[tuple[str, str], list[Scores]] = defaultdict(list)
    for reward, files in (("untuned", untuned), ("tuned", tuned)):
        for path in files:
            scores = Scores.load(path)
            runs[scores.dataset, reward].append(scores)
    if not targets or not runs:
        raise InputError("scores of the targets and of the rewards are both needed; make them first.")
    rows: list[dict[str, Any]] = []
    for dataset, here in targets.items():
        some = next(iter(runs.values()))[0]
        place = {"dataset": dataset, "shots": some.shots, "source": some.backbone}
        for target in here:
            rows += _measured(place | {"target": target.backbone, "reward": "none"}, target, [target.values])
            for reward in ("untuned", "tuned"):
                predicted = []
                for r in runs[dataset, reward]:
                    check_same_examples(target, r)
                    predicted.append(combine.prt(target.values.double(), r.values.double()))
                if predicted:
                    rows += _measured(place | {"target": target.backbone, "reward": reward}, target, predicted)
    return pd.DataFrame(rows)[COLUMNS]


def _measured(place: dict[str, Any], scores: Scores, predicted: list[Tensor]) -> list[dict[str, Any]]:
    """A row per metric, of one prediction (N, L) for each seed."""
    labels = scores.labels.numpy()
    hits = np.stack([(p.argmax(-1).numpy() == labels).astype(float) for p in predicted])
    rows = []
    for metric in METRICS:
        measured = stats.share_over_seeds(hits, stats.strata(labels, metric))
        rows.append(place | {"metric": metric} | measured | {"seeds": len(hits), "n": len(labels)})
    return rows
