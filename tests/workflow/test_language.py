"""The language half of the DAG, for real, on a smaller copy of the demo."""

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from helpers.pipeline import snakemake

from prt.tables import COMPARISON, SUMMARY, TRANSFER

Config = dict[str, Any]


@pytest.fixture
def planned(finished_language: Path, spoken: Config, tmp_path: Path) -> Callable[..., dict[str, list[str]]]:
    """The jobs, rule → wildcards, that a changed configuration would run again."""

    def plan(change: Callable[[Config], object] = lambda _: None, *targets: str) -> dict[str, list[str]]:
        folder = Path(shutil.copytree(finished_language, tmp_path / "copy", dirs_exist_ok=True))
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
                found[rule].append(line.removeprefix("wildcards: job="))
        return found

    return plan


def test_everything_is_made(finished_language: Path) -> None:
    top = finished_language / "results" / "demo"
    transfer = pd.read_csv(top / "language" / "transfer.csv")
    for name, columns in (("transfer", TRANSFER), ("summary", SUMMARY), ("comparison", COMPARISON)):
        assert list(pd.read_csv(top / "language" / f"{name}.csv").columns) == columns
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


def test_nothing_is_left(finished_language: Path, planned: Callable[..., dict[str, list[str]]]) -> None:
    assert planned() == {}
    assert not list((finished_language / "results" / "demo" / "language" / "checkpoints").iterdir())
    assert not list(finished_language.rglob(".*.part*"))


def test_editing_one_benchmark_keeps_what_was_tuned(planned: Callable[..., dict[str, list[str]]]) -> None:
    plan = planned(lambda v: v["benchmarks"]["instructions"].update(limit=3))
    assert set(plan["evaluate"]) == {"s-poor", "m-rich"}
    assert not {"tune_language", "pretrain_language", "write_text", "next_tokens"} & set(plan)


def test_editing_the_tuning_keeps_what_was_pretrained(planned: Callable[..., dict[str, list[str]]]) -> None:
    plan = planned(lambda v: v["lora"]["recipe"].update(lr=1e-4))
    assert plan["tune_language"] == ["s-poor"]  # the only one that is tuned by LoRA
    assert "pretrain_language" not in plan


def test_items_and_benchmarks_are_targets(spoken: Config, write: Callable[[Config], Path]) -> None:
    folder = write(spoken)
    for target in ("figure3", "figure5", "table3", "problems"):
        done = snakemake(folder, "--dry-run", target)
        assert done.returncode == 0, done.stdout
        assert ("measure_decoding" in done.stdout) == (target == "table3")
        assert ("next_tokens" in done.stdout) == (target == "figure5")
        assert "tune_language" in done.stdout


def test_few_and_many_jobs_give_the_same_bytes(finished_language: Path, spoken: Config, tmp_path: Path) -> None:
    """A job for each run and cell, on the models of the jobs that took all of a model or target."""
    folder = Path(shutil.copytree(finished_language, tmp_path / "copy"))
    top = folder / "results" / "demo" / "language"
    for made in ("tuned", "evaluated"):
        shutil.rmtree(top / made)
    (folder / "config.yaml").write_text(yaml.safe_dump(spoken | {"jobs": "many"}))
    cell = "m-rich/problems/prt-of-s-poor-prt_0-seed0"
    done = snakemake(folder, f"results/demo/language/evaluated/{cell}", "--show-failed-logs")
    assert done.returncode == 0, done.stdout[-5000:]
    assert [run.name for run in (top / "tuned" / "s-poor").iterdir()] == ["prt_0"]
    assert [one.name for one in (top / "evaluated" / "m-rich" / "problems").iterdir()] == [Path(cell).name]
    few = finished_language / "results" / "demo" / "language"
    for file in (f"evaluated/{cell}/samples.jsonl", f"evaluated/{cell}/result.json", "tuned/s-poor/prt_0/0/curve.csv"):
        assert (top / file).read_bytes() == (few / file).read_bytes(), file
    weights = "tuned/s-poor/prt_0/0/model.safetensors"
    assert (top / weights).read_bytes() == (few / weights).read_bytes()


def test_neither_half(write: Callable[[Config], Path]) -> None:
    done = snakemake(write({"experiment": "none"}), "--dry-run")
    assert done.returncode == 1
    assert "the configuration has neither 'vision' nor 'language'" in done.stdout
