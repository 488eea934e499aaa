"""Asking SLURM, before the first job is submitted, whether it would take the jobs."""

import subprocess
from collections.abc import Iterable
from typing import Any

from prt.errors import InputError


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


def check(jobs: Iterable[Any]) -> None:
    """Let SLURM say what it would refuse.

    Raises:
        InputError: naming the rule, what was asked, and SLURM's reason.
    """
    for options, name in sorted({submission(job): job.rule.name for job in jobs if not job.is_local}.items()):
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
