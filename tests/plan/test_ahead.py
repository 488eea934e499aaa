"""What is refused before the first job runs."""

from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from helpers.hub import Server, hub, server
from helpers.pipeline import ROOT

from prt.errors import InputError, last_words
from prt.machine import cpu_has_bf16
from prt.plan import Plan
from prt.plan.ahead import check, slow_precision
from prt.plan.jobs import Job

__all__ = ["hub", "server"]  # fixtures
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")


@pytest.fixture(autouse=True)
def large_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """One on which the paper's results and downloads find room, wherever the tests run."""
    monkeypatch.setattr("prt.plan.ahead.free_bytes", lambda _: 10**13)


def paper(**changes: Any) -> Plan:
    return Plan.of(yaml.safe_load((ROOT / "config" / "paper.yaml").read_text()) | changes)


def asked(plan: Plan, *rules: str) -> dict[Job, Any]:
    """Jobs of some rules, with what Snakemake would say of them."""
    jobs = [job for job in plan.jobs.by_name.values() if job.rule in rules]
    return {job: SimpleNamespace(output=job.makes, resources={"gpu": job.gpus, "device": job.device}) for job in jobs}


@no_gpu
def test_no_gpu_for_jobs_that_want_one() -> None:
    for rules, sentence in {
        (
            "prepare",
            "tune",
        ): r"^jobs of 'tune' want 1 GPU, and this machine has none that torch can use: run on",
        ("tune", "tune_language"): r"^jobs of 'tune_language' want 8 GPUs, and this machine has none .*device=cpu\.$",
    }.items():
        plan = paper()
        with pytest.raises(InputError, match=sentence):
            check(plan, asked(plan, *rules).values(), "local")
        check(plan, asked(plan, *rules).values(), "touch")  # which runs nothing
    on_purpose = paper(device="cpu")
    check(on_purpose, asked(on_purpose, "tune", "tune_language").values(), "local")


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")
def test_no_vllm_where_it_is_to_measure() -> None:
    language = yaml.safe_load((ROOT / "config" / "paper.yaml").read_text())["language"] | {"engine": "vllm"}
    plan = paper(device="cpu", language=language)
    jobs = [of for job, of in asked(plan, "evaluate").items() if "gsm8k" in job.name]  # which runs no code
    with pytest.raises(InputError, match=r"^vLLM cannot be imported .* install vLLM 0\.32 or newer"):
        check(plan, jobs, "local")
    check(plan, asked(plan, "tune_language").values(), "local")


def test_no_sandbox_for_benchmarks_that_run_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plan = paper(device="cpu")
    jobs = asked(plan, "evaluate")
    check(plan, jobs.values(), "local")
    monkeypatch.setattr("prt.sandbox.programs._folders", lambda: [str(tmp_path / "missing")])
    with pytest.raises(InputError, match=r"^this machine allows no sandbox for a model's programs"):
        check(plan, jobs.values(), "local")
    check(plan, [of for job, of in jobs.items() if "humaneval" not in job.name and "mbpp" not in job.name], "local")
    check(plan, asked(plan, "next_tokens").values(), "local")
    content = yaml.safe_load((ROOT / "config" / "paper.yaml").read_text()) | {"device": "cpu"}
    content["language"]["next_tokens"]["figure5"]["benchmark"] = "humaneval"  # its question is read by what judges it
    plan = Plan.of(content)
    with pytest.raises(InputError, match=r"^this machine allows no sandbox for a model's programs"):
        check(plan, asked(plan, "next_tokens").values(), "local")


def test_what_is_gated_or_not_there(hub: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    config = yaml.safe_load((ROOT / "config" / "paper.yaml").read_text())
    del config["vision"]
    config["language"]["models"]["llama-2-7b"]["spec"] = "gated/llama"
    config["language"]["models"]["llama-2-7b"]["instruct"] = "gated/chat"
    plan = Plan.of(config)
    jobs = asked(plan, "fetch_model", "fetch_chats")
    for job in jobs:
        name = job.about.removeprefix("huggingface:")
        hub.repository(name, {}, "models" if job.rule == "fetch_model" else "datasets")
    pages = r"https://huggingface.co/gated/llama, https://huggingface.co/gated/chat, then"
    with pytest.raises(InputError, match=rf"^2 of what is to be fetched is gated: accept the licences at {pages}"):
        check(plan, jobs.values(), "local")
    Path("downloads/models/gated--llama").mkdir(parents=True)  # put there by hand: it is not asked for
    with pytest.raises(InputError, match=r"^1 of what is to be fetched is gated"):
        check(plan, jobs.values(), "local")
    del hub.files["/api/datasets/allenai/tulu-v2-sft-mixture/auth-check"]
    with pytest.raises(InputError, match=r"^the Hugging Face hub has no data set allenai/tulu-v2-sft-mixture"):
        check(plan, jobs.values(), "local")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(
        InputError, match=r"is to be fetched, but the hub is out of reach \(ConnectError.*snakemake fetch`"
    ):
        check(plan, jobs.values(), "local")


def test_half_precision_on_a_cpu_without_its_instructions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for text, expected in {
        "flags\t: fpu avx512f avx512_bf16\n": True,
        "flags\t: fpu avx2\n": False,
        "Features\t: fp bf16\n": True,
        "": None,
    }.items():
        (tmp_path / "cpuinfo").write_text(text)
        assert cpu_has_bf16(tmp_path / "cpuinfo") is expected
    assert cpu_has_bf16(tmp_path / "none") is None
    monkeypatch.setattr("prt.plan.ahead.cpu_has_bf16", lambda: False)
    plan = paper()
    jobs = asked(plan, "tune")
    assert slow_precision(plan, jobs) is None  # on GPUs
    for of in jobs.values():
        of.resources["device"] = "cpu"
    assert "jobs of 'tune' compute in bf16 on a CPU without instructions for it" in str(slow_precision(plan, jobs))
    fp32 = paper(device="cpu")
    assert slow_precision(fp32, asked(fp32, "tune", "evaluate")) is None


def test_last_words(tmp_path: Path) -> None:
    """A job's own sentence, or what a traceback comes to; nothing of a job that was killed or went well."""
    logs = {
        "own": "tune: 3 of 80\nprt: warning: w.\nprt: error: it is wrong; mend it.\n[rank0]: ended\n",
        "traceback": "Traceback (most recent call last):\n  File x\nKeyError: 'a'\n",
        "well": "prt: warning: w.\n",
    }
    for name, text in logs.items():
        (tmp_path / name).write_text(text)
    files = [str(tmp_path / name) for name in (*logs, "none")]
    assert last_words(files) == [f"it is wrong; mend it. ({files[0]})", f"KeyError: 'a' ({files[1]})"]
