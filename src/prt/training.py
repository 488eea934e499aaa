"""One training loop for every network: it can be read from top to bottom, killed, and resumed.

On a CPU a resumed run ends bit for bit as one that was never stopped, with the same number of threads.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from prt.atomic import alone, fingerprint, read_tensors, write_tensors
from prt.errors import InputError, first_line
from prt.progress import progress
from prt.recipe import Recipe

CHECKPOINT_SECONDS = 120.0
OTHER = "belongs to another configuration, or another number of threads"  # of a checkpoint
Batch = TypeVar("Batch")


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """The autocast context of a precision (fp32: switched off)."""
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype, enabled=precision != "fp32")


def threads(device: torch.device) -> int | None:
    """What sums of floating-point numbers hang on, in their last digits: the threads of a CPU; None on a GPU."""
    return torch.get_num_threads() if device.type == "cpu" else None


def optimizer_of(parameters: list[nn.Parameter], recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser of ``parameters``."""
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return kind(parameters, lr=recipe.lr, betas=(0.9, recipe.beta2), weight_decay=recipe.weight_decay)


def diverged(name: str, loss: float, step: int, lr: float, precision: str) -> InputError:
    """What to answer to a loss that is no finite number."""
    remedies = [f"lower the learning rate ({lr})", "set 'clip'"]
    if precision != "fp32":
        remedies.append(f"use precision fp32 (now {precision})")
    said = f"{', '.join(remedies[:-1])} or {remedies[-1]}"
    return InputError(f"the loss of {name} is {loss} at iteration {step}: {said}.")


def check_weights(weights: Iterable[Tensor], name: str, lr: float) -> None:
    """Refuse weights that the last update made infinite or NaN, which no loss has shown.

    Raises:
        InputError: naming the run and its learning rate.
    """
    if not all(bool(torch.isfinite(weight).all()) for weight in weights):
        raise InputError(
            f"the weights of {name} are not finite after the last iteration: lower the learning rate ({lr})."
        )


def fit(
    network: nn.Module,
    loss: Callable[[Batch], Tensor],
    batches: Callable[[int], Iterable[Batch]],
    recipe: Recipe,
    *,
    name: str,
    checkpoint: Path,
    identity: Any,
    evaluate: Callable[[], dict[str, float]] | None = None,
    every: int = 0,
    stop: int | None = None,
) -> list[dict[str, float]]:
    """Minimise ``loss`` over the parameters of ``network`` that require gradients.

    Args:
        network: trained in place; its buffers (batch norm) are part of the checkpoint.
        loss: mean loss of one batch, a scalar.
        batches: ``batches(step)`` yields the batches from iteration ``step`` on, the same at every call:
            that is what makes a resumed run equal to one that was never stopped.
        name: of the progress bar.
        checkpoint: a file that is written every two minutes, on SIGTERM or SIGUSR1 and at the end, and removed by
            the caller once its outputs are safe.
        identity: whatever JSON-able facts determine the result; a checkpoint of another identity is ignored, and on
            a CPU one of another number of threads.
        evaluate: measured every ``every`` iterations, before the first and after the last (0: never).
        stop: the iteration to end after, of the ``recipe.steps`` that the learning rate is made for; None: all.

    Returns:
        The evaluations, each with its ``iteration``.

    Raises:
        InputError: if the loss is not finite, the checkpoint cannot be written, or another process is at this training.
        SystemExit: with 128 + the signal's number, after a checkpoint.
    """
    last = recipe.steps if stop is None else stop
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimizer = optimizer_of(parameters, recipe)
    scaler = torch.amp.GradScaler(parameters[0].device.type, enabled=recipe.precision == "fp16")
    mark = fingerprint(identity, recipe.model_dump(), last, every, threads(parameters[0].device))
    start, curve, finished = _resume(checkpoint, mark, network, optimizer, scaler)
    if finished:
        return curve

    def save(step: int, finished: bool = False) -> None:
        tensors = {f"network.{k}": v for k, v in network.state_dict().items()}
        for i, p in enumerate(parameters):
            tensors |= {f"optimizer.{i}.{k}": v for k, v in optimizer.state[p].items()}
        tensors["rng"] = torch.get_rng_state()
        header = {"identity": mark, "step": step, "curve": curve, "scaler": scaler.state_dict(), "finished": finished}
        write_tensors(checkpoint, tensors, header)

    network.train()
    saved = time.monotonic()
    with alone(checkpoint, name), Stop(name) as told, progress(name, last, "it", start) as bar:
        for step, batch in zip(range(start, last), batches(start), strict=False):
            if evaluate and every and step % every == 0:
                curve.append({"iteration": step} | evaluate())
                network.train()
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate(step)
            value = loss(batch)
            if not torch.isfinite(value):
                raise diverged(name, value.item(), step, recipe.lr, recipe.precision)
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(value).backward()
            if recipe.clip is not None:
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(parameters, recipe.clip)
            scaler.step(optimizer)
            scaler.update()
            bar.set_postfix(loss=f"{value.item():.4f}", refresh=False)
            bar.update()
            if told.signal or time.monotonic() - saved > CHECKPOINT_SECONDS:
                save(step + 1)
                saved = time.monotonic()
            if told.signal:
                print(
                    f"{name}: stopped by a signal after iteration {step + 1}; run again to go on.",
                    file=sys.stderr,
                )
                raise SystemExit(128 + told.signal)
    check_weights(network.state_dict().values(), name, recipe.lr)
    if evaluate and every:
        curve.append({"iteration": last} | evaluate())
    save(last, finished=True)
    return curve


def _resume(
    checkpoint: Path,
    mark: str,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
) -> tuple[int, list[dict[str, float]], bool]:
    """Restore everything from ``checkpoint``: iteration, evaluations, whether it was done; (0, [], False) without."""
    if not checkpoint.exists():
        return 0, [], False
    try:
        tensors, header = read_tensors(checkpoint, "checkpoint")
    except InputError as error:
        print(f"starting over: {error}", file=sys.stderr)
        return 0, [], False
    if header.get("identity") != mark:
        print(f"starting over: {checkpoint} {OTHER}.", file=sys.stderr)
        return 0, [], False
    weights = {k.removeprefix("network."): v for k, v in tensors.items() if k.startswith("network.")}
    own = network.state_dict()
    state: dict[int, dict[str, Tensor]] = {}
    try:
        if {k: v.shape for k, v in weights.items()} != {k: v.shape for k, v in own.items()}:
            raise KeyError("weights")
        for key, value in tensors.items():
            if key.startswith("optimizer."):
                _, index, entry = key.split(".")
                state.setdefault(int(index), {})[entry] = value
        if any(own != {"step", "exp_avg", "exp_avg_sq"} for own in map(set, state.values())):
            raise KeyError("optimizer")
        reached = int(header["step"]), list(header["curve"]), bool(header["finished"])
        if scaler.is_enabled():
            scaler.load_state_dict(header["scaler"])
        torch.set_rng_state(tensors["rng"])
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        print(f"starting over: {checkpoint} is damaged ({first_line(error)}).", file=sys.stderr)
        return 0, [], False
    network.load_state_dict(weights)
    return reached


class Stop:
    """Remembers SIGTERM and SIGUSR1 (a cluster's warning) until the iteration under way is done.

    ``name``: of what is stopped; standard error says what it waits for. None: another process says it.
    """

    signal = 0

    def __init__(self, name: str | None) -> None:
        self._name = name

    def __enter__(self) -> "Stop":
        self._before = {s: signal.signal(s, self._remember) for s in (signal.SIGTERM, signal.SIGUSR1)}
        return self

    def _remember(self, number: int, _frame: object) -> None:
        if not self.signal and self._name is not None:
            said = f"\n{self._name}: {signal.Signals(number).name} came; it ends when the iteration under way is done "
            # Not print: a signal may come while that is writing.
            os.write(2, f"{said}and saved, which may take as long as any.\n".encode())
        self.signal = number

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
