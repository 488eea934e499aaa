"""What the commands share: options, and how they are read and checked."""

import gc
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prt.errors import InputError, known

if TYPE_CHECKING:
    import torch

    from prt.cell import Cell
    from prt.language.parts import Models
    from prt.methods import Network
    from prt.plan import Plan
    from prt.plan.jobs import Job

    Folder = Callable[[Cell, Network], str]

ENGINES = ("transformers", "vllm")
ConfigFile = Annotated[Path, typer.Option("--config", help="The configuration, such as results/demo/config.yaml.")]
JobName = Annotated[str, typer.Argument(help="The job's name: `prt plan` lists them.", metavar="JOB")]
Downloads = Annotated[Path, typer.Option(help="Folder that models and data of the hub are fetched to.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, …; auto: a GPU where there is one.")]


def plan_of(config: Path) -> "Plan":
    """The plan of a configuration file.

    Raises:
        InputError: if it is missing or wrong.
    """
    from prt.plan import Plan

    return Plan.read([config])


def checkpoint_of(top: str, name: str) -> Path:
    """Where a training keeps its checkpoint: in one folder for all of them, so that no empty ones stay behind.

    Args:
        top: the folder of its half of the experiment.
        name: what the plan calls it, in which no name has a comma.
    """
    return Path(top, "checkpoints", name.replace("/", ","))


def device_of(name: str) -> "torch.device":
    """The device of that name; ``auto`` is a GPU where there is one.

    Raises:
        InputError: if there is none such here.
    """
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
            "(in the pipeline: --config device=cpu)."
        )
    return device


def dtype_of(precision: str) -> "torch.dtype":
    """The number format of a precision.

    Raises:
        InputError: if there is none of that name.
    """
    from prt.language.models import DTYPES

    known(precision, DTYPES, "precision")
    return DTYPES[precision]


@contextmanager
def models_of(
    engine: str, folder: "Folder", dtype: "torch.dtype", device: "torch.device", template: str = "own"
) -> "Iterator[Models]":
    """The models of cells, in an engine: transformers or vllm, which puts them where it was built for.

    Raises:
        InputError: for another engine, if vLLM is missing or too old, or if it would not put them on ``device``.
    """
    known(engine, ENGINES, "engine")
    if engine == "transformers":
        from prt.language.parts import Models

        yield Models(folder, dtype, device, template)
        return
    from prt.engine.installed import require_vllm

    require_vllm()
    from vllm.platforms import current_platform

    if device.type != current_platform.device_type or device.index:
        raise InputError(
            f"the engine vllm computes on the first {current_platform.device_type} that it sees, not on --device "
            f"{device}; leave --device out (CUDA_VISIBLE_DEVICES says which GPUs it sees), or take the engine "
            "transformers."
        )
    from prt.engine.harness import EngineModels

    with ExitStack() as stack:
        yield EngineModels(folder, dtype, device, template, stack)


def workers_of(job: "Job") -> int:
    """Processes that decode images, beside the one that computes: as many as the scheduler granted cores to."""
    return min(job.cores, int(os.environ.get("OMP_NUM_THREADS", job.cores))) - 1


def begin() -> None:
    """Called once all is imported: keep to the threads that the scheduler granted, and collect garbage again.

    Snakemake sets OMP_NUM_THREADS. The collector is off until here (see ``prt.cli.main``); what was imported stays.
    """
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    gc.freeze()
    gc.enable()
