"""Two rewards of language on a target at once: what is tuned for that, what is measured, and its table."""

from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from prt.cell import Cell, Run
from prt.config import Language, TwoRewards
from prt.errors import InputError, known
from prt.plan.jobs import slug
from prt.plan.texts import check_chats
from prt.together import BOTH, COLUMNS, Pair, every_pair

if TYPE_CHECKING:
    import pandas as pd

Cells = tuple[Cell, ...]  # what is measured at once: a cell, or one for each of several rewards on one target


def check_two_rewards(language: Language) -> None:
    """Refuse names of nothing, and what cannot be measured, in ``language.together``.

    Raises:
        InputError: naming the culprit.
    """
    item = language.together
    if item is None:
        return
    for name, source in item.chats.items():
        check_chats(source, f"language.together.chats.{name}")
        if name in language.variants:
            raise InputError(
                f"language.together.chats of the configuration has '{name}', as a variant is called; rename one."
            )
    for benchmark in item.benchmarks:
        known(benchmark, language.benchmarks, "benchmark of together")
        if benchmark == BOTH:
            raise InputError(f"together calls the mean of its benchmarks '{BOTH}'; choose another name for this one.")
    for model in item.models:
        known(model, language.models, "language model of together")
        if language.across(item.source, model):
            raise InputError(
                f"together puts two rewards on models with their own tokenizer, but {item.source} and {model} are said "
                "to have different ones; take another target, or correct `tokenizer`."
            )


def rewards(config: Language) -> list[Run]:
    """The rewards, each tuned on chats of its own; the chats' name is their variant."""
    if (item := config.together) is None:
        return []
    return [
        Run(dataset=slug(source), model=item.source, method="prt", alpha=0.0, seed=seed, variant=name)
        for name, source in item.chats.items()
        for seed in config.seeds
    ]


def points(config: Language) -> dict[str, Cells]:
    """Path under ``evaluated`` → what is measured there."""
    if (item := config.together) is None:
        return {}
    every = product(item.targets, item.benchmarks, every_pair(item.strengths), config.seeds)
    return {_path(of): of for of in (_cells(item, *each) for each in every)}


def _cells(item: TwoRewards, target: str, benchmark: str, strengths: Pair, seed: int) -> Cells:
    """A cell for each reward that has a strength; where neither has, the target alone, which no seed changes."""
    found = tuple(
        Cell(
            dataset=benchmark, source=item.source, target=target, method="prt", alpha=0.0, strength=strength, seed=seed,
            variant=name,
        )
        for name, strength in zip(item.chats, strengths, strict=True)
        if strength
    )  # fmt: skip
    return found or (Cell(dataset=benchmark, target=target, method="pretrained"),)


def _path(cells: Cells) -> str:
    first = cells[0]
    parts = [first.method, *([f"of-{first.source}"] if first.source else [])]
    parts += [f"{cell.variant}-{cell.strength:g}" for cell in cells if cell.source]
    parts += [] if first.seed is None else [f"seed{first.seed}"]
    return f"{first.target}@both/{first.dataset}/{'-'.join(parts)}"  # no model is called so


def table(config: Language, top: str) -> "pd.DataFrame":
    """The benchmarks over the strengths, for each target: see :func:`prt.language.together.measured`."""
    import pandas as pd

    from prt.language.results import Evaluated
    from prt.language.together import HELD_OUT, measured, read_losses

    item = config.together
    assert item is not None  # the item is its
    evaluated = Evaluated(Path(top, "evaluated", path, "result.json") for path in points(config))
    tables = []
    for target in item.targets:
        found = measured(
            lambda *each, of=target: evaluated.result(*_cells(item, of, *each)),
            lambda *each, of=target: read_losses(
                Path(top, "evaluated", _path(_cells(item, of, item.benchmarks[0], *each)), HELD_OUT)
            ),
            item.benchmarks,
            config.seeds,
            item.strengths,
        )
        tables.append(found.assign(shots="full", source=item.source, target=target))
    return pd.concat(tables, ignore_index=True)[COLUMNS]
