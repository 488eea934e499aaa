"""A tuning job that is killed, in processes of its own: bitwise the weights, scores and curves of one never stopped."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from prt.atomic import read_tensors

# Two runs, with a checkpoint after every iteration, so that a kill at any moment leaves one behind it.
JOB = """
import sys, torch
from pathlib import Path
import prt.training
from helpers.vision import tuning
from prt.vision.prepared import read_manifest
from prt.vision.tune import tune

prt.training.CHECKPOINT_SECONDS = 0
backbone, dataset, head, out = map(Path, sys.argv[1:5])
workers = int(sys.argv[5])
recipe = {"lr": 1e-3, "batch": 8, "steps": 30, "warmup": 5, "augment": workers > 0}
runs = [tuning(out / seed, alpha=0.01, seed=int(seed), every=10, **recipe) for seed in "01"]
tune(str(backbone), runs, data=read_manifest(dataset), head=head, device=torch.device("cpu"), workers=workers)
"""


@pytest.fixture
def job(backbone: Path, dataset: Path, head: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    return [sys.executable, "-c", JOB, *map(str, (backbone, dataset, head))]


def weights(out: Path) -> dict[str, torch.Tensor]:
    found = {}
    for seed in ("0", "1"):
        for name in ("weights", "test", "validation"):
            tensors, _ = read_tensors(out / seed / f"{name}.safetensors", "file")
            found |= {f"{seed}/{name}/{key}": value for key, value in tensors.items()}
    return found


def kill_in_training(arguments: list[str], folder: Path, number: signal.Signals, delay: float) -> int:
    """Start, wait for a new checkpoint, wait ``delay`` seconds more, send a signal; the exit code."""
    before = {p: p.stat().st_mtime_ns for p in folder.glob("*.checkpoint")}
    process = subprocess.Popen(arguments, stderr=subprocess.DEVNULL)
    limit = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < limit:
        if {p: p.stat().st_mtime_ns for p in folder.glob("[!.]*.checkpoint") if p.exists()} != before:
            break
        time.sleep(0.01)
    time.sleep(delay)
    os.kill(process.pid, number)
    return process.wait()


def test_killed_at_random_moments(job: list[str], tmp_path: Path) -> None:
    """SIGKILL and SIGTERM, then again."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run([*job, whole, "0"], check=True, stderr=subprocess.DEVNULL)
    moments = random.Random(time.time_ns())
    for number, code in ((signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGKILL, -9)):
        delay = moments.uniform(0, 0.3)
        assert kill_in_training([*job, str(killed), "0"], killed, number, delay) in (code, 0, -number), (
            f"delay {delay}"
        )  # -15: while it scored
        # Nothing declared is ever half-written: where there is a manifest, the folder is whole.
        for manifest in killed.rglob("manifest.json"):
            assert {"weights.safetensors", "test.safetensors"} <= {p.name for p in manifest.parent.iterdir()}
    subprocess.run([*job, killed, "0"], check=True, stderr=subprocess.DEVNULL)
    ours, theirs = weights(whole), weights(killed)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    for seed in ("0", "1"):
        curves = [(folder / seed / "curve.csv").read_text() for folder in (whole, killed)]
        assert curves[0] == curves[1]
        assert len(curves[0].splitlines()) == 5
    assert sorted(p.name for p in killed.iterdir()) == ["0", "1"]  # no checkpoint, nothing half-written
    assert not list(killed.rglob(".*.part*"))


def test_a_signal_to_all_processes(job: list[str], tmp_path: Path) -> None:
    """A cluster signals the workers, too: the run still writes its checkpoint, and goes on to the same weights."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run([*job, whole, "2"], check=True, stderr=subprocess.DEVNULL)
    process = subprocess.Popen([*job, killed, "2"], stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not list(killed.glob("[!.]*.checkpoint")) and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGTERM)
    _, complaint = process.communicate()
    assert process.returncode == 143
    assert "SIGTERM came; it ends when the iteration under way is done and saved" in complaint
    assert "stopped by a signal" in complaint
    assert "Traceback" not in complaint
    subprocess.run([*job, killed, "2"], check=True, stderr=subprocess.DEVNULL)
    ours, theirs = weights(whole), weights(killed)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
