"""Running a model's programs where they can do no harm, and HumanEval's and MBPP's measure of them, pass@k.

The sandbox is the Linux kernel's namespaces (``prt.sandbox.jail`` says what is taken away). It needs no installation
and no rights, and works on a cluster's node. It is for programs that models write by chance; it is no proof against an
attacker who knows a hole in the kernel.
"""

import json
import math
import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import prt
from prt.atomic import scratch
from prt.errors import InputError

SECONDS = 3.0  # for one program; code_eval's own
GRACE = 20  # seconds for making the sandbox, beyond which it is ended from outside
MEMORY = 2 << 30
FILE = 16 << 20
READY = b"ready\n"
START = f"import sys; sys.path.insert(0, {str(Path(prt.__file__).parents[1])!r}); "
START += "from prt.sandbox.jail import main; del sys.path[0]; main()"


def run(program: str, tests: str = "", seconds: float = SECONDS) -> str:
    """Run a Python program and its tests in the sandbox, each in a process of its own.

    The program may read the Python that runs this, with its packages, and write to its working folder, which is thrown
    away. The tests call what it defines (see :mod:`prt.sandbox.remote`), and decide.

    Args:
        seconds: how long both may take.

    Returns:
        ``passed`` if both ran to their end, else ``failed: …`` and why.

    Raises:
        InputError: if this machine allows no sandbox.
    """
    with scratch("sandbox") as folder, tempfile.TemporaryFile() as wanted:
        wanted.write(json.dumps({"program": program, "tests": tests}).encode())
        wanted.seek(0)
        settings = {
            "root": str(folder.resolve()),
            "folders": _folders(),
            "limits": {
                "RLIMIT_CPU": math.ceil(seconds) + 1,
                "RLIMIT_AS": MEMORY,
                "RLIMIT_FSIZE": FILE,
                "RLIMIT_CORE": 0,
            },
        }
        environment = {"HOME": "/sandbox", "TMPDIR": "/sandbox", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        process = subprocess.Popen(
            [sys.executable, "-I", "-B", "-c", START, json.dumps(settings)],
            stdin=wanted,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd="/",
            start_new_session=True,
        )
        assert process.stdout is not None
        try:
            ready, ended = _read(process.stdout, GRACE, until=READY)
            if not ready.startswith(READY):
                raise InputError(
                    "this machine allows no sandbox for a model's programs "
                    f"({ready.decode(errors='replace').strip() or 'no answer'}): HumanEval and MBPP want a Linux that "
                    "lets an ordinary user make namespaces (user.max_user_namespaces above 0, "
                    "kernel.apparmor_restrict_unprivileged_userns 0) and has libseccomp; run them on one, or leave "
                    "them out."
                )
            said, ended = _read(process.stdout, seconds)
        finally:
            process.kill()  # the kernel then ends all within
            process.wait()
            process.stdout.close()
    if not ended:
        return f"failed: TimeoutError: not done within {seconds:g} seconds"
    verdict = (ready.removeprefix(READY) + said).decode(errors="replace")
    return verdict or "failed: it was ended, or ended itself, before its tests were done"


def _read(pipe: IO[bytes], seconds: float, until: bytes = b"") -> tuple[bytes, bool]:
    """What comes out of a pipe within ``seconds``, or as far as it begins with ``until``; and whether it has ended."""
    said, end = b"", time.monotonic() + seconds
    with selectors.DefaultSelector() as ready:
        ready.register(pipe, selectors.EVENT_READ)
        while not (until and said.startswith(until)) and (left := end - time.monotonic()) > 0:
            if ready.select(left):
                if not (more := os.read(pipe.fileno(), 1 << 16)):
                    return said, True
                said += more
    return said, False


def _folders() -> list[str]:
    """What a Python program reads: the interpreter's folders and the system's libraries, none within another."""
    wanted = ["/usr", "/lib", "/lib32", "/lib64", sys.base_prefix, sys.base_exec_prefix, sys.prefix]
    found: list[str] = []
    for folder in wanted:
        if Path(folder).is_dir() and not any(Path(folder).is_relative_to(f) for f in found):
            found.append(folder)
    return found


class CodeEval:
    """Takes the place of the metric ``code_eval`` of the library ``evaluate``, which runs programs in the open."""

    def compute(
        self, references: Sequence[str], predictions: Sequence[Sequence[str]], k: Sequence[int]
    ) -> tuple[dict[str, float], dict[int, list[str]]]:
        """Run every prediction with its problem's tests.

        pass@k is estimated without bias, as in Chen et al. (2021), arXiv:2107.03374, equation 1.

        Args:
            references: the tests of each problem.
            predictions: the programs written for each problem.
            k: the numbers of programs that may be tried.

        Returns:
            ``pass@k`` in 0..1, the mean over the problems, for each k that no problem has fewer programs than; and what
            ``run`` said of each program.

        Raises:
            InputError: if this machine allows no sandbox.
        """
        said = {
            problem: [run(program, tests) for program in programs]
            for problem, (programs, tests) in enumerate(zip(predictions, references, strict=True))
        }
        counts = [(len(results), results.count("passed")) for results in said.values()]
        shares: dict[str, Any] = {
            f"pass@{of}": math.fsum(1 - math.comb(n - c, of) / math.comb(n, of) for n, c in counts) / len(counts)
            for of in k
            if all(n >= of for n, _ in counts)
        }
        return shares, said
