"""The check-up: what jobs use of a machine, each tried for real and told in one line."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

from prt import hub
from prt.doctor import trials
from prt.errors import InputError, first_line
from prt.machine import free_bytes
from prt.plan import Plan
from prt.plan.ahead import repositories, runs_code
from prt.plan.jobs import unique
from prt.reward import PACKAGE
from prt.sandbox import programs

SHOWN = ("torch", "transformers", "open_clip_torch", "snakemake")


@dataclass(frozen=True)
class Finding:
    """What became of one trial.

    ``works`` is None where it could not be tried here. ``needed``: the experiment cannot do without, on this machine.
    """

    what: str
    works: bool | None
    said: str
    needed: bool

    def __str__(self) -> str:
        state = "ok" if self.works else "missing" if self.needed else "no" if self.works is False else "not checked"
        return f"{self.what:14}{state:12}{self.said}"


def check_up(plan: Plan | None) -> Iterator[Finding]:
    """Try everything, one after the other.

    Args:
        plan: of the experiment that says what is needed; None: nothing but the packages is.
    """
    jobs = plan.needed([]) if plan else []
    most = max((job.gpus for job in jobs), default=0)
    cluster = _tried("SLURM", slurm, needed=False)
    here = not cluster.works or "SLURM_JOB_ID" in os.environ  # else jobs run on other machines than this one
    halves = [half for half in (plan.vision, plan.language) if half] if plan else []
    code = plan is not None and runs_code(plan, jobs)
    for what, trial, needed in (
        ("versions", versions, True),
        ("CUDA", trials.cuda, most > 0 and here),
        ("bf16", trials.bf16, most > 0 and any(half.precision == "bf16" for half in halves) and here),
        ("two processes", trials.two_processes, most > 1 and here),
        ("streams", trials.streams, most > 0 and here),
        ("decoding", trials.decoding, most > 0 and here),
        ("sandbox", sandbox, code and here),
        ("disk", lambda: disk(plan), True),
        ("hub", lambda: access(plan), bool(plan and repositories(plan, jobs))),
    ):
        yield _tried(what, trial, needed)
    yield cluster


def _tried(what: str, trial: Callable[[], str], needed: bool) -> Finding:
    try:
        return Finding(what, True, trial(), needed)
    except trials.NotHere as error:
        return Finding(what, None, str(error), needed)
    except InputError as error:
        return Finding(what, False, str(error), needed)
    except Exception as error:  # whatever a driver or a library raises is the finding
        return Finding(what, False, first_line(error), needed)


def versions() -> str:
    """The packages are those that the project pins."""
    wrong = []
    for requirement in map(Requirement, requires(PACKAGE) or []):
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            found = "none"
        if found == "none" or found not in requirement.specifier:
            wrong.append(f"{requirement.name} {found} (not {requirement.specifier})")
    if wrong:
        raise InputError(f"{', '.join(wrong)}; install again, as `make` or environment.yml does.")
    python = ".".join(map(str, sys.version_info[:3]))
    return ", ".join([f"Python {python}", *(f"{name} {version(name)}" for name in SHOWN)])


def sandbox() -> str:
    """A program runs in the sandbox."""
    programs.run("")
    return "a program ran in it"


def slurm() -> str:
    """The controller answers."""
    if shutil.which("sinfo") is None:
        raise trials.NotHere("no SLURM on this machine")
    done = subprocess.run(["sinfo", "--noheader", "--format=%P %D %G"], capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        reason = done.stderr.strip().rpartition("\n")[2] or "it says nothing"
        raise InputError(f"the controller does not answer ({reason})")
    return "partition, nodes, GPUs: " + "; ".join(done.stdout.splitlines())


def disk(plan: Plan | None) -> str:
    """What is free where results and downloads go."""
    halves = [half for half in (plan.vision, plan.language) if half] if plan else []
    folders = unique(["results", *([half.config.downloads for half in halves] or ["downloads"])])
    return ", ".join(f"{free_bytes(Path(folder)) / 1e9:.0f} GB free for {folder}" for folder in folders)


def access(plan: Plan | None) -> str:
    """The hub gives what is to be fetched, or, without an experiment, answers."""
    wanted = repositories(plan, plan.needed([])) if plan else []
    if plan and not wanted:
        return "nothing is to be fetched"
    hub.check_access(wanted or [("openai-community/gpt2", "model")])
    return f"gives all {len(wanted)} repositories that are to be fetched" if wanted else "answers"
