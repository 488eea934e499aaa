"""The rehearsal is the paper's experiment in all but size."""

from typing import Any

import pytest
import yaml
from helpers.pipeline import ROOT

from prt.errors import InputError
from prt.plan import Plan
from prt.plan.ahead import repositories, to_fetch
from prt.plan.budget import MEASURING, Budget
from prt.plan.jobs import Job
from prt.plan.sizes import Range, result

PAPER, REHEARSAL = ROOT / "config" / "paper.yaml", ROOT / "config" / "rehearsal.yaml"


@pytest.fixture(scope="module")
def paper() -> Plan:
    return Plan.read([PAPER])


@pytest.fixture(scope="module")
def rehearsal() -> Plan:
    return Plan.read([PAPER, REHEARSAL])


def as_paper(path: str) -> str:
    """A path of the rehearsal as the paper's."""
    path = path.replace("results/rehearsal/", "results/paper/").replace("downloads/stand-ins/", "downloads/")
    return path.replace(".approved", ".csv") if "/ledger/" in path else path  # the rehearsal's ledger only warns


def edges(plan: Plan) -> dict[tuple[str, str], Any]:
    """Of each job: what it needs and makes, and what it asks of a machine."""

    def of(job: Job) -> Any:
        needs = sorted(set(map(as_paper, job.needs)))
        if job.rule in ("measure_training", "measure_inference"):  # here the networks are the stand-ins'
            needs = []
        return needs, sorted(map(as_paper, job.makes)), job.gpus, job.billions, job.minutes, job.cores, job.group

    return {key: of(job) for key, job in plan.jobs.by_name.items()}


def test_the_jobs_are_the_paper_s(paper: Plan, rehearsal: Plan) -> None:
    assert edges(rehearsal) == edges(paper)
    assert len(paper.jobs.by_name) > 900


def test_names_targets_and_items_are_the_paper_s(paper: Plan, rehearsal: Plan) -> None:
    assert rehearsal.targets().keys() == paper.targets().keys()
    assert rehearsal.items.keys() == paper.items.keys()
    counts = {rule: n for rule, n in paper.counts([]).items() if rule != "approve_zero_shot"}
    assert rehearsal.counts([]) == counts
    for ours, theirs in ((rehearsal.vision, paper.vision), (rehearsal.language, paper.language)):
        assert ours is not None and theirs is not None
        assert ours.config.seeds == theirs.config.seeds and ours.used == theirs.used
        assert ours.paper_names == theirs.paper_names
    assert rehearsal.vision and paper.vision and rehearsal.language and paper.language
    assert rehearsal.vision.config.panels == paper.vision.config.panels
    for dataset in paper.vision.prepared:
        assert rehearsal.vision.runs(dataset) == paper.vision.runs(dataset)
        assert rehearsal.vision.cells(dataset) == paper.vision.cells(dataset)
    assert rehearsal.language.runs() == paper.language.runs()
    assert rehearsal.language.rows() == paper.language.rows()


def test_only_sizes_differ(paper: Plan, rehearsal: Plan) -> None:
    """The file on top of the paper's sets no key but these."""

    def leaves(value: Any, path: str = "") -> set[str]:
        if not isinstance(value, dict):
            return {path.rpartition(".")[2]}
        return {leaf for key, below in value.items() for leaf in leaves(below, f"{path}.{key}")}

    sizes = {
        "steps",
        "warmup",
        "batch",
        "per_device_batch",
        "max_length",
        "lr",
        "rank",
        "every",
        "repeats",
        "validation",
    }
    sizes |= {"max_gen_toks", "prompt_tokens", "new_tokens"}
    found = leaves(yaml.safe_load(REHEARSAL.read_text()))
    assert found - sizes == {"experiment", "stand_ins", "beyond"}


def test_batches_can_be_made_on_all_gpus(paper: Plan, rehearsal: Plan) -> None:
    """Several passes an update even on eight GPUs, as the paper's have, so that their gradients are summed."""
    for plan in (paper, rehearsal):
        assert plan.language is not None
        gpus = {job.name: job.gpus for job in plan.jobs.of("tune_language")}
        for run in plan.language.runs():
            recipe = plan.language.recipe(run)
            at_once = recipe.per_device_batch * gpus[plan.language.path(run)]
            assert recipe.batch % at_once == 0 and recipe.batch // at_once > 1
    small = yaml.safe_load(PAPER.read_text())
    small["language"]["recipe"] |= {"batch": 4, "per_device_batch": 4}
    with pytest.raises(InputError, match="which cannot be made of 'per_device_batch' 4 on 8 GPUs"):
        Plan.of(small)
    assert Plan.of(small | {"device": "cpu"}).language  # one process


def test_nothing_is_downloaded(rehearsal: Plan, paper: Plan) -> None:
    """So neither the network nor the size of the paper's downloads and results is asked about before it starts."""
    jobs = rehearsal.needed([])
    assert not repositories(rehearsal, jobs) and not to_fetch(rehearsal, jobs)
    assert sum(result(rehearsal, job) for job in jobs) == 0.0 < sum(result(paper, job) for job in paper.needed([]))
    budget, measured = Budget(rehearsal), MEASURING.keys()
    assert {budget.seconds[job] for job in jobs if job.rule not in measured} == {
        Range(60, 60).over(budget.rates.starting)
    }
    assert {budget.gpu_memory(job) + budget.checkpoint(job) for job in jobs} == {0.0}
