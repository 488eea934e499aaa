"""What every benchmark of speed shares: a process for each measurement, its memory, and the device's name."""

import multiprocessing
import re
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import torch

from prt.errors import InputError


def check(numbers: dict[str, int], device: torch.device) -> None:
    """Refuse numbers below one, and a machine that memory cannot be measured on.

    Raises:
        InputError: naming which.
    """
    for option, number in numbers.items():
        if number < 1:
            raise InputError(f"the {option} is {number}, but must be 1 or more.")
    if device.type == "cpu" and not Path("/proc/self/clear_refs").exists():
        raise InputError("memory on a CPU is read from Linux's /proc, which this machine has not; use a GPU, or Linux.")


def in_own_process(remedy: str, function: Callable[..., Any] | str, *arguments: Any) -> Any:
    """What ``function`` returns in a process of its own, with as many threads as this one.

    Args:
        remedy: a sentence that says what does not fit and what to do; it is the message where memory runs out.
        function: or its name, MODULE:NAME: then it is imported there alone.

    Raises:
        InputError: if memory runs out.
    """
    context = multiprocessing.get_context("forkserver")
    # Imported once, by the process that all others are copies of.
    module = function.partition(":")[0] if isinstance(function, str) else function.__module__
    context.set_forkserver_preload([module])
    with ProcessPoolExecutor(1, context, torch.set_num_threads, (torch.get_num_threads(),)) as pool:
        try:
            return pool.submit(_call, function, *arguments).result()
        except torch.OutOfMemoryError:
            raise InputError(remedy) from None
        except BrokenProcessPool:
            raise InputError(f"a measurement was killed: most likely {remedy}") from None
        except RuntimeError as error:
            if "can't allocate memory" not in str(error):  # a CPU has no error of its own
                raise
            raise InputError(remedy) from None


def _call(function: Callable[..., Any] | str, *arguments: Any) -> Any:
    found = resolve_name(function) if isinstance(function, str) else function
    return found(*arguments)


def start(device: torch.device) -> float:
    """Begin a measurement: the memory in use before it."""
    torch.manual_seed(0)
    if device.type == "cuda":
        torch.cuda.set_device(device.index or 0)
    return memory(device, peak=False)


def memory(device: torch.device, *, peak: bool) -> float:
    """GB that this process uses, or has used at most: tensors on a GPU, or else its resident set (Linux)."""
    if device.type == "cuda":
        return (torch.cuda.max_memory_allocated(device) if peak else torch.cuda.memory_allocated(device)) / 1e9
    # Not getrusage's ru_maxrss: a child inherits its parent's, and it cannot be reset.
    name = "VmHWM" if peak else "VmRSS"
    return int(re.findall(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())[0]) * 1024 / 1e9


def forget_peak(device: torch.device) -> None:
    """Let the peak be what is used now."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        Path("/proc/self/clear_refs").write_text("5")


def timed(step: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Time and launch time of a call in ms."""
    if device.type == "cpu":
        clock = time.perf_counter()
        step()
        return 1000 * (time.perf_counter() - clock), 0.0
    began, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize(device)  # the queue is empty, so that launching waits for nothing
    began.record()
    clock = time.perf_counter()
    step()
    launch = 1000 * (time.perf_counter() - clock)
    ended.record()
    torch.cuda.synchronize(device)
    return began.elapsed_time(ended), launch


def device_name(device: torch.device) -> str:
    """A GPU's name, or the processor's with the threads that torch uses."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    found = re.findall(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    threads = torch.get_num_threads()
    return f"{found[0] if found else 'CPU'}, {threads} thread{'s' if threads > 1 else ''}"
