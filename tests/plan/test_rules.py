"""What Snakemake's rules are told."""

from types import SimpleNamespace

import yaml
from helpers.pipeline import ROOT

from prt.plan import Plan
from prt.plan.rules import Rules
from prt.slurm import Most, in_minutes


def test_what_is_tried_again_gets_more_but_not_more_than_there_is() -> None:
    """SLURM refuses a job with more memory than its nodes have, and never starts one with more time."""
    told = Rules(Plan.of(yaml.safe_load((ROOT / "config" / "paper.yaml").read_text())))
    name = next(job.name for job in told.plan.jobs.of("tune_language") if job.gpus == 8)
    time, memory = told.time(1000), told.memory("tune_language", 16000, 7000)

    def attempts(threads: int) -> list[tuple[int, int]]:
        of = {"wildcards": SimpleNamespace(job=name), "threads": threads, "rulename": "tune_language"}
        return [(time(attempt=number, **of), memory(attempt=number, **of)) for number in (1, 2, 3)]

    free = attempts(8)
    (_, first), *_ = free
    assert free == [(1000, first), (2000, 2 * first), (3000, 3 * first)]
    told.limits = {("tune_language", 8): Most(1440.0, float(first))}
    assert attempts(8) == [(1000, first), (1440, first), (1440, first)]
    assert attempts(64) == free  # of another partition
    told.limits = {("tune_language", 8): Most(500.0, 10.0)}  # less than is wanted at first: SLURM says so
    assert attempts(8) == [(1000, first)] * 3


def test_time_limits_of_slurm() -> None:
    said = {"1-12:00:00": 2160, "2:00:00": 120, "30:00": 30, "0:30": 0.5, "infinite": float("inf")}
    assert {text: in_minutes(text) for text in said} == said
