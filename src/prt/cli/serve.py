"""Serving a target with rewards on it."""

import typer

from prt.cli.options import begin
from prt.cli.use import Bases, MethodName, Rewards, Spec, Strengths, with_bases

SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": True}  # vLLM's own are passed on


def serve(
    context: typer.Context,
    reward: Rewards,
    target: Spec,
    method: MethodName = "prt",
    strength: Strengths = [],  # noqa: B006
    base: Bases = [],  # noqa: B006
) -> None:
    """Serve a target with rewards on it by vLLM, on OpenAI's interface; all other options are vLLM's own.

    Such as --port, --host (default: this machine alone), --api-key, --dtype, --tensor-parallel-size, --max-model-len.
    """
    from prt.combine import strengths_for
    from prt.engine.installed import require_vllm

    require_vllm()
    from prt.engine.serve import serve as run

    begin()
    strengths = strengths_for(len(reward), strength)
    based = with_bases(reward, base)
    run([(*each, s) for each, s in zip(based, strengths, strict=True)], target, context.args, method)
