"""What is tuned and what is measured: runs and cells, the same for images and for language."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict

from prt.methods import METHODS, SOURCE_FT, method

TABLES = ("transfer", "summary", "comparison")  # what prt.tables makes of cells


class Run(BaseModel):
    """One tuning of one model on one data set.

    ``method``: ``ft`` (fine-tuning), ``prt`` (a reward), or ``adapted`` (that reward, tuned further on ``dataset``).
    ``alpha`` is the weight of a reward's entropy term (eq. 12), None for ``ft``. ``shots`` is the number of training
    examples of each class, or ``full``. ``variant``: the configuration's name for another way to tune a reward; None:
    the experiment's own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str
    model: str
    method: Literal["ft", "prt", "adapted"]
    alpha: float | None = None
    lora: bool = False
    shots: str = "full"
    seed: int = 0
    variant: str | None = None

    @property
    def name(self) -> str:
        """The run's name in paths: ft, prt_ALPHA, prt_ALPHA-VARIANT, adapted, ft-lora, prt-lora_ALPHA."""
        name = f"{self.method}-lora" if self.lora else self.method
        name = f"{name}_{self.alpha:g}" if self.method == "prt" else name
        return f"{name}-{self.variant}" if self.variant else name


class Cell(BaseModel):
    """One row of a table of results: what a method makes of a target.

    ``dataset`` is a data set or a benchmark. What has no meaning for the method is None: ``source`` where nothing of
    another model takes part, ``alpha`` where there is no reward, ``strength`` (1/λ) where nothing is added, or where it
    is chosen on validation data, ``seed`` where nothing was tuned. ``lora``: whether what was tuned is an adapter.
    ``variant``: as of a run, None where there is no reward.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str
    shots: str = "full"
    source: str | None = None
    target: str
    method: str
    alpha: float | None = None
    lora: bool = False
    strength: float | None = None
    seed: int | None = None
    variant: str | None = None

    def clean(self) -> Self:
        """The same cell without what has no meaning for its method, as it stands in a pair's tables.

        Raises:
            InputError: for an unknown method.
        """
        of = method(self.method)
        return self.model_copy(
            update={
                "alpha": self.alpha if of.has_alpha else None,
                "variant": self.variant if of.has_alpha else None,
                "strength": self.strength if of.transfers and not of.at else None,
                "seed": self.seed if of.seeded else None,
                "lora": self.lora and of.seeded,
            }
        )

    def measured(self) -> Self:
        """The cell whose measurement this one is: many pairs share those of a model alone.

        The source's fine-tuned model is its own ``ft``, and EFT on the source itself is that model, too (eq. 3), as is
        the difference of weights. A model alone is its owner's, whatever it will be put on.
        """
        cell = self.clean()
        owners = {network.owner for network in METHODS[cell.method].networks}
        alone = METHODS[cell.method].base == SOURCE_FT and not METHODS[cell.method].added
        identity = cell.method in ("eft", "difference") and cell.source == cell.target and cell.strength == 1
        if alone or identity:
            cell = cell.model_copy(update={"method": "ft", "strength": None})
        if "target" not in owners or identity:
            return cell.model_copy(update={"target": cell.source or cell.target, "source": None})
        return cell if "source" in owners else cell.model_copy(update={"source": None})

    def __str__(self) -> str:
        place = f"'{self.method}'" + (f" of '{self.source}'" if self.source else "") + f" on '{self.target}'"
        facts = {"alpha": self.alpha, "strength": self.strength, "seed": self.seed}
        known = [] if self.variant is None else [self.variant]
        known += [f"{name} {value:g}" for name, value in facts.items() if value is not None]
        known = [*([f"{self.shots} shots"] if self.shots != "full" else []), *(["LoRA"] if self.lora else []), *known]
        return place + (f" ({', '.join(known)})" if known else "")
