"""What an experiment costs, and what is refused for want of disk."""

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import open_clip
import pytest
import torch
import yaml
from helpers.pipeline import ROOT
from torch.utils.flop_counter import FlopCounterMode

from prt.errors import InputError
from prt.plan import Plan
from prt.plan.ahead import check_disk
from prt.plan.budget import Budget, measured
from prt.plan.checks import checked
from prt.plan.sizes import Range, download, facts

Prt = Callable[..., tuple[int, str, str]]
PAPER = ROOT / "config" / "paper.yaml"


def paper(**changes: Any) -> Plan:
    return Plan.of(yaml.safe_load(PAPER.read_text()) | changes)


def test_ranges() -> None:
    """Work over a rate: the least of it at the best rate, and the most at the worst; two digits are shown."""
    assert Range(10, 20).over((2, 5)) == Range(2, 10)
    assert str(Range(1234, 98765)) == "1,200–99,000"
    assert str(Range(0.5, 0.5)) == "0.5"


@pytest.mark.parametrize("name", ["RN50", "ViT-B-16"])
def test_facts_of_architectures(name: str) -> None:
    clip: Any = open_clip.create_model(name, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        clip.visual.eval()(torch.zeros(1, 3, 224, 224, device="meta"))
    found = {
        part: sum(p.numel() for p in of.parameters()) / 1e6 for part, of in (("clip", clip), ("tower", clip.visual))
    }
    assert facts()["architectures"][name] == pytest.approx(found | {"gflop": counter.get_total_flops() / 1e9}, rel=0.01)


def test_facts_cover_the_paper() -> None:
    plan = paper()
    assert plan.vision is not None and plan.language is not None
    specs = {str(of.spec).partition("/")[0].removesuffix("-quickgelu") for of in plan.vision.config.backbones.values()}
    assert specs == facts()["architectures"].keys()
    assert set(plan.vision.datasets) == facts()["datasets"].keys()
    assert set(plan.language.config.benchmarks) == facts()["benchmarks"].keys()
    gigabytes = {job.name: download(plan, job) for job in plan.jobs.by_name.values() if job.rule.startswith("fetch_")}
    assert min(gigabytes.values()) > 0
    assert gigabytes["paper--country211"] == 10
    assert gigabytes["meta-llama--Llama-2-7b-hf"] == gigabytes["meta-llama--Llama-2-7b-chat-hf"] == 2 * 6.7


def test_work_is_counted() -> None:
    """By hand: a 7B reward sees 150 to 300 million tokens twice, with a frozen network and checkpointed gradients."""
    exact = {"tuning": [100, 100], "images": [100, 100], "starting": [60, 60], "pictures": [1e9, 1e9]}
    plan = paper(throughput=exact)
    budget = Budget(plan)
    reward = plan.jobs.get("tune_language", "llama-2-7b/prt_0/0")
    hours = 2 * 150e6 * (3 + 1 + 1) * 2 * 6.7e9 / 100e12 / 3600
    found = budget.gpu_hours([reward])
    assert (found.low, found.high) == pytest.approx((hours, 2 * hours), rel=0.01)
    tuned = plan.jobs.get("tune", "cifar100/vit-l-14-openai/ft/full/0")
    seconds = (3 * 2000 * 128 + 10_000 + 5_000) * 162e9 / 100e12
    assert budget.seconds[tuned].low == pytest.approx(1 + seconds, rel=0.01)
    alone, eft = (
        budget.seconds[plan.jobs.get("evaluate", f"llama-2-13b/gsm8k/{name}")]
        for name in ("pretrained", "eft-of-llama-2-7b-ft-seed0")
    )
    assert 1.8 * alone.low < eft.low < 3 * alone.low  # 13 and 2 · 6.7 billions of parameters to 13
    config = yaml.safe_load(PAPER.read_text()) | {"throughput": exact}
    config["language"]["models"]["llama-2-13b"]["tokenizer"] = "another"
    del config["language"]["table3"]  # shows no such target
    other = Plan.of(config)
    text = Budget(other).seconds[other.jobs.get("evaluate", "llama-2-13b/gsm8k/eft-text-of-llama-2-7b-ft-seed0")]
    assert text.low > 10 * eft.low  # one prompt at a time
    jobs = plan.needed([])
    one, many = (budget.wall_hours(jobs, gpus, 8) for gpus in (1, 10_000))
    assert one.low >= budget.gpu_hours(jobs).low
    assert budget.seconds[reward].low / 3600 < many.low < one.low / 20


def test_what_a_user_corrects() -> None:
    for rate in ([1], [2, 1], [0, 1], "fast"):
        with pytest.raises(InputError, match=r"^throughput.tuning of the configuration must be \[lowest, highest\]"):
            checked(yaml.safe_load(PAPER.read_text()) | {"throughput": {"tuning": rate}})
    slow, fast = (Budget(paper(throughput={"tuning": [r, r]})) for r in (10, 100))
    job = slow.plan.jobs.get("tune_language", "llama-2-7b/prt_0/0")
    assert slow.seconds[job].low > 9 * fast.seconds[fast.plan.jobs.get(job.rule, job.name)].low


def test_the_command_and_what_was_measured(prt: Prt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "results/paper/benchmarks/tune_language/llama-2-7b/prt_0/0.tsv"
    file.parent.mkdir(parents=True)
    file.write_text("s\th:m:s\tmax_rss\n7200.0\t2:00:00\t100\n")
    plan = paper()
    assert measured(plan, plan.jobs.get("tune_language", "llama-2-7b/prt_0/0")) == 7200
    assert measured(plan, plan.jobs.get("tune_language", "llama-2-7b/ft/0")) is None
    code, said, _ = prt("budget", "--configfile", PAPER, "figure3", "--gpus", 16)
    assert code == 0
    assert re.search(
        r"^  tune_language +8 +8  [\d,]+–[\d,]+ +– +16 \(1, \d+–\d+\)$", said, re.MULTILINE
    )  # 2 h on 8 GPUs
    assert re.search(r"^hours on 16 GPUs and 8 cores: [\d.]+–[\d.]+, without", said, re.MULTILINE)
    assert re.search(r"^downloads: 3\d\d GB, ", said, re.MULTILINE)
    assert re.search(r"^memory of a GPU: 53 GB .*\(evaluate llama-2-13b/", said, re.MULTILINE)


def test_too_little_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What is to be fetched is printed, and refused at once where it cannot fit; what is on one disk is added up."""
    monkeypatch.chdir(tmp_path)
    plan = paper()
    jobs = [job for job in plan.jobs.by_name.values() if job.rule in ("fetch_model", "fetch_dataset", "prepare")]
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1e12))
    check_disk(plan, jobs)
    said = capsys.readouterr().err
    assert re.search(r"^  29.60 GB  model Qwen--Qwen2.5-14B\n", said, re.MULTILINE)
    assert re.search(r"^  10.00 GB  dataset paper--country211\n", said, re.MULTILINE)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1e11))
    with pytest.raises(
        InputError, match=r"^what is to be made takes about \d+ GB in results and 3\d\d GB in downloads, and"
    ):
        check_disk(plan, jobs)
    check_disk(plan, [job for job in jobs if job.rule == "prepare"])
    assert "to be fetched" not in capsys.readouterr().err.rpartition("in all")[2]
