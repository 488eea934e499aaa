"""The rehearsal, for real: a slice of the paper's own jobs, from fetching on; the tests of the halves do the rest."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers.pipeline import ROOT, snakemake

from prt.plan import Plan
from prt.plan.jobs import RULES

Config = dict[str, Any]
TOP = "results/rehearsal"
SLICE = [  # what a stand-in of each kind is read by first
    f"{TOP}/vision/zero_shot/caltech101/rn50-openai",
    f"{TOP}/vision/merged/caltech101/vit-b-16-laion400m/vit-b-16-laion2b",
    f"{TOP}/language/evaluated/llama-3.2-1b/humaneval/pretrained",
    f"{TOP}/language/data/manifest.json",
]
# Only where a ledger stops the run: test_a_ledger_that_differs_stops_the_run.
ELSEWHERE = {"approve_zero_shot"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the paper's configuration and, in it, the rehearsal's."""
    folder = tmp_path_factory.mktemp("rehearsal")
    shutil.copytree(ROOT / "config", folder / "config")
    return folder


def run(folder: Path, *arguments: str) -> tuple[int, str]:
    files = ["--configfile", "config/paper.yaml", "config/rehearsal.yaml", "--config", "device=cpu"]
    done = snakemake(folder, *files, *arguments)
    return done.returncode, done.stdout


def test_a_slice_runs(folder: Path) -> None:
    code, said = run(folder, "--show-failed-logs", *SLICE)
    assert code == 0, said[-5000:]
    assert all((folder / made).exists() for made in SLICE)
    code, said = run(folder, "--dry-run", *SLICE)
    assert "Nothing to be done" in said


def test_no_rule_is_missed(small: Config, spoken: Config) -> None:
    """What the tests of this folder run, the slice and both halves, has jobs of every rule."""
    rehearsal = Plan.read([ROOT / "config" / name for name in ("paper.yaml", "rehearsal.yaml")])
    jobs = [*rehearsal.jobs.needed(SLICE), *Plan.of(small).needed([]), *Plan.of(spoken).needed([])]
    assert {job.rule for job in jobs} | ELSEWHERE == set(RULES)
