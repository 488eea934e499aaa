"""What a few labelled examples say of several ways: which is best, how surely, and how many more would tell."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from prt import stats

STRENGTHS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)  # that one is chosen from
FEWEST = 10  # examples
FOLDS = 5
POWER_POINT = 0.8416212335729143  # the normal distribution's 80 % point
Numbers = NDArray[np.float64]
Values = Numbers | NDArray[np.bool_]  # (N,): of a way on each example


@dataclass(frozen=True)
class Measure:
    """What ways are compared by: a number on each example, its mean over examples, and how these are told.

    Attributes:
        sign: 1 where more is better, −1 where less is.
        average: the mean of (N,) numbers with its interval, given the groups (N,).
        difference: the same of differences, (1, N).
        needed: examples that tell two ways apart, of their numbers (N,) each; None where nothing can be said.
        shown: how a mean is written, a format.
        factor: what it is multiplied with to be written.
        apart: of the difference between the best and another.
        alike: why nothing can be said of how many more examples would tell.
        title: what stands above the means, if anything.
    """

    examples: str
    sign: int
    average: Callable[[Numbers, NDArray[np.int64]], stats.Estimate]
    difference: Callable[[Numbers, NDArray[np.int64]], stats.Difference]
    needed: Callable[[Numbers, Numbers], int | None]
    shown: str
    factor: float
    apart: str
    alike: str
    title: str = ""


@dataclass(frozen=True)
class Advice:
    """Ways with their means over ``count`` examples, the best first, and how much better it is than the ``second``.

    ``second``: the best of the other methods; "PRT, …" is a variant of "PRT", and no other method. ``needed``: the
    examples that tell these two apart with a power of 80 %, if things stay as they are; None where nothing can be said.
    The two were picked on the examples that they are compared on, so the difference is rather too great than too small.
    """

    measure: Measure
    count: int
    means: dict[str, stats.Estimate]
    second: str
    difference: stats.Difference
    needed: int | None


def advise(ways: Mapping[str, Values], measure: Measure) -> Advice:
    """Compare ways of two methods or more on the same examples; of equally good ones the first given is the better."""
    order = sorted(ways, key=lambda name: -measure.sign * ways[name].mean())  # it is stable
    second = next(name for name in order if _method(name) != _method(order[0]))
    one, other = (ways[name].astype(float) for name in (order[0], second))
    groups = np.zeros(len(one), np.int64)
    means = {name: measure.average(ways[name].astype(float), groups) for name in order}
    difference = measure.difference(measure.sign * (one - other)[None], groups)
    return Advice(measure, len(one), means, second, difference, measure.needed(one, other))


def needed_by_mcnemar(one: Numbers, other: Numbers) -> int | None:
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


def needed_by_t_test(one: Numbers, other: Numbers) -> int | None:
    """Examples on which the paired t-test, two-sided at 5 %, tells two ways apart with a power of 80 %.

    By the normal approximation: n = ((z₀.₉₇₅ + z₀.₈) s / δ)², with the mean δ and the standard deviation s of the
    differences on these examples (N,); Miller (2024, https://arxiv.org/abs/2411.00640) for paired numbers
    without noise of their own. None where all differences are the same, but for rounding, or δ is 0.
    """
    difference, spread = float((one - other).mean()), float((one - other).std(ddof=1))
    if difference == 0 or spread < 1e-8:
        return None
    return int(np.ceil(((stats.Z + POWER_POINT) * spread / difference) ** 2))


RIGHT = Measure(
    examples="examples",
    sign=1,
    average=stats.share,
    difference=stats.difference,
    needed=needed_by_mcnemar,
    shown="{:.1f}",
    factor=100,
    apart="points above",
    alike="both were right equally often, so take the cheaper one, or many more examples",
)
LOSS = Measure(  # of a chat: any number from 0
    examples="chats",
    sign=-1,
    average=stats.average,
    difference=partial(stats.difference, most=np.inf),
    needed=needed_by_t_test,
    shown="{:.3f}",
    factor=1,
    apart="nats below",
    alike="both losses are the same, or differ alike on all chats, so take the cheaper one, or other chats",
    title="loss in nats per token of the assistant, mean over chats (less is better, but no benchmark's score):",
)


def with_strengths(
    alone: Mapping[str, Values], swept: Mapping[str, Mapping[float, Values]], measure: Measure
) -> dict[str, Values]:
    """Ways without a strength, and after them each other at strength 1 and at one that is :func:`cross_validated`.

    Args:
        swept: way → strength, 1 among them, → its values.
    """
    ways = dict(alone)
    for name, of in swept.items():
        ways[name] = of[1.0]
        values, strength = cross_validated(of, measure)
        ways[f"{name}, strength chosen ({strength:g})"] = values
    return ways


def cross_validated(values: Mapping[float, Values], measure: Measure, seed: int = 0) -> tuple[Values, float]:
    """A way whose strength is chosen: its values (N,), and the strength that all examples choose.

    Five folds; in each, the strength is the best of the other four (of equal ones that nearest to 1), so that no
    example is measured with a strength that it helped to choose.

    Args:
        values: of each strength.
    """
    strengths = sorted(values, key=lambda strength: (abs(strength - 1), strength))
    table = np.stack([values[strength] for strength in strengths])
    folds = np.random.default_rng(seed).permutation(table.shape[1]) % FOLDS

    def best(among: NDArray[np.bool_]) -> int:
        return int((measure.sign * table[:, among].sum(1)).argmax())  # the first of equal ones

    chosen = np.empty_like(table[0])
    for fold in range(FOLDS):
        chosen[folds == fold] = table[best(folds != fold)][folds == fold]
    return chosen, strengths[best(folds >= 0)]


def _method(way: str) -> str:
    return way.partition(", ")[0]


def as_text(found: Advice) -> str:
    """Lines for a terminal: accuracies in percent, or losses in nats, with 95 % intervals."""
    measure, width = found.measure, max(map(len, found.means))

    def shown(x: stats.Estimate) -> str:
        value, low, high = (measure.shown.format(measure.factor * end) for end in (x.value, x.low, x.high))
        return value if np.isnan(x.low) else f"{value} ({low} to {high})"

    lines = [measure.title] if measure.title else []
    lines += [f"{name:<{width}}  {shown(mean)}" for name, mean in found.means.items()]
    best, difference = next(iter(found.means)), shown(found.difference)
    lines.append(
        f"best on {found.count} {measure.examples}: {best}; {difference} {measure.apart} the best other method, "
        f"{found.second}"
    )
    if found.difference.p < 0.05:
        lines.append("these two are told apart (p < 0.05)")
    elif found.needed is None:
        lines.append(f"not told apart: {measure.alike}")
    else:
        more = max(found.needed - found.count, 1)
        lines.append(f"not told apart: about {more} more {measure.examples} would, four times of five")
    return "\n".join(lines)
