"""The plan as text: what an experiment, or some of its items, consists of."""

from collections import Counter
from collections.abc import Iterable

from prt.methods import METHODS
from prt.plan import Plan
from prt.plan.jobs import Job, unique


def printed(plan: Plan, names: list[str], every_job: bool = False) -> str:
    """Runs, cells and jobs of some targets (none: of everything), and what each item needs.

    Args:
        every_job: list each job, too.

    Raises:
        InputError: for an unknown target.
    """
    jobs = plan.needed(names)
    lines = [f"experiment {plan.config.experiment}: {', '.join(names) or 'everything'}", ""]
    lines += _runs_and_cells(plan, {file for job in jobs for file in job.makes})
    counts = Counter(job.rule for job in jobs)
    lines += ["", f"jobs ({len(jobs)})"]
    lines += [f"  {rule:20}{count:5}{_gpus(jobs, rule)}" for rule, count in counts.items()]
    lines += ["", "what each item needs"]
    for name in names or plan.targets():
        of = plan.counts([name])
        lines.append(f"  {name:16}" + ", ".join(f"{count} {rule}" for rule, count in of.items()))
    if every_job:
        lines += ["", "every job, as `prt run RULE JOB` takes it", *(f"  {job.rule} {job.name}" for job in jobs)]
    return "\n".join(lines)


def _gpus(jobs: list[Job], rule: str) -> str:
    most = max(job.gpus for job in jobs if job.rule == rule)
    return f"   on {most} GPU{'s' if most > 1 else ''}" + (" at most" if most > 1 else "") if most else ""


def _runs_and_cells(plan: Plan, made: set[str]) -> list[str]:
    """The runs and cells of each half, those alone whose job is among what is made."""
    lines = []
    if (vision := plan.vision) is not None:
        runs = [
            run
            for dataset in vision.prepared
            for run in vision.runs(dataset)
            if vision.made("tuned", vision.path(run)) in made
        ]
        parts = [part for part in vision.parts() if part.startswith("test/") and vision.table(part, "transfer") in made]
        cells = [cell for part in parts for cell in vision.cells(part.partition("/")[2])]
        lines.append(f"vision: {len(runs)} runs, {len(cells)} cells")
        lines += _listed(f"{run.dataset} {run.model} {run.name} {run.shots}" for run in runs)
    if (language := plan.language) is not None:
        tuned = [run for run in language.runs() if language.made(run) in made]
        measured = [cells for path, cells in language.evaluations.items() if language.evaluated(path) in made]
        lines.append(f"language: {len(tuned)} runs, {len(measured)} cells")
        lines += _listed(f"{run.model} {run.name}" for run in tuned)
        texts = unique((c.source, c.target) for c, *_ in measured if METHODS[c.method].of_texts)
        lines += [f"  {source} on {target}: as text, with three networks" for source, target in texts]
    return lines


def _listed(runs: Iterable[str]) -> list[str]:
    """Each run once, with the number of its seeds."""
    return [f"  {name}" + (f"  × {seeds} seeds" if seeds > 1 else "") for name, seeds in Counter(runs).items()]
