"""The check-up, for real on this machine."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.pipeline import ROOT

from prt.doctor import trials
from prt.doctor.check_up import Finding, _tried, versions
from prt.errors import InputError

Prt = Callable[..., tuple[int, str, str]]
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")


@no_gpu
def test_without_a_gpu(prt: Prt, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A line for each thing; the demo needs nothing that is not here, and a job of an experiment on GPUs does."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("PATH", str(tmp_path))  # no SLURM
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    config = ROOT / "config" / "demo.yaml"
    code, said, complaint = prt("doctor", "--configfile", config)
    assert (code, complaint) == (0, "")
    lines = {line[:14].strip(): line[14:] for line in said.splitlines()}
    assert list(lines) == "versions,CUDA,bf16,two processes,streams,decoding,sandbox,disk,hub,SLURM".split(",")
    for name in ("versions", "sandbox", "disk", "hub"):
        assert lines[name].startswith("ok "), lines[name]
    for name in ("CUDA", "bf16", "two processes", "streams", "decoding", "SLURM"):
        assert lines[name].startswith("not checked"), lines[name]
    assert "works on the CPU, over Gloo" in lines["two processes"]
    assert "a static cache works on the CPU" in lines["decoding"]

    monkeypatch.setattr(trials, "two_processes", trials.streams)  # which cost time, and were tried above
    (tmp_path / "sinfo").write_text("#!/bin/sh\necho gpu 1 gpu:a100:2\n")
    (tmp_path / "sinfo").chmod(0o755)
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    code, said, complaint = prt("doctor", "--configfile", ROOT / "config" / "paper.yaml")
    assert code == 1
    lacking = "CUDA, bf16, two processes, streams, decoding, hub"
    assert complaint == (
        f"prt: error: this machine lacks what the experiment needs ({lacking}); see the lines above.\n"
    )
    assert re.search(r"^hub +missing +the .* is to be fetched, but the hub is out of reach \(ConnectError", said, re.M)
    assert "gpu 1 gpu:a100:2" in said


def test_what_goes_wrong_is_a_line() -> None:
    def broken() -> str:
        raise RuntimeError("CUDA error: no kernel image\nis available")

    found = _tried("CUDA", broken, True)
    assert found == Finding("CUDA", False, "RuntimeError: CUDA error: no kernel image", True)
    assert str(found) == "CUDA          missing     RuntimeError: CUDA error: no kernel image"


def test_packages_of_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    assert versions().startswith("Python 3.")
    monkeypatch.setattr(
        "prt.doctor.check_up.requires", lambda _: ["torch==1.0", "nothing-such>=2", "pytest<1; extra == 'test'"]
    )
    with pytest.raises(InputError, match=r"^torch 2\S+ \(not ==1.0\), nothing-such none \(not >=2\); install again"):
        versions()


def test_a_process_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "PATIENCE", 0.01)
    with pytest.raises(InputError, match=r"two processes did not end within 0.01 s \(gloo\)"):
        trials.two_processes()
