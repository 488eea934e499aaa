"""The pictures of the portability study over several pretrainings, of their tables."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from prt.config import Config, Language, Vision
from prt.figures import ageing, bound, calibration, portability
from prt.tables import SUMMARY, read_table
from prt.vision.results import THEORY


def draw(config: Config, tables: Mapping[str, pd.DataFrame], experiments: Sequence[Path], out: Path) -> None:
    """Draw what an experiment with variants of rewards draws (``bound``, ``ageing``, …), of several pretrainings.

    Args:
        config: of each experiment.
        tables: ``HALF/summary.csv`` and ``HALF/comparison.csv``, as :mod:`prt.pretrainings` makes them.
        experiments: the folders of the experiments.
        out: the folder for the pictures.

    Raises:
        InputError: if a table lacks what is shown.
    """
    if config.vision is not None:
        _vision(config.vision, tables["vision/summary.csv"], tables["vision/comparison.csv"], experiments, out)
    if config.language is not None:
        _language(config.language, tables["language/summary.csv"], tables["language/comparison.csv"], out)


def _vision(
    config: Vision, summary: pd.DataFrame, comparison: pd.DataFrame, experiments: Sequence[Path], out: Path
) -> None:
    def own(table: pd.DataFrame) -> pd.DataFrame:
        """Without what Table 5 adds to the tables."""
        return table[table["dataset"].isin(list(config.datasets))]

    def each(name: str, columns: list[str]) -> pd.DataFrame:
        """A table of every experiment, under each other."""
        read = {folder.name: read_table(folder / "vision" / f"{name}.csv", columns) for folder in experiments}
        return pd.concat([own(table).assign(pretraining=name) for name, table in read.items()], ignore_index=True)

    if config.variants:
        portability.draw(own(comparison), out / "portability_vision")
        calibration.draw(own(summary), out / "calibration")
        bound.draw(each("theory", THEORY), each("summary", SUMMARY), out / "bound")
    if config.ageing is not None:
        ageing.draw(own(summary), config.ageing.source, config.ageing.targets, out / "ageing")


def _language(config: Language, summary: pd.DataFrame, comparison: pd.DataFrame, out: Path) -> None:
    if config.variants and config.bars:
        portability.draw(comparison, out / "portability_language")
    if (bars := config.bars.get("ageing_language")) is not None:
        (chain,) = bars.panels
        ageing.draw(summary, chain.source, chain.targets, out / "ageing_language")
