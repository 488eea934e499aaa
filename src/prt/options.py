"""What the commands of both halves share: options, and how they are read and checked."""

import json
import os
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prt.errors import InputError, known

if TYPE_CHECKING:
    import torch

    from prt.training import Recipe

Out = Annotated[Path, typer.Option(help="What to write.")]
Downloads = Annotated[Path, typer.Option(help="Where downloads are kept.")]
RecipeJson = Annotated[str, typer.Option(help="Training recipe as JSON; what it leaves out is the paper's.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, …; auto: a GPU where there is one.")]


def parsed(text: str, option: str, schema: dict[str, Any]) -> Any:
    """The value of an option in JSON, which must be as ``schema`` says."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    try:
        value = json.loads(text)
    except ValueError as error:
        raise InputError(f"{option} must be {schema['description']}, but cannot be read ({error}).") from None
    wrong = best_match(Draft202012Validator(schema).iter_errors(value))
    if wrong is not None:
        place = ".".join(map(str, wrong.absolute_path))
        where = f"its part {place} is wrong: " if place else ""
        raise InputError(f"{option} must be {schema['description']}, but {where}{wrong.message}.")
    return value


def pairs_of(texts: list[str]) -> list[tuple[str, str]]:
    """(source, target) of every SOURCE:TARGET."""
    pairs = [(source, target) for source, _, target in (text.partition(":") for text in texts)]
    for text, names in zip(texts, pairs, strict=True):
        if not all(names):
            raise InputError(f"--pair is '{text}', but must be SOURCE:TARGET, the names of two models.")
    return pairs


def recipe_of(content: dict[str, Any]) -> "Recipe":
    """A training recipe; an unknown key is refused."""
    from prt.training import Recipe

    for key in content:
        known(key, [f.name for f in fields(Recipe)], "key of a training recipe")
    return Recipe(**content)


def device_of(name: str) -> "torch.device":
    """The device of that name; ``auto`` is a GPU where there is one."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise InputError(f"--device is '{name}', but must be cpu, cuda, cuda:NUMBER or auto.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"this machine has no GPU that torch can use as --device {name}; run on one that has, or write cpu "
            "(in the pipeline: --set-resources RULE:gpu=0 RULE:device=cpu)."
        )
    return device


def allow_network(allowed: bool) -> None:
    """Allow or forbid the hubs' libraries to use the network, whatever the environment says.

    They read these variables once, when they are imported.
    """
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        os.environ[name] = "0" if allowed else "1"


def keep_threads() -> None:
    """Keep to the threads that the scheduler granted (Snakemake sets OMP_NUM_THREADS)."""
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
