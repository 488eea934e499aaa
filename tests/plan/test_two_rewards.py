"""Two rewards of language on a target at once: jobs of their own, which leave all others as they are."""

import copy
from typing import Any

import pytest
import yaml
from helpers.pipeline import ROOT

from prt.plan import Plan
from prt.plan.ahead import runs_code
from prt.plan.budget import Budget
from prt.plan.printed import printed

CONFIG = yaml.safe_load((ROOT / "config" / "portability.yaml").read_text())
TOP = "results/portability/language"


def plan(jobs: str = "few", **together: Any) -> Plan:
    config = copy.deepcopy(CONFIG) | {"jobs": jobs}
    config["language"]["together"] |= together
    return Plan.of(config)


@pytest.mark.parametrize("jobs", ["few", "many"])
def test_all_that_is_drawn_is_measured_once(jobs: str) -> None:
    """The target alone needs no seed, one reward not the other; each reward is tuned on its own chats."""
    of = plan(jobs)
    assert of.language is not None
    points = of.language.points
    assert len(points) == 2 * (1 + 8 * 2)  # benchmarks × (alone + pairs × seeds)
    assert {cell.strength for cells in points.values() for cell in cells} == {None, 0.5, 1.0}
    alone = points["m-rich@both/problems/pretrained"]
    assert [cell.method for cell in alone] == ["pretrained"]
    single = points["m-rich@both/problems/prt-of-s-poor-problems-1-seed1"]
    assert [(cell.variant, cell.strength, cell.seed) for cell in single] == [("problems", 1.0, 1)]
    needs = set(of.items["together_language"].needs)
    assert needs == {of.language.evaluated(path) for path in points} <= of.jobs.makers.keys()
    name = "problems" if jobs == "few" else "problems/prt_0-problems/1"
    tuned = of.jobs.get("tune_language", f"s-poor@{name}")
    assert f"{TOP}/data-problems/manifest.json" in tuned.needs
    assert f"{TOP}/data/manifest.json" not in tuned.needs
    assert of.counts(["together_language"])["tune_language"] == (2 if jobs == "few" else 2 * 2)
    assert not needs & set(of.items["figure3"].needs) and of.jobs.get("draw", "together_language")
    assert of.jobs.get("prepare_chats", "data-problems").needs == (f"{TOP}/chats/problems.jsonl",)


def test_other_jobs_stay_as_they_are() -> None:
    """So that what is there already is not made again where the item is added, taken out or changed."""
    config = copy.deepcopy(CONFIG)
    del config["language"]["together"]

    def facts(of: Plan) -> dict[Any, Any]:
        return {key: (job.needs, job.makes, job.fingerprint) for key, job in of.jobs.by_name.items()}

    without, with_it = facts(Plan.of(config)), facts(plan())
    changed = {key for key, fact in with_it.items() if without.get(key) != fact}
    mine = {("evaluate", "m-rich@both"), ("draw", "together_language")}
    mine |= {(rule, f"{to}{name}") for name in ("problems", "instructions")
             for rule, to in (("prepare_chats", "data-"), ("tune_language", "s-poor@"))}  # fmt: skip
    assert changed == mine
    other = facts(plan(strengths=[0, 1]))
    assert {key for key in with_it if other[key] != with_it[key]} == {
        ("evaluate", "m-rich@both"),
        ("draw", "together_language"),
    }


def test_sums_of_large_models() -> None:
    """Two rewards are two models more; what they are tuned on is reckoned by itself."""
    config = yaml.safe_load((ROOT / "config" / "paper.yaml").read_text())
    source, target = "qwen2.5-0.5b", "qwen2.5-7b"
    config["language"]["together"] = {
        "chats": {"math": "huggingface:a/math", "code": "huggingface:a/code"}, "source": source, "targets": [target],
        "benchmarks": ["gsm8k", "humaneval"], "strengths": [0, 1],
    }  # fmt: skip
    of = Plan.of(config)
    assert {"a--math", "a--code"} <= {job.name.removeprefix("huggingface--") for job in of.jobs.of("fetch_chats")}
    job, alone = (
        of.jobs.get("evaluate", f"{target}@both/humaneval/{name}")
        for name in (f"prt-of-{source}-math-1-code-1-seed0", "pretrained")
    )
    parameters = {name: config["language"]["models"][name]["parameters"] for name in (source, target)}
    assert job.billions == pytest.approx(parameters[target] + 2 * parameters[source])
    assert alone.billions == parameters[target]
    assert runs_code(of, [job]) and not runs_code(of, [j for j in of.jobs.of("evaluate") if "/gsm8k/" in j.name])
    budget = Budget(of)
    assert budget.seconds[job].high > budget.seconds[alone].high
    tuned = of.jobs.get("tune_language", f"{source}@math/prt_0-math/0")
    assert budget.seconds[tuned].high > 0
    assert f"  {source} prt_0-math" in printed(of, ["together_language"]).splitlines()
