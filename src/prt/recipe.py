"""How a network is trained: the numbers of a recipe, checked. Without torch, so that a plan can be made of recipes."""

import math
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, ValidationError
from pydantic_core import PydanticCustomError

from prt.errors import InputError, known

Precision = Literal["fp32", "bf16", "fp16"]
PRECISIONS = get_args(Precision)
# Whole numbers as computers count: libraries fail at larger ones, each in its own way.
Positive = Annotated[int, Field(ge=1, lt=2**31)]


class Settings(BaseModel, frozen=True, extra="forbid", strict=True, allow_inf_nan=False):
    """Numbers with defaults, of a kind that messages call ``what``.

    Raises:
        InputError: for an unknown key or a value that cannot be, naming both.
    """

    what: ClassVar[str]

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            wrong, fields = error.errors()[0], type(self).model_fields
            key, value = str(wrong["loc"][0]), wrong["input"]
            known(key, fields, f"key of {self.what}")
            if wrong["type"] == "literal_error":
                known(value, get_args(fields[key].annotation), key)
            should = wrong["msg"].partition(" ")[2]  # the first word is Input, List, …
            raise InputError(f"'{key}' of {self.what} is {value!r}; it {should}.") from None


def _reference(given: Any) -> Any:
    """A number from 0, or the lowest and the highest of a range."""
    bounds = given if isinstance(given, list) else [given]
    numbers = [x for x in bounds if isinstance(x, int | float) and not isinstance(x, bool) and 0 <= x < math.inf]
    if len(numbers) < len(bounds) or (isinstance(given, list) and (len(given) != 2 or given[0] >= given[1])):
        # The first word is dropped: see Settings.
        raise PydanticCustomError("reference", "It should be a number from 0, or a range [lowest, highest] of them")
    return [float(x) for x in bounds] if isinstance(given, list) else float(given)


def _once(names: list[str]) -> list[str]:
    if len(set(names)) < len(names):
        raise PydanticCustomError("twice", "It should name each model once")
    return names


class Referring(Settings):
    """What a reward is tuned beside: v = β·log π_pt + r. The paper has β = 1 and one pretrained model.

    ``reference`` is β, or the range from which it is drawn, uniformly for every example at every step. ``references``
    are names of further pretrained models: an example sees one of them or the source, each as likely. Neither is
    written where it is the paper's, nor does it change what is fine-tuned.
    """

    reference: Annotated[float | list[float], BeforeValidator(_reference)] = Field(1.0, exclude_if=lambda of: of == 1)
    references: Annotated[list[str], AfterValidator(_once)] = Field([], exclude_if=lambda names: not names)

    @property
    def plain(self) -> bool:
        """Whether it is the paper's: β = 1, and no further model."""
        return self.reference == 1 and not self.references


class Recipe(Referring):
    """How a network is trained. The defaults are the paper's (App. B.1).

    ``warmup`` is in iterations, ``clip`` the greatest gradient norm (None: no clipping). The paper says Adam;
    the code it takes its recipe from uses ``adamw`` with weight decay 0.1 and clip 1.0.
    """

    what: ClassVar[str] = "a training recipe"

    optimizer: Literal["adam", "adamw"] = "adam"
    lr: float = Field(1e-5, ge=0)
    batch: Positive = 128
    steps: Positive = 2000
    warmup: int = Field(500, ge=0, lt=2**31)
    weight_decay: float = Field(0.0, ge=0)
    beta2: float = Field(0.999, ge=0, lt=1)
    clip: float | None = Field(None, gt=0)
    precision: Precision = "fp32"
    augment: bool = False

    def learning_rate(self, step: int) -> float:
        """Linear warm-up, then half a cosine to zero."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.lr * 0.5 * (1 + math.cos(math.pi * done))
