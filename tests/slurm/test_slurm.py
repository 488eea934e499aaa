"""The pipeline on a real SLURM, through the profile as users start it: ``snakemake --profile slurm``."""

import copy
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from helpers.cluster import NODE, Cluster, wait_for
from helpers.pipeline import ROOT

Config = dict[str, Any]
Start, Finish = Callable[..., subprocess.Popen[str]], Callable[..., tuple[int, str]]


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A SLURM that runs while these tests do."""
    made = Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        made.start()
        yield made
    except RuntimeError as error:
        pytest.fail(str(error), pytrace=False)
    finally:
        made.stop()


@pytest.fixture(scope="session")
def tiny(small: Config) -> Config:
    """One data set, and a job for each seed, as on any cluster."""
    config = copy.deepcopy(small)
    del config["vision"]["datasets"]["mnist"], config["vision"]["figure12"]
    return config | {"jobs": "many"}


def path() -> dict[str, str]:
    """The search path on which this environment's programs come first."""
    return {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin"}


@pytest.fixture
def start(cluster: Cluster) -> Iterator[Start]:
    """Start Snakemake with the profile on ``folder/config.yaml``; what it says is in ``folder/said``."""
    started = []

    def made(folder: Path, *arguments: str) -> subprocess.Popen[str]:
        # The profile but for two jobs at once, as there are two cores, and less patience between two looks.
        command = [sys.executable, str(ROOT / "tests" / "helpers" / "impatient.py"), "--profile", "slurm"]
        command += ["--directory", str(folder), "--configfile", str(folder / "config.yaml"), "--jobs", "2"]
        command += ["--slurm-init-seconds-before-status-checks", "1", "--max-status-checks-per-second", "10"]
        command += ["--slurm-logdir", str(folder / "results" / "slurm"), *arguments]
        environment = cluster.environment | path()
        with (folder / "said").open("w") as said:
            started.append(
                subprocess.Popen(
                    command, cwd=ROOT, env=environment, stdout=said, stderr=said, text=True, start_new_session=True
                )
            )
        return started[-1]

    yield made
    for snakemake in started:
        if snakemake.poll() is None:  # the test failed half-way
            os.killpg(snakemake.pid, signal.SIGKILL)
            cluster.run("scancel", "--user=root")


@pytest.fixture
def finish(start: Start) -> Finish:
    """Run it to its end: exit code and what it said."""

    def made(folder: Path, *arguments: str) -> tuple[int, str]:
        code = start(folder, *arguments).wait()
        return code, (folder / "said").read_text()

    return made


def job(cluster: Cluster, name: str, state: str = "RUNNING", but: str = "") -> tuple[str, str]:
    """Wait for a job in a state whose rule is so called, but for one: SLURM's number for it, and its full name."""
    found: list[tuple[str, str]] = []

    def there() -> list[tuple[str, str]]:
        lines = cluster.run("squeue", "--noheader", "--states=all", "--format=%i %T %k").splitlines()
        for number, now, rule in map(str.split, lines):
            if now == state and rule.startswith(name) and number != but:
                found.append((number, rule))
        return found

    wait_for(there, f"a job {name} is {state}", 120)
    return found[0]


def ended(cluster: Cluster) -> pd.DataFrame:
    """All jobs that the accounting knows."""
    columns = ["JobID", "State", "Partition", "TimelimitRaw", "ReqMem", "AllocTRES", "Comment"]
    lines = cluster.run("sacct", "-X", "--noheader", "--parsable2", f"--format={','.join(columns)}").splitlines()
    return pd.DataFrame([line.split("|") for line in lines], columns=columns).set_index("JobID")


def processes(cluster: Cluster, number: str) -> dict[int, str]:
    """The processes of a job and their names; none where it has just begun or ended."""

    def program(process: int) -> str:
        try:
            return Path(f"/proc/{process}/comm").read_text().strip()
        except FileNotFoundError:
            return ""

    lines = cluster.answer("scontrol", "listpids", number, NODE).splitlines()[1:]
    return {one: program(one) for one in (int(line.split()[0]) for line in lines)}


def commands(cluster: Cluster, number: str) -> list[int]:
    """Those that do its work."""
    return [one for one, program in processes(cluster, number).items() if program == "prt"]


def all_work(cluster: Cluster) -> bool:
    """Whether every job is at its work: a step that is just being made may wait for minutes on a lost controller."""
    jobs = cluster.run("squeue", "--noheader", "--format=%i").split()
    return bool(jobs) and all(commands(cluster, number) for number in jobs)


def test_whatever_happens_the_tables_are_those_of_a_local_run(
    cluster: Cluster, start: Start, finish: Finish, finished: Path, tiny: Config, write: Callable[[Config], Path]
) -> None:
    """Jobs that hang, are cancelled or lost, and a job for each seed instead of one for all, change no number."""
    folder = write(tiny)
    snakemake = start(folder)

    hung, hung_name = job(cluster, "rule_pretrain")
    wait_for(lambda: commands(cluster, hung), "the job to hang has begun")
    os.kill(commands(cluster, hung)[0], signal.SIGSTOP)
    # Not now: SLURM takes no end in the very second of the beginning.
    cluster.run("scontrol", "update", f"JobId={hung}", "EndTime=now+2")

    cancelled, cancelled_name = job(cluster, "rule_", but=hung)
    cluster.run("scontrol", "update", f"NodeName={NODE}", "State=DRAIN", "Reason=tests")
    cluster.run("scancel", cancelled)
    waiting, _ = job(cluster, cancelled_name, "PENDING")
    assert cluster.run("sinfo", "--noheader", "--partition=cpu", "--format=%t") in ("drng", "drain")
    cluster.run("scontrol", "update", f"NodeName={NODE}", "State=RESUME")

    job(cluster, hung_name, but=hung)  # tried again, as SLURM has ended the first
    wait_for(lambda: all_work(cluster), "all jobs are at work")
    cluster.stop_controller()
    time.sleep(3)  # some looks in vain
    cluster.start_controller()

    job(cluster, hung_name, "COMPLETED")
    left, _ = job(cluster, "rule_tune")
    os.killpg(snakemake.pid, signal.SIGKILL)
    snakemake.wait()
    assert left in cluster.run("squeue", "--noheader", "--format=%i")
    cancel = re.search(r"^    (squeue .* scancel)$", (ROOT / "slurm" / "README.md").read_text(), re.MULTILINE)
    assert cancel
    cluster.run("bash", "-c", cancel[1])
    wait_for(lambda: not cluster.run("squeue", "--noheader"), "the jobs left behind are gone")
    code, said = finish(folder, "--unlock")
    assert code == 0, said
    code, said = finish(folder)
    assert code == 0, said[-5000:]

    tables = ("transfer", "summary", "comparison", "theory")
    files = [f"vision/transfer/{split}/digits/{name}.csv" for split in ("test", "validation") for name in tables]
    files += [f"vision/transfer/test/digits-noise/{name}.csv" for name in tables]
    files += ["vision/ledger/digits.csv", "figures/table5.pdf", "figures/figure6a.pdf", "figures/figure6a.png"]
    for file in files:
        assert (finished / "results/demo" / file).read_bytes() == (folder / "results/demo" / file).read_bytes(), file

    jobs = ended(cluster)
    assert jobs.State[jobs.Comment == hung_name].tolist() == ["TIMEOUT", "COMPLETED"]
    tried = jobs[jobs.Comment == cancelled_name]
    assert list(tried.index) == [cancelled, waiting]
    assert tried.State[cancelled].startswith("CANCELLED")
    assert tried.State[waiting] == "COMPLETED"
    # The second attempt gets twice the time and memory; SLURM's own numbers, in minutes and megabytes.
    for column in ("TimelimitRaw", "ReqMem"):
        first, second = (int(value.rstrip("M")) for value in tried[column])
        assert second == 2 * first
    # Small networks need no GPU, and tables and figures go together that are made of each other.
    assert set(jobs.Partition) == {"cpu"}
    assert not jobs.AllocTRES.str.contains("gpu").any()
    assert jobs.Comment.str.startswith("rule_collected_").sum() == 1
    # All items went through it. One may have been cancelled after its work was done, with what Snakemake left running.
    for rule in ("measure_training", "measure_inference", "score_rewards", "check_zero_shot"):
        assert jobs.Comment.str.startswith(f"rule_{rule}").any(), rule
    assert all((folder / "results/demo/vision" / f"table{number}.csv").is_file() for number in (1, 2))

    report = pd.concat(map(pd.read_csv, (folder / "results" / "slurm").glob("efficiency_report_prt_*.csv")))
    assert report["RuleName"].str.startswith("rule_tune").any()
    assert (report["Memory Usage (%)"] > 0).any()


def test_the_language_half_whatever_happens(
    cluster: Cluster, start: Start, finished_language: Path, tmp_path: Path
) -> None:
    """A tuning over its memory, then put back, then its node lost, and no accounting: the tables of a local run."""
    folder = Path(shutil.copytree(finished_language, tmp_path / "copy"))
    top, quiet = folder / "results/demo/language", finished_language / "results/demo/language"
    for made in ("tuned", "evaluated", "transfer"):
        shutil.rmtree(top / made)
    cluster.stop_accounting()
    snakemake = start(folder, "problems", "--set-resources", "tune_language:mem_mb=400 if attempt == 1 else 4000")

    killed, name = job(cluster, "rule_tune_language")
    put_back, _ = job(cluster, name, but=killed)  # tried again
    wait_for(lambda: all_work(cluster), "all jobs are at work")
    cluster.run("scontrol", "requeue", put_back)
    assert job(cluster, name, "PENDING", but=killed)[0] == put_back
    assert job(cluster, name, but=killed)[0] == put_back
    wait_for(lambda: commands(cluster, put_back), "it is at work again")
    cluster.run("scontrol", "update", f"NodeName={NODE}", "State=DOWN", "Reason=tests")
    assert job(cluster, name, "PENDING", but=killed)[0] == put_back
    wait_for(lambda: not processes(cluster, put_back), "what ran there has ended")
    cluster.succeeds("scontrol", "update", f"NodeName={NODE}", "State=RESUME")  # unless it came back by itself
    assert snakemake.wait(300) == 0, (folder / "said").read_text()[-5000:]

    made = sorted(file.relative_to(quiet) for file in quiet.glob("transfer/problems/*.csv"))
    assert len(made) == 3
    assert [file for file in made if (top / file).read_bytes() != (quiet / file).read_bytes()] == []

    assert "Restarts=2" in cluster.run("scontrol", "show", "job", put_back)
    cluster.start_accounting()
    wait_for(lambda: put_back in ended(cluster).index, "the accounting knows what it missed")
    jobs = ended(cluster).loc[[killed, put_back]]
    assert (list(jobs.State), list(jobs.ReqMem)) == (["FAILED", "COMPLETED"], ["400M", "4000M"])


def test_one_item_is_a_target(cluster: Cluster, finish: Finish, finished: Path, tmp_path: Path) -> None:
    """What is made already is not submitted again, and what is small goes together."""
    folder = Path(shutil.copytree(finished, tmp_path / "copy"))
    (folder / "results/demo/figures/table5.pdf").unlink()
    before = set(ended(cluster).index)
    code, said = finish(folder, "table5")
    assert code == 0, said[-5000:]
    jobs = ended(cluster)
    assert list(jobs[~jobs.index.isin(before)].Comment) == ["rule_collected_draw_vision-pictures"]
    assert (folder / "results/demo/figures/table5.csv").read_bytes() == (
        finished / "results/demo/figures/table5.csv"
    ).read_bytes()


HEAD = "results/demo/vision/zero_shot/digits/own"


@pytest.fixture
def own(finished: Path, small: Config, tmp_path: Path) -> Path:
    """A copy of the finished folder, and in it a backbone that the pipeline has not pretrained: one for a GPU."""
    folder = Path(shutil.copytree(finished, tmp_path / "copy"))
    config = copy.deepcopy(small)
    spec = f"local-dir:{finished}/results/demo/vision/backbones/rn12-rich"
    config["vision"]["backbones"]["own"] = {"spec": spec}
    config["vision"]["panels"].append({"source": "vit-s-poor", "targets": ["own"]})
    config["jobs"] = "many"
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def test_a_gpu_job_of_the_paper_gets_a_gpu_and_never_falls_back_to_a_cpu(
    cluster: Cluster, finish: Finish, write: Callable[[Config], Path]
) -> None:
    """SLURM gives the job that measures Table 1 an A100, but there is none that torch could use."""
    folder = write(yaml.safe_load((ROOT / "config" / "paper.yaml").read_text()))
    shutil.copytree(ROOT / "config", folder / "config")  # with the published numbers that the ledger reads
    code, said = finish(folder, "table1", "--retries", "0")
    assert code == 1
    assert "prt: error: this machine has no GPU that torch can use as --device cuda; run on one that has" in said
    assert not list((folder / "results" / "paper").rglob("*.csv"))
    last = ended(cluster).iloc[-1]
    assert (last.Partition, last.State) == ("gpu", "FAILED")
    assert {"cpu=8", "gres/gpu=1", "gres/gpu:a100=1"} <= set(last.AllocTRES.split(","))


def test_a_gpu_job_runs_on_a_cpu_on_purpose(cluster: Cluster, finish: Finish, own: Path) -> None:
    """With the options that the profile's page names."""
    options = re.search(r"(--set-resources zero_shot.*)$", (ROOT / "slurm" / "README.md").read_text(), re.MULTILINE)
    assert options
    code, said = finish(own, HEAD, *shlex.split(options[1]))
    assert code == 0, said[-5000:]
    assert (own / HEAD / "head.safetensors").exists()
    last = ended(cluster).iloc[-1]
    assert (last.Partition, last.State) == ("cpu", "COMPLETED")
    assert "gpu" not in last.AllocTRES


REFUSED = {
    "Invalid account or account/partition combination specified": ["slurm_account=unknown", "slurm_partition=cpu"],
    "Invalid partition name specified": ["slurm_account=lab", "slurm_partition=unknown"],
    "No partition specified or system default partition": ["slurm_account=lab"],
}


@pytest.mark.parametrize("reason", REFUSED)
def test_names_that_the_cluster_does_not_have(
    cluster: Cluster, finish: Finish, tiny: Config, write: Callable[[Config], Path], reason: str
) -> None:
    """The run ends before the first job with SLURM's own reason, and makes nothing."""
    folder = write(tiny)
    before = len(ended(cluster))
    code, said = finish(folder, "--default-resources", *REFUSED[reason])
    assert code == 1
    assert re.search(rf"SLURM refuses jobs of '\w+' \(.*\): {reason}; name what your cluster has", said)
    assert "Traceback" not in said
    assert len(ended(cluster)) == before
    assert not (folder / "results").exists()


def test_a_job_that_would_wait_for_ever(
    cluster: Cluster, finish: Finish, tiny: Config, write: Callable[[Config], Path]
) -> None:
    """SLURM would accept one for longer than its partition's limit, and never start it."""
    code, said = finish(write(tiny), "--set-resources", "prepare:runtime=2000")
    assert code == 1
    asked = (
        "SLURM would never start jobs of 'prepare': they ask for 2000 minutes, and partition 'cpu' gives 1440 at most;"
    )
    assert asked in said and "prepare:runtime=1440" in said
