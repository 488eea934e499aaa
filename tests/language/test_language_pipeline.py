"""The language half of the DAG, for real, on a smaller copy of the demo."""

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from conftest import snakemake

Config = dict[str, Any]


@pytest.fixture(scope="module")
def finished(spoken: Config, write: Callable[[Config], Path]) -> Path:
    """A folder in which the language half has run."""
    folder = write(spoken)
    done = snakemake(folder, "--show-failed-logs")
    assert done.returncode == 0, done.stdout[-5000:]
    return folder


@pytest.fixture
def planned(finished: Path, spoken: Config, tmp_path: Path) -> Callable[..., dict[str, list[str]]]:
    """The jobs, rule → wildcards, that a changed configuration would run again."""

    def plan(change: Callable[[Config], object] = lambda _: None, *targets: str) -> dict[str, list[str]]:
        folder = Path(shutil.copytree(finished, tmp_path / "copy", dirs_exist_ok=True))
        config = copy.deepcopy(spoken)
        change(config["language"])
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        done = snakemake(folder, "--dry-run", *targets)
        assert done.returncode == 0, done.stdout
        found: dict[str, list[str]] = {}
        rule = ""
        for line in map(str.strip, done.stdout.splitlines()):
            if line.startswith(("rule ", "localrule ")):
                rule = line.split()[1].rstrip(":")
                found.setdefault(rule, [])
            if line.startswith("wildcards:"):
                found[rule].append(line.removeprefix("wildcards: "))
        return found

    return plan


def test_everything_is_made(finished: Path) -> None:
    top = finished / "results" / "demo"
    transfer = pd.read_csv(top / "language" / "transfer.csv")
    assert set(transfer["dataset"]) == {"problems", "instructions"}
    assert transfer["value"].between(0, 1).all()
    plain = transfer[~transfer["lora"] & transfer["alpha"].fillna(0).eq(0)]
    methods = {"pretrained", "eft", "prt", "ft", "source_ft", "poe", "reward"}
    for _, cell in plain.groupby(["dataset", "source", "target"]):
        assert set(cell["method"]) == methods
        assert set(cell["seed"].dropna()) == {0}
    assert set(transfer[transfer["lora"]]["method"]) >= {"eft", "prt"}
    headlines = transfer[transfer["headline"]].groupby("dataset")["metric"].unique().map(list).to_dict()
    assert headlines == {"problems": ["exact_match/strict-match"], "instructions": ["mean"]}
    for name in ("figure3", "figure4", "figure5", "figure7", "table3", "table4", "table6"):
        for ending in ("pdf", "png", "csv"):
            assert (top / "figures" / f"{name}.{ending}").stat().st_size > 100
    speeds = pd.read_csv(top / "language" / "table3.csv")
    assert set(speeds["method"]) == {"pretrained", "eft", "prt", "prt_speculative"}
    assert set(speeds["weights"]) == {"tuned"}
    samples = list((top / "language" / "evaluated").rglob("samples.jsonl"))
    assert len(samples) == len(list((top / "language" / "evaluated").rglob("result.json"))) > 20


def test_nothing_is_left(finished: Path, planned: Callable[..., dict[str, list[str]]]) -> None:
    assert planned() == {}
    assert not list((finished / "results" / "demo" / "language" / "checkpoints").rglob("*.safetensors"))
    assert not list(finished.rglob("*.part"))


def test_editing_one_benchmark_reruns_only_its_own(planned: Callable[..., dict[str, list[str]]]) -> None:
    plan = planned(lambda v: v["benchmarks"]["instructions"].update(limit=3))
    assert {line.split(",")[0] for line in plan["evaluate"]} == {"benchmark=instructions"}
    assert set(plan["language_transfer"]) == {"part=instructions", "part=figure3", "part=figure4", "part=table4"}
    assert not {"tune_language", "pretrain_language", "write_text"} & set(plan)


def test_editing_the_tuning_keeps_what_was_pretrained(planned: Callable[..., dict[str, list[str]]]) -> None:
    plan = planned(lambda v: v["lora"]["recipe"].update(lr=1e-4))
    assert {line.split("tuning=")[1] for line in plan["tune_language"]} == {"ft-lora", "prt-lora_0"}
    assert "pretrain_language" not in plan


def test_a_paper_item_is_a_target(spoken: Config, write: Callable[[Config], Path]) -> None:
    folder = write(spoken)
    for target in ("figure3", "figure4", "figure5", "figure7", "table3", "table4", "table6"):
        done = snakemake(folder, "--dry-run", target)
        assert done.returncode == 0, done.stdout
        assert f"figures/{target}.png" in done.stdout
        assert ("measure_decoding" in done.stdout) == (target == "table3")
        assert "tune_language" in done.stdout


def test_a_benchmark_is_a_target(planned: Callable[..., dict[str, list[str]]]) -> None:
    plan = planned(lambda v: v.update(recipe=v["recipe"] | {"lr": 1e-4}), "problems")
    assert plan["language_transfer"] == ["part=problems"]


KEY = "of the configuration"
BAD = {
    "unknown benchmark 'gsm9k': did you mean 'gsm8k'?": lambda v: v["benchmarks"].update(gsm9k={}),
    "unknown benchmark of figure3 'problem': did you mean 'problems'?": lambda v: v["bars"]["figure3"].update(
        benchmarks=["problem"]
    ),
    "unknown language model 'm-rch': did you mean 'm-rich'?": lambda v: v["table4"].update(
        panels=[{"source": "s-poor", "targets": ["m-rch"]}]
    ),
    "with 'in_one_job' all runs have the same seeds; take those of table4 out": lambda v: v["table4"].update(seeds=[5]),
    "the language model 's-poor' is to be in /nowhere, where there is no config.json": lambda v: v["models"].update(
        {"s-poor": {"spec": "/nowhere", "parameters": 1}}
    ),
    "runs code that a model wrote, in a sandbox: set 'unsafe_code: true'": lambda v: v["benchmarks"].update(mbpp={}),
    "table6 compares rewards tuned by LoRA, but the configuration has no 'lora'": lambda v: v.pop("lora"),
    "a benchmark cannot be called 'figure3'": lambda v: v["benchmarks"].update(figure3={"task": "gsm8k"}),
    f"language.models.s-poor {KEY} needs either 'spec' and 'parameters'": lambda v: v["models"]["s-poor"].pop("size"),
    f"unknown key in language.recipe {KEY} 'epoch': did you mean 'epochs'?": lambda v: v["recipe"].update(epoch=1),
}


@pytest.mark.parametrize("sentence", BAD)
def test_bad_configurations(spoken: Config, write: Callable[[Config], Path], sentence: str) -> None:
    config = copy.deepcopy(spoken)
    BAD[sentence](config["language"])
    done = snakemake(write(config), "--dry-run")
    assert done.returncode == 1
    assert sentence in done.stdout
    assert "Traceback" not in done.stdout


def test_neither_half(write: Callable[[Config], Path]) -> None:
    done = snakemake(write({"experiment": "none"}), "--dry-run")
    assert done.returncode == 1
    assert "the configuration has neither 'vision' nor 'language'" in done.stdout
