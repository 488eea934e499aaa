"""Every figure and table of the paper: what of the tables it shows, and which picture draws it."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from prt import published
from prt.atomic import read_json
from prt.config import Panel
from prt.figures import (
    ageing,
    beside,
    bound,
    calibration,
    costs_table,
    decoding_table,
    entropy,
    ledger,
    next_tokens,
    noise_table,
    portability,
    seeds_table,
    strength,
    theory_table,
    together,
    transfer_bars,
)
from prt.plan import BARS, PAPER, Item, Plan, two_rewards
from prt.plan.together import table
from prt.select import chosen
from prt.tables import COMPARISON, SUMMARY, read_csv, read_table
from prt.vision.results import THEORY

COSTS = ["table", "source", "target", "method", "variant", "precision", "quantity", "value", "std", "device", "torch"]


def draw(plan: Plan, item: Item) -> None:
    """Draw an item to its pictures, each as PNG, PDF and the CSV of what it shows.

    Raises:
        InputError: if a table is missing or damaged, or lacks what the item shows.
    """
    files, stem = list(map(Path, item.needs)), Path(item.pictures[0])
    drawing = _vision if item.half == "vision" else _language
    drawing(plan, item, files)(stem=stem)


def _read(files: list[Path], columns: list[str]) -> pd.DataFrame:
    """Tables under each other."""
    return pd.concat([read_table(file, columns) for file in files], ignore_index=True)


def _panels(panels: list[Panel]) -> list[transfer_bars.Panel]:
    return [{"source": panel.source, "targets": panel.targets} for panel in panels]


def _vision(plan: Plan, item: Item, files: list[Path]) -> Callable[..., None]:
    """What draws an item of the vision half, but for where."""
    half = plan.vision
    assert half is not None  # the item is its
    config = half.config
    if item.name in ("figure2", "figure12"):
        panels = _panels(config.panels)
        return partial(transfer_bars.draw, _read(files, SUMMARY), panels=panels)
    if item.name in ("table1", "table2"):
        return partial(costs_table.draw, _read(files, COSTS))
    if item.name == "strength":
        return partial(strength.draw, _read(files, SUMMARY))
    if item.name == "together" and config.together is not None:
        return partial(together.draw, table(half), config.together.datasets, "{} test images", "validation images")
    if item.name == "portability_vision":
        return partial(portability.draw, _read(files, COMPARISON))
    if item.name == "bound":
        half_way = len(files) // 2  # the tables of theory, then the summaries
        return partial(bound.draw, _read(files[:half_way], THEORY), _read(files[half_way:], SUMMARY))
    if item.name == "calibration":
        return partial(calibration.draw, _read(files, SUMMARY))
    if item.name == "ageing" and config.ageing is not None:
        return partial(ageing.draw, _read(files, SUMMARY), config.ageing.source, config.ageing.targets)
    if item.name == "ledger":
        return partial(ledger.draw, _read(files, published.LEDGER))
    if item.name == "figure6a":
        return partial(entropy.draw_curves, entropy.read_curves([Path(half.folder(run)) for run in half.swept()]))

    def of(name: str, table: pd.DataFrame, *datasets: str) -> pd.DataFrame:
        """The rows of an item's experiment."""
        about = config.items[name]
        return chosen(table, datasets or about.dataset, about.shots, about.source, about.targets)

    if item.name == "figure6b":
        return partial(entropy.draw_transfer, of("figure6", _read(files, SUMMARY)))
    if item.name == "table7":
        return partial(theory_table.draw, of("table7", _read(files, THEORY)))
    noisy = (str(half.clean), str(half.noisy))
    if item.name == "table5":
        return partial(noise_table.draw, of("table5", _read(files, SUMMARY), *noisy))
    *measured, theory = files
    costs, noise = measured[:2], measured[2:]
    shown = theory_table.select(of("table7", read_table(theory, THEORY)))
    about = config.items["table5"].model_dump(include={"dataset", "shots", "source", "targets"})
    rows = published.beside(PAPER, half.paper_names, costs, noise, shown, about)
    return partial(beside.draw, rows)


def _language(plan: Plan, item: Item, files: list[Path]) -> Callable[..., None]:
    """What draws an item of the language half, but for where."""
    half = plan.language
    assert half is not None  # the item is its
    options: dict[str, Any] = {"published": read_csv(PAPER), "names": half.paper_names}
    if item.name in half.config.next_tokens:
        return partial(next_tokens.draw, read_json(files[0], "table of next tokens"))
    if item.name == "table3":
        return partial(decoding_table.draw, read_table(files[0], COSTS[1:]), **options)
    if item.name == "together_language" and half.config.together is not None:
        rows = two_rewards.table(half.config, half.top)
        return partial(together.draw, rows, list(half.config.together.chats), "{}", "held-out chats")
    if item.name == "portability_language":
        return partial(portability.draw, read_table(files[0], COMPARISON))
    summary, comparison = read_table(files[0], SUMMARY), read_table(files[1], COMPARISON)
    if item.name == "figure7":
        return partial(entropy.draw_transfer, summary)
    if item.name in ("table4", "table6"):
        return partial(seeds_table.draw, summary, comparison, lora=item.name == "table6", **options)
    if item.name == "ageing_language":
        (chain,) = half.config.bars["ageing_language"].panels
        return partial(ageing.draw, summary, chain.source, chain.targets)
    panels = _panels(half.config.transfers[item.name].panels)
    options["published"] = read_csv(BARS)
    return partial(transfer_bars.draw, summary, panels=panels, **options)
