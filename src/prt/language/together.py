"""Two rewards on a target at once, from results of benchmarks: their headlines over the strengths of both."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from jsonschema import Draft202012Validator

from prt.atomic import read_json, write_json
from prt.errors import InputError
from prt.results import Result
from prt.together import BOTH, Pair, every_pair, over_strengths

# Beside a result: the mean cross-entropy, in nats, on the held-out chats of each reward.
HELD_OUT = "held_out.json"
_LOSS = {"type": "number", "minimum": 0, "maximum": 1e300}
SCHEMA = {"type": "object", "minProperties": 1, "additionalProperties": {"anyOf": [{"type": "null"}, _LOSS]}}


def write_losses(path: Path, losses: dict[str, float]) -> None:
    """Write the cross-entropy on each reward's chats; null where it is no number."""
    write_json(path, {name: loss if math.isfinite(loss) else None for name, loss in losses.items()})


def read_losses(path: Path) -> float:
    """The mean over the rewards' chats of what :func:`write_losses` wrote; infinite where one is no number.

    Raises:
        InputError: if it is missing or damaged.
    """
    found = read_json(path, "file of losses on held-out chats")
    if not Draft202012Validator(SCHEMA).is_valid(found):
        raise InputError(f"the losses on held-out chats in {path} are damaged; delete it and make it again.")
    return math.fsum(math.inf if loss is None else loss for loss in found.values()) / len(found)


def measured(
    result: Callable[[str, Pair, int], Result],
    loss: Callable[[Pair, int], float],
    benchmarks: Sequence[str],
    seeds: Sequence[int],
    strengths: Sequence[float],
) -> pd.DataFrame:
    """The headline of a target with two rewards, on two benchmarks and as their mean (``both``).

    Args:
        result: (benchmark, strengths, seed) → what was measured.
        loss: (strengths, seed) → cross-entropy on held-out chats, by which one pair is chosen for all.
        strengths: of each reward; every pair of them is a row.

    Returns:
        As :func:`prt.together.over_strengths`.
    """
    pairs = every_pair(strengths)
    values = {}
    for benchmark in benchmarks:
        found = [[result(benchmark, pair, seed) for seed in seeds] for pair in pairs]
        values[benchmark] = np.array([[of.measures[of.headline].values for of in several] for several in found])
    losses = [math.fsum(loss(pair, seed) for seed in seeds) for pair in pairs]
    return over_strengths(values, pairs, dict.fromkeys([*benchmarks, BOTH], losses.index(min(losses))))
