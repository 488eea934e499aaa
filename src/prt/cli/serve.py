"""Serving a target with rewards on it."""

from pathlib import Path
from typing import Annotated

import typer

from prt.cli.options import begin
from prt.cli.use import Base, MethodName, Spec
from prt.errors import InputError

SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": True}  # vLLM's own are passed on


def serve(
    context: typer.Context,
    reward: Annotated[
        list[Path],
        typer.Option(help="Folder of a tuned reward; with --method eft or poe, of a run of ft. May be repeated."),
    ],
    target: Spec,
    method: MethodName = "prt",
    strength: Annotated[
        list[float] | None, typer.Option(help="1/λ, one for all rewards or one for each; the paper's is 1.")
    ] = None,
    base: Base = None,
) -> None:
    """Serve a target with rewards on it by vLLM, on OpenAI's interface; all other options are vLLM's own.

    Such as --port, --host (default: this machine alone), --api-key, --dtype, --tensor-parallel-size, --max-model-len.
    """
    from prt.engine.installed import require_vllm

    require_vllm()
    from prt.engine.serve import serve as run

    begin()
    strengths = strength or [1.0]
    if len(strengths) not in (1, len(reward)):
        raise InputError(f"there are {len(reward)} rewards and {len(strengths)} strengths; give one for all, or each.")
    strengths = strengths * len(reward) if len(strengths) == 1 else strengths
    run(list(zip(reward, strengths, strict=True)), target, context.args, method, base)
