"""How a language model is tuned: a recipe, and LoRA's adapter. A plan reads it, so it imports nothing heavy."""

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field

from prt.errors import InputError
from prt.recipe import Positive, Referring, Settings

Precision = Literal["fp32", "bf16"]
PRECISIONS: tuple[str, ...] = get_args(Precision)


class Recipe(Referring):
    """How a language model is tuned. The defaults are the paper's (App. B.2), where it speaks.

    A batch is ``batch`` conversations over all processes; the loss is its mean over all the assistant's tokens. The
    paper says Adam: that is AdamW with ``weight_decay`` 0 (which spares biases and norms in any case). ``warmup`` is a
    share of all steps, ``clip`` the greatest gradient norm (None: no clipping). A longer conversation is cut at
    ``max_length`` tokens. ``per_device_batch`` conversations go through the network at once, one after another in one
    row where ``packing`` is on: the same result without padding, but attention then costs the row's length squared,
    which is dear where the network is small and the batch is large. bf16: the weights are kept in float32 and computed
    with in bfloat16; a frozen network is kept in it.
    """

    what: ClassVar[str] = "a tuning recipe"

    lr: float = Field(2e-5, ge=0)
    batch: Positive = 128
    epochs: Positive = 2
    weight_decay: float = Field(0.0, ge=0)
    warmup: float = Field(0.03, ge=0, lt=1)
    clip: float | None = Field(None, gt=0)
    max_length: Positive = 2048
    precision: Precision = "bf16"
    per_device_batch: Positive = 4
    gradient_checkpointing: bool = True
    packing: bool = True

    def passes(self, processes: int) -> int:
        """Passes of each process that make one batch.

        Raises:
            InputError: if no whole number of them does.
        """
        if self.batch % (self.per_device_batch * processes):
            on = f" on {processes} GPUs" if processes > 1 else ""
            raise InputError(
                f"'batch' of {self.what} is {self.batch}, which cannot be made of 'per_device_batch' "
                f"{self.per_device_batch}{on}; change one, so that it divides."
            )
        return self.batch // (self.per_device_batch * processes)


class Lora(Settings):
    """A low-rank adapter: its rank, its scale (alpha / rank), and the layers that get one.

    ``targets`` is PEFT's: names of layers, or "all-linear", which leaves the output layer out. The paper gives none of
    the three.
    """

    what: ClassVar[str] = "an adapter"

    rank: Positive = 64
    alpha: Positive = 16
    targets: Annotated[str | list[str], Field(min_length=1)] = "all-linear"
