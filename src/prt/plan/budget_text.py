"""The budget as text: of an experiment or some of its items, beside what was measured."""

from prt.plan import Plan
from prt.plan.budget import Budget, measured
from prt.plan.jobs import Job, unique
from prt.plan.sizes import Range, download, result, unpacked


def budgeted(plan: Plan, names: list[str], gpus: int, cores: int) -> str:
    """What some targets (none: everything) cost.

    Args:
        gpus: that are at hand; and ``cores`` for jobs without one.

    Raises:
        InputError: for an unknown target.
    """
    jobs, budget = plan.needed(names), Budget(plan)
    lines = [
        f"experiment {plan.config.experiment}: {', '.join(names) or 'everything'}, first attempts only",
        "Estimates, from the worst to the best rates of the configuration's `throughput`;",
        "of miniatures and stand-ins only the start of each job.",
        "",
        f"{'':20}{'jobs':>6}{'GPUs':>6}  {'GPU hours':18}{'core hours':18}measured (jobs, their plan)",
    ]
    for rule in unique(job.rule for job in jobs if not job.rule.startswith("fetch_")):
        of = [job for job in jobs if job.rule == rule]
        most = max(job.gpus for job in of)
        lines.append(
            f"  {rule:18}{len(of):6}{most:6}  {_hours(budget.gpu_hours(of)):18}{_hours(budget.core_hours(of)):18}"
            + _beside(plan, budget, of)
        )
    total = (budget.gpu_hours(jobs), budget.core_hours(jobs))
    lines.append(f"  {'in all':18}{len(jobs):6}{'':6}  {_hours(total[0]):18}{_hours(total[1]):18}")
    computing = [job for job in jobs if not job.rule.startswith("fetch_")]
    wall = budget.wall_hours(computing, gpus, cores)
    brought = sum(download(plan, job) for job in jobs)
    took = Range(brought * 1000, brought * 1000).over(budget.rates.download) * (1 / 3600)
    lines += ["", f"hours on {gpus} GPUs and {cores} cores: {_hours(wall)}, without waiting in a queue"]
    largest = max(jobs, key=budget.gpu_memory)
    if memory := budget.gpu_memory(largest):
        lines.append(f"memory of a GPU: {memory:.0f} GB and activations, at most ({largest.rule} {largest.name})")
    disk = sum(unpacked(plan, job) for job in jobs)
    lines.append(f"downloads: {brought:.3g} GB, {_hours(took)} hours; {disk:.3g} GB on disk")
    lines.append(f"results: {sum(result(plan, job) for job in jobs):.3g} GB")
    if checkpoint := max(map(budget.checkpoint, jobs)):
        lines.append(f"checkpoints: up to {checkpoint:.3g} GB more for each language model while it is tuned")
    lines += ["", f"{'each item alone':20}{'GPU hours':18}{'downloads, GB':16}results, GB"]
    for name in names or plan.targets():
        of = plan.needed([name])
        sizes = (sum(size(plan, job) for job in of) for size in (download, result))
        lines.append(
            "  " + f"{name:18}{_hours(budget.gpu_hours(of)):18}" + "".join(f"{x:<16.3g}" for x in sizes).rstrip()
        )
    return "\n".join(map(str.rstrip, lines))


def _hours(time: Range) -> str:
    return str(time) if time.high else "–"


def _beside(plan: Plan, budget: Budget, jobs: list[Job]) -> str:
    """Hours that those jobs took that have run, on their GPUs or else cores, and what was planned of them."""
    took = {job: seconds for job in jobs if (seconds := measured(plan, job)) is not None}
    if not took:
        return ""
    hours = sum(seconds * max(1, job.gpus) for job, seconds in took.items()) / 3600
    planned = Range()
    for job in took:
        planned += budget.seconds[job] * (max(1, job.gpus) / 3600)
    return f"{hours:.2g} ({len(took)}, {planned})"
