"""What a few labelled examples say of several ways: which is best, how surely, and how many more would tell."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prt import stats

FOLDS = 5
POWER_POINT = 0.8416212335729143  # the normal distribution's 80 % point
Right = NDArray[np.bool_]  # (N,): whether a way is right


@dataclass(frozen=True)
class Advice:
    """Ways with their accuracies, the best first, and the difference between the best and the ``second``.

    ``second``: the best of the other methods; "PRT, …" is a variant of "PRT", and no other method. ``needed``: the
    examples that tell these two apart with a power of 80 %, if things stay as they are; None where nothing can be said,
    as both were right equally often. The two were picked on the examples that they are compared on, so the difference
    is rather too great than too small.
    """

    accuracies: dict[str, stats.Estimate]
    second: str
    difference: stats.Difference
    needed: int | None


def advise(ways: Mapping[str, Right]) -> Advice:
    """Compare ways of two methods or more on the same examples; of equally good ones the first given is the better."""
    order = sorted(ways, key=lambda name: -ways[name].mean())  # it is stable
    second = next(name for name in order if _method(name) != _method(order[0]))
    one, other = (ways[name].astype(float) for name in (order[0], second))
    groups = np.zeros(len(one), np.int64)
    accuracies = {name: stats.share(ways[name].astype(float), groups) for name in order}
    return Advice(accuracies, second, stats.difference((one - other)[None], groups), examples_needed(one, other))


def examples_needed(one: NDArray[np.float64], other: NDArray[np.float64]) -> int | None:
    """Examples on which McNemar's test, two-sided at 5 %, tells two ways apart with a power of 80 %.

    Connor (1987, Biometrics 43: 207-211): n = (z₀.₉₇₅ √ψ + z₀.₈ √(ψ − δ²))² / δ², with the share ψ of examples on which
    one way alone is right and the difference δ of accuracies, both as on these examples (N,), of 0 and 1. None where δ
    is 0.
    """
    difference, discordant = float((one - other).mean()), float((one != other).mean())
    if difference == 0:
        return None
    root = stats.Z * discordant**0.5 + POWER_POINT * max(discordant - difference**2, 0.0) ** 0.5
    return int(np.ceil(root**2 / difference**2))


def cross_validated(rights: Mapping[float, Right], seed: int = 0) -> tuple[Right, float]:
    """A way whose strength is chosen: whether it is right (N,), and the strength that all examples choose.

    Five folds; in each, the strength is the best of the other four (of equal ones that nearest to 1), so that no
    example is measured with a strength that it helped to choose.

    Args:
        rights: strength → whether it is right.
    """
    strengths = sorted(rights, key=lambda strength: (abs(strength - 1), strength))
    table = np.stack([rights[strength] for strength in strengths])
    folds = np.random.default_rng(seed).permutation(table.shape[1]) % FOLDS
    right = np.empty(table.shape[1], bool)
    for fold in range(FOLDS):
        right[folds == fold] = table[_best(table[:, folds != fold]), folds == fold]
    return right, strengths[_best(table)]


def _method(way: str) -> str:
    return way.partition(", ")[0]


def _best(table: NDArray[np.bool_]) -> int:
    return int(table.sum(1).argmax())  # the first of equal ones


def as_text(found: Advice, count: int) -> str:
    """Lines for a terminal, of ``count`` examples; accuracies in percent, with 95 % intervals."""
    width = max(map(len, found.accuracies))
    lines = [f"{name:<{width}}  {_percent(accuracy)}" for name, accuracy in found.accuracies.items()]
    best, difference = next(iter(found.accuracies)), _percent(found.difference)
    lines.append(f"best on {count} examples: {best}; {difference} points above the best other method, {found.second}")
    if found.difference.p < 0.05:
        lines.append("these two are told apart (p < 0.05)")
    elif found.needed is None:
        lines.append("not told apart: both were right equally often, so take the cheaper one, or many more examples")
    else:
        lines.append(f"not told apart: about {max(found.needed - count, 1)} more examples would, four times of five")
    return "\n".join(lines)


def _percent(x: stats.Estimate) -> str:
    return f"{100 * x.value:.1f} ({100 * x.low:.1f} to {100 * x.high:.1f})"
