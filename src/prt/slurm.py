"""Asking SLURM, before the first job is submitted, whether it would take the jobs."""

import re
import subprocess
from collections.abc import Iterable
from typing import Any, NamedTuple

from prt.errors import InputError


class Most(NamedTuple):
    """What a partition gives one job at most, in Snakemake's units and names."""

    runtime: float
    mem_mb: float


Limits = dict[tuple[str, int], Most]  # of jobs of a rule and a number of threads


def in_minutes(said: str) -> float:
    """A time limit as SLURM prints it, ``1-12:00:00``, ``30:00`` or ``infinite``."""
    if not (time := re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", said)):
        return float("inf")
    days, hours, rest, seconds = (int(part or 0) for part in time.groups())
    return 1440 * days + 60 * hours + rest + seconds / 60


def partitions() -> dict[str, Most]:
    """The partitions of this cluster; nothing where SLURM does not answer."""
    command = ["sinfo", "--noheader", "--exact", "--format=%R|%l|%m"]
    found: dict[str, Most] = {}
    try:
        lines = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
    except FileNotFoundError:
        return {}
    for line in lines:  # one for each kind of node; beside these, headers of several clusters
        if line.count("|") != 2:
            continue
        name, time, memory = line.split("|")
        largest = max(found[name].mem_mb if name in found else 0.0, float(memory.rstrip("+")))
        found[name] = Most(in_minutes(time), largest)
    return found


def submission(job: Any) -> tuple[str, ...]:
    """What SLURM is asked for a job of Snakemake, as options of sbatch."""
    given = job.resources
    kind = [given.get("gpu_model"), str(given.get("gpu"))]
    options = {
        "account": given.get("slurm_account"),
        "partition": given.get("slurm_partition"),
        "gpus": given.get("gpu") and ":".join(filter(None, kind)),
        "cpus-per-task": job.threads,
        "mem": given.get("mem_mb"),
        "time": given.get("runtime"),
    }
    return tuple(f"--{option}={value}" for option, value in options.items() if value)


def check(jobs: Iterable[Any]) -> Limits:
    """Let SLURM say what it would refuse, and refuse what it would let wait for ever.

    Returns:
        What each kind of job can be given at most, by its partition: one that is tried again cannot have more.

    Raises:
        InputError: naming the rule, what was asked, and SLURM's reason.
    """
    jobs = [job for job in jobs if not job.is_local]
    for options, name in sorted({submission(job): job.rule.name for job in jobs}.items()):
        command = ["sbatch", "--test-only", *options, "--wrap=true"]
        try:
            answer = subprocess.run(command, capture_output=True, text=True)
        except FileNotFoundError:
            raise InputError("this machine has no sbatch: start the pipeline on a login node of the cluster.") from None
        if answer.returncode != 0:
            reason = answer.stderr.strip().rpartition("\n")[2].rpartition(": ")[2]
            raise InputError(
                f"SLURM refuses jobs of '{name}' ({' '.join(options)}): {reason}; name what your cluster has "
                "at the top of slurm/config.yaml, or give the rule other resources with --set-resources."
            )
    there, limits = partitions(), Limits()
    for job in jobs:
        asked = str(job.resources.get("slurm_partition"))
        if given := [there[name] for name in asked.split(",") if name in there]:  # SLURM takes any of several
            most = Most(max(of.runtime for of in given), max(of.mem_mb for of in given))
            limits[job.rule.name, job.threads] = most
            if (minutes := job.resources.get("runtime") or 0) > most.runtime:
                rule, longest = job.rule.name, f"{most.runtime:.0f}"
                raise InputError(
                    f"SLURM would never start jobs of '{rule}': they ask for {minutes} minutes, and partition "
                    f"'{asked}' gives {longest} at most; name one for longer jobs at the top of "
                    f"slurm/config.yaml, or ask for less, with --set-resources {rule}:runtime={longest}."
                )
    return limits
