"""Tuning runs on images."""

from pathlib import Path
from typing import Any

from prt.cell import Run
from prt.recipe import Recipe
from prt.vision.tune import Further, Tuning


def tuning(
    out: Path,
    method: Any = "prt",
    alpha: float | None = None,
    *,
    shots: str = "4",
    seed: int = 0,
    every: int = 0,
    initial: Path | None = None,
    further: tuple[Further, ...] = (),
    **recipe: Any,
) -> Tuning:
    """A run of the backbone "tiny" on the data set "shapes"; its checkpoint stands beside its folder."""
    alpha = 0.0 if alpha is None and method != "ft" else alpha
    run = Run(dataset="shapes", model="tiny", method=method, alpha=alpha, shots=shots, seed=seed)
    return Tuning(run, Recipe(**recipe), out, out.with_name(f"{out.name}.checkpoint"), every, initial, further)
