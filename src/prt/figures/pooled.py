"""The pictures of the portability study over several pretrainings, of their tables."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from prt.config import Config
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
    vision, language = config.vision, config.language
    if vision is not None and vision.variants:
        portability.draw(tables["vision/comparison.csv"], out / "portability_vision")
        calibration.draw(tables["vision/summary.csv"], out / "calibration")
        theory, summary = (
            pd.concat(
                [read_table(folder / "vision" / f"{name}.csv", columns).assign(pretraining=folder.name)
                 for folder in experiments], ignore_index=True,
            )
            for name, columns in (("theory", THEORY), ("summary", SUMMARY))
        )  # fmt: skip
        bound.draw(theory, summary, out / "bound")
    if vision is not None and vision.ageing is not None:
        ageing.draw(tables["vision/summary.csv"], vision.ageing.source, vision.ageing.targets, out / "ageing")
    if language is not None and language.variants and language.bars:
        portability.draw(tables["language/comparison.csv"], out / "portability_language")
    if language is not None and "ageing_language" in language.bars:
        (chain,) = language.bars["ageing_language"].panels
        ageing.draw(tables["language/summary.csv"], chain.source, chain.targets, out / "ageing_language")
