"""Before the first job runs: what of the plan would fail on this machine, said at once and not when its turn comes."""

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from prt import hub, slurm
from prt.engine.installed import require_vllm
from prt.errors import InputError
from prt.language.tasks import catalogue, runs_answers
from prt.machine import cpu_has_bf16, disk_of, free_bytes
from prt.plan import Plan
from prt.plan.jobs import Job, unique
from prt.plan.sizes import download, result, unpacked
from prt.sandbox import programs
from prt.vision.catalogue import entry

Asked = Mapping[Job, Any]  # job of the plan → Snakemake's, which has the resources in force


def check(plan: Plan, jobs: Iterable[Any], executor: str) -> slurm.Limits:
    """Refuse what cannot succeed.

    Args:
        jobs: those that Snakemake is going to run.
        executor: what runs them: ``local``, ``slurm``, … Only of the first is this machine the one that computes.

    Returns:
        What a job may grow to when it is tried again, where a cluster has such limits.

    Raises:
        InputError: naming the rule, what it lacks, and the remedy.
    """
    jobs = list(jobs)
    makers = plan.jobs.makers
    asked = {makers[file]: job for job in jobs for file in job.output if file in makers}
    limits: slurm.Limits = {}
    if executor == "slurm":
        limits = slurm.check(jobs)
    if executor == "local":
        check_gpus(asked)
        if runs_code(plan, asked):
            programs.run("")
        if (said := slow_precision(plan, asked)) is not None:
            print(f"prt: warning: {said}", file=sys.stderr)
    if executor in ("slurm", "local"):
        check_disk(plan, asked)
        if plan.language and plan.language.config.engine == "vllm" and any(job.rule == "evaluate" for job in asked):
            require_vllm()
    if executor in ("slurm", "local") and (wanted := repositories(plan, asked)):  # both download on this machine
        check_access(wanted)
    return limits


def check_gpus(asked: Asked) -> None:
    """Refuse jobs that compute on more GPUs than this machine has.

    Raises:
        InputError: naming the rule that wants the most.
    """
    wanted = {
        job.rule: max(1, of.resources.get("gpu", 0))
        for job, of in sorted(asked.items(), key=lambda pair: pair[1].resources.get("gpu", 0))
        if of.resources.get("device") == "cuda"
    }
    if not wanted:
        return
    import torch

    rule, most = list(wanted.items())[-1]
    here = torch.cuda.device_count()
    if here < most:
        found = f"{here or 'none'} that torch can use"
        raise InputError(
            f"jobs of '{rule}' want {most} GPU{'s' if most > 1 else ''}, and this machine has {found}: run on one that "
            "has (on a cluster: --profile slurm), or run everything on the CPU, with --config device=cpu."
        )


def runs_code(plan: Plan, jobs: Iterable[Job]) -> bool:
    """Whether any of these jobs runs code that a model wrote, or would: to read such a benchmark is to try it."""
    language = plan.language
    if language is None:
        return False
    code = {name for name, own in language.config.benchmarks.items() if runs_answers(name, own)}
    jobs = list(jobs)
    made = {file for job in jobs if job.rule == "evaluate" for file in job.makes}
    asked = {name for name, item in language.config.next_tokens.items() if item.benchmark in code}
    return any(job.rule == "next_tokens" and job.name in asked for job in jobs) or any(
        cells[0].dataset in code and language.evaluated(path) in made for path, cells in language.evaluations.items()
    )


def slow_precision(plan: Plan, asked: Asked) -> str | None:
    """What to say of jobs that compute in bf16 on a CPU that has no instructions for it."""
    halves = {
        "tune zero_shot score_rewards merge": plan.vision and plan.vision.precision,
        "tune_language evaluate next_tokens measure_decoding": plan.language and plan.language.precision,
    }
    slow = [rule for rules, precision in halves.items() if precision == "bf16" for rule in rules.split()]
    found = [job.rule for job, of in asked.items() if job.rule in slow and of.resources.get("device") == "cpu"]
    if not found or cpu_has_bf16() is not False:
        return None
    return (
        f"jobs of '{found[0]}' compute in bf16 on a CPU without instructions for it, which is 10 to 50 times slower "
        "than fp32; --config device=cpu computes in fp32."
    )


def check_access(wanted: list[tuple[str, hub.Kind]]) -> None:
    """Refuse downloads of what is gated on the hub, and of what the hub does not have.

    Raises:
        InputError: as :func:`prt.hub.check_access`.
    """
    before = {name: os.environ.get(name) for name in hub.OFFLINE}
    try:
        hub.allow_network(True)
        hub.check_access(wanted)
    finally:  # other jobs inherit this environment
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def check_disk(plan: Plan, jobs: Iterable[Job]) -> None:
    """Say what is to be fetched, and refuse what cannot fit: more than 1.25 times the free space, by estimate.

    Raises:
        InputError: naming the folder, what comes to it, and what is free there.
    """
    jobs, coming = list(jobs), {Path("results"): 0.0}
    for job in jobs:
        coming[Path("results")] += result(plan, job)
        if size := unpacked(plan, job):
            half = plan.vision if job.rule in ("fetch_backbone", "fetch_dataset") else plan.language
            folder = Path(half.config.downloads if half else "downloads")
            coming[folder] = coming.get(folder, 0.0) + size
    if lines := to_fetch(plan, jobs):
        print("prt: to be fetched, by estimate:", *lines, sep="\n", file=sys.stderr)
    disks: dict[int, list[Path]] = {}
    for folder in coming:
        disks.setdefault(disk_of(folder), []).append(folder)
    for folders in disks.values():
        free, wanted = free_bytes(folders[0]) / 1e9, sum(coming[folder] for folder in folders)
        if wanted > 1.25 * free:
            what = " and ".join(f"{coming[folder]:,.0f} GB in {folder}" for folder in folders if coming[folder])
            raise InputError(
                f"what is to be made takes about {what}, and {free:,.0f} GB are free there: make room, put a link to a "
                "larger disk in the folder's place, or ask for less (`prt budget` says what each item takes)."
            )


def to_fetch(plan: Plan, jobs: Iterable[Job]) -> list[str]:
    """What would be downloaded, the largest first."""
    sizes = {f"{job.rule.removeprefix('fetch_')} {job.name}": download(plan, job) for job in jobs}
    there = sorted(((size, name) for name, size in sizes.items() if size), reverse=True)
    total = sum(size for size, _ in there)
    return [f"{size:7.2f} GB  {name}" for size, name in there] + ([f"{total:7.2f} GB  in all"] if there else [])


def repositories(plan: Plan, jobs: Iterable[Job]) -> list[tuple[str, hub.Kind]]:
    """The repositories of the hub that these jobs would download, but for those whose folder is there."""
    if plan.config.stand_ins:
        return []
    found = [of for job in jobs if (of := _repository(job)) is not None]
    return unique((repository, kind) for repository, kind, folder in found if not folder.is_dir())


def _repository(job: Job) -> tuple[str, hub.Kind, Path] | None:
    """The repository of the hub that a job fetches, and the folder that it comes to; None for another job."""
    made = Path(job.makes[0])
    if job.rule == "fetch_model":
        return job.about, "model", made.parent
    if job.rule == "fetch_benchmark":
        return catalogue()[job.about]["hub"]["repository"], "dataset", made.with_suffix("")
    if job.rule in ("fetch_chats", "fetch_dataset"):
        kind, _, name = job.about.partition(":")
        if kind == "huggingface":
            return name, "dataset", hub.place(name, made.parent)
        if kind == "paper" and (of := entry(name)).hub is not None:
            return of.hub.repository, "dataset", of.folder(made.parent)
    return None
