"""The whole DAG, for real, on a smaller copy of the demo."""

import copy
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from conftest import ROOT, snakemake
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from test_fetch import Server, server, shapes

__all__ = ["server"]  # a fixture
Config = dict[str, Any]


def planned(folder: Path, *arguments: str) -> dict[str, set[str]]:
    """Rules that a dry run would run, each with the data sets it would run for."""
    done = snakemake(folder, "--dry-run", *arguments)
    assert done.returncode == 0, done.stdout
    found: dict[str, set[str]] = {}
    rule = ""
    for line in map(str.strip, done.stdout.splitlines()):  # the jobs of a group are indented
        if line.startswith(("rule ", "localrule ")):
            rule = line.split()[1].rstrip(":")
            found[rule] = found.get(rule, set())
        if line.startswith("wildcards:") and "dataset=" in line:
            found[rule].add(line.split("dataset=")[1].split(",")[0])
    return found


def table(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(folder / "results" / "demo" / "vision" / f"{name}.csv", dtype={"shots": str})


def test_everything_is_made(finished: Path, small: Config) -> None:
    transfer = table(finished, "transfer")
    expected = "dataset shots source target method alpha strength seed metric value low high n".split()
    assert list(transfer.columns) == expected
    methods = {"pretrained", "eft", "prt", "ft", "source_ft", "poe", "reward"}
    for _, cell in transfer.groupby(["dataset", "shots", "source", "target", "seed"]):
        assert set(cell.method) == methods
    assert set(map(tuple, transfer[["dataset", "shots"]].values)) == {
        ("digits", "16"),
        ("mnist", "full"),
    }
    assert set(transfer.seed) == {0, 1}
    assert set(transfer[transfer.dataset == "digits"].n) == {500}
    assert set(table(finished, "validation").n) == {200, 500}
    assert transfer.value.between(0, 1).all()
    curves = table(finished, "curves")
    assert set(curves.iteration) == {0, 2, 4}
    assert set(curves.alpha) == {0, 0.1}
    figures = finished / "results" / "demo" / "figures"
    drawn = "figure2 figure6a figure6b figure12 table1 table2 table5 table7 ledger beside strength"
    for name in drawn.split():
        for ending in ("pdf", "png", "csv"):
            assert (figures / f"{name}.{ending}").stat().st_size > 100
    assert set(pd.read_csv(figures / "figure2.csv")["dataset"]) == {"digits"}
    assert set(pd.read_csv(figures / "figure12.csv")["dataset"]) == {"mnist"}
    config = yaml.safe_load((finished / "results" / "demo" / "config.yaml").read_text())
    assert config["vision"]["seeds"] == small["vision"]["seeds"]


def test_table_5_is_made_of_the_same_rewards_as_figure_2(finished: Path, small: Config) -> None:
    """On clean images it repeats the transfer table; on noisy ones it has the reward before and after tuning on."""
    noise, transfer = table(finished, "table5"), table(finished, "summary")
    noise = noise[noise.metric == "top1"].set_index(["dataset", "reward", "target"])["value"]
    there = (transfer.dataset == "digits") & (transfer.shots == "16") & (transfer.metric == "top1")
    there &= transfer.alpha.fillna(0).eq(0) & transfer.strength.fillna(1).eq(1)
    expected = transfer[there].set_index(["method", "target"])["value"]
    for target in small["vision"]["table5"]["targets"]:
        assert noise["digits", "untuned", target] == pytest.approx(expected["prt", target])
        assert noise["digits", "none", target] == pytest.approx(expected["pretrained", target])
        assert {"none", "untuned", "tuned"} == set(noise["digits-noise"].index.get_level_values("reward"))
    tuned = finished / "results" / "demo" / "vision" / "tuned"
    for seed in ("0", "1"):
        clean, on = (
            yaml.safe_load((tuned / place / "16" / seed / "manifest.json").read_text())
            for place in ("digits/vit-s-poor/prt_0", "digits-noise/vit-s-poor/retuned")
        )
        assert on["initial_sha256"] == clean["weights_sha256"] != on["weights_sha256"]
        assert on["head_sha256"] == clean["head_sha256"]


def test_costs_of_the_pipeline_s_own_networks(finished: Path, small: Config) -> None:
    for name, methods in (("table1", {"ft", "prt", "prt_cached"}), ("table2", {"ft", "eft", "prt"})):
        costs = table(finished, name)
        assert set(costs.method) == methods
        assert {"time_per_batch", "peak_memory", "flop_bound"} <= set(costs.quantity)
        assert set(costs.batch) == {16}
        assert (costs.value > 0).all()
    beside = table(finished, "beside")
    assert set(beside.item) == {"table1", "table2", "table5", "table7"}
    assert beside.groupby("item")["ours"].count().min() >= 1


def test_nothing_is_left_to_do(finished: Path) -> None:
    assert "Nothing to be done" in snakemake(finished).stdout
    assert planned(finished) == {}


def test_no_checkpoint_and_no_half_file_is_left(finished: Path) -> None:
    assert not list((finished / "results" / "demo" / "vision" / "checkpoints").rglob("*.safetensors"))
    assert not list(finished.rglob("*.part"))


@pytest.fixture
def edited(finished: Path, small: Config, tmp_path: Path) -> Callable[[Callable[[Config], object]], Path]:
    """A copy of the finished folder with a changed configuration."""

    def made(change: Callable[[Config], object]) -> Path:
        folder = Path(shutil.copytree(finished, tmp_path / "copy", dirs_exist_ok=True))
        config = copy.deepcopy(small)
        change(config["vision"])
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        return folder

    return made


def test_editing_one_data_set_reruns_only_its_own(edited: Callable[..., Path]) -> None:
    plan = planned(edited(lambda v: v["datasets"]["mnist"].update(templates=["a {}"])))
    assert plan["prepare"] == plan["zero_shot"] == plan["tune"] == plan["transfer"] == {"mnist"}
    assert "pretrain" not in plan
    plan = planned(edited(lambda v: v["datasets"]["digits"]["shots"][16].update(steps=5)))
    assert plan["tune"] == {"digits"}
    assert not {"prepare", "zero_shot"} & set(plan)


def test_a_data_set_is_a_target(edited: Callable[..., Path]) -> None:
    folder = edited(lambda v: v.update(seeds=[0, 1, 2]))
    assert planned(folder, "mnist")["tune"] == {"mnist"}
    assert planned(folder)["tune"] == {"digits", "mnist"}


ITEMS = {
    "figure2": {"figure2"},
    "figure6": {"figure6", "figure6a", "figure6b"},
    "table1": {"table1"},
    "table2": {"table2"},
    "table5": {"table5"},
    "table7": {"table7"},
    "figure12": {"figure12"},
    "strength": {"strength"},
    "ledger": {"ledger"},
    "beside": {"beside", "table7"},
    "digits": set(),
}


def test_a_paper_item_is_a_target(small: Config, write: Callable[[Config], Path]) -> None:
    """A target plans its own picture, and tuning where there is something to tune."""
    folder = write(small)
    drawing = set().union(*ITEMS.values())
    for target, expected in ITEMS.items():
        plan = planned(folder, target)
        assert set(plan) & drawing == expected
        assert ("tune" in plan) == (target not in ("table1", "table2", "ledger"))
        assert ("retune" in plan) == (target in ("table5", "beside"))


def dry_run(*arguments: str) -> str:
    """What a dry run of the paper prints, in a folder where nothing is made or fetched; a minute is its limit."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "config", Path(folder, "config"))
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--cores", "64"]
        command += ["--dry-run", "--configfile", "config/paper.yaml", *arguments]
        done = subprocess.run(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60
        )
    assert done.returncode == 0, done.stdout
    return done.stdout


def counts(said: str) -> dict[str, int]:
    """How many jobs of each rule a dry run counts."""
    lines = said.rpartition("Job stats:")[2].partition("total")[0].splitlines()
    return {name: int(number) for name, number in (line.split() for line in lines[3:] if line.strip())}


def test_the_dry_run_of_the_paper() -> None:
    """Every item at the paper's size, and seeds as many times as jobs."""
    vision, language = (yaml.safe_load((ROOT / "config" / "paper.yaml").read_text())[x] for x in ("vision", "language"))
    said = dry_run()
    plan = counts(said)
    names = ["2", "6a", "6b", "12"]
    names += ["3", "4", "5", "7", "8", "9", "10", "11", "13", "14"]
    assert {f"figure{n}" for n in names} | {f"table{n}" for n in range(1, 8)} | {"ledger", "beside"} <= set(plan)
    backbones = {b for panel in vision["panels"] for b in (panel["source"], *panel["targets"])}
    backbones |= set(vision["table7"]["targets"])
    sources = {panel["source"] for panel in vision["panels"]}
    assert plan["prepare"] == len(vision["datasets"]) + 1  # the noisy one
    assert plan["zero_shot"] == len(vision["datasets"]) * len(backbones)
    entropy = len(vision["figure6"]["alphas"]) - 1  # α = 0 is there anyway
    assert plan["tune"] == len(vision["datasets"]) * (len(backbones) + len(sources)) + entropy
    assert plan["fetch_backbone"] == len(backbones)
    assert plan["fetch_dataset"] == len(vision["datasets"])
    assert plan["language_transfer"] == len(language["benchmarks"]) + len(language["bars"]) + 3  # figure7, table4, 6
    assert plan["fetch_model"] == 2 * len(language["models"])  # each with its instruct model
    sources = {panel["source"] for item in language["bars"].values() for panel in item["panels"]}
    entropy = len(language["figure7"]["panels"]) * (len(language["figure7"]["alphas"]) - 1)
    seeds, lora = 2 * (len(language["table4"]["seeds"]) - 1), 2
    assert plan["tune_language"] == 2 * len(sources) + entropy + seeds + lora
    # The profile tells GPU jobs by their cores.
    jobs = re.split(r"\n\s*(?:local)?rule ", said.partition("Job stats:")[2])
    on_gpus = {bool(re.search(r"gpu=[1-9]", job)) for job in jobs if "threads: " in job}
    assert on_gpus == {True}
    assert not any(re.search(r"gpu=[1-9]", job) for job in jobs if "threads: " not in job)
    # A 7B model is tuned on eight GPUs, whose processes load 40 GB each; a small one on one.
    large, small = (
        next(job for job in jobs if f"model={model}, tuning=prt_0," in job) for model in ("llama-2-7b", "qwen2.5-0.5b")
    )
    assert "gpu=8" in large
    assert int(re.search(r"mem_mb=(\d+)", large)[1]) > 8 * 6.7 * 6000
    assert "gpu=1" in small
    three = counts(dry_run("config/three_seeds.yaml"))
    assert three["tune"] == 3 * plan["tune"]
    assert three["zero_shot"] == plan["zero_shot"]
    for target in ("cars", "table7", "table5", "figure6"):  # each of one data set
        assert counts(dry_run("--", target))["zero_shot"] == len(backbones)
    # One family's item needs no other's models, some of which are gated.
    said = dry_run("--printshellcmds", "--", "table4")
    assert "torchrun --standalone --nproc-per-node 1" in said
    assert "meta-llama" not in said
    assert counts(said)["tune_language"] == 2 * len(language["table4"]["seeds"])
    twelfth = counts(dry_run("--", "figure12"))
    assert twelfth["zero_shot"] == len(vision["figure12"]) * len(backbones)
    fetched = counts(dry_run("--", "fetch"))
    assert fetched == {"fetch": 1, "fetch_chats": 1} | {
        rule: plan[rule] for rule in ("fetch_backbone", "fetch_dataset", "fetch_model", "fetch_benchmark")
    }


def test_what_is_fetched_is_prepared_without_a_network(
    server: Server,
    small: Config,
    write: Callable[[Config], Path],
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A data set of the hub: `snakemake fetch`, then all else without a network."""
    config = copy.deepcopy(small)
    config["vision"]["datasets"]["shapes"] = {"source": "huggingface:me/shapes", "shots": {"full": {}}}
    folder = write(config)
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    server.repository("me/shapes", shapes(tmp_path, pictures))
    assert snakemake(folder, "fetch").returncode == 0
    assert [file.name for file in (folder / "downloads").glob("*.json")] == ["huggingface--me--shapes.json"]
    server.files.clear()
    asked = len(server.asked)
    done = snakemake(folder, "results/demo/vision/data/shapes/manifest.json")
    assert done.returncode == 0, done.stdout
    assert len(server.asked) == asked
    assert planned(folder, "fetch") == {}


def test_a_ledger_that_differs_stops_the_run(edited: Callable[..., Path]) -> None:
    """Nothing is tuned on networks that are not what they should be."""
    folder = edited(lambda v: v["ledger"].update(beyond="stop", tolerance=0.0))
    done = snakemake(folder, "digits", "ledger", "--show-failed-logs", "--keep-going")
    assert done.returncode == 1
    assert (
        "zero-shot accuracy differs from the published one by more than 0 points: vit-s-poor on digits" in done.stdout
    )
    assert "'beyond: warn' in the configuration's 'ledger' lets the run go on" in done.stdout
    assert "localrule tune" not in done.stdout
    ledger = pd.read_csv(folder / "results" / "demo" / "figures" / "ledger.csv")  # drawn all the same
    assert "differs" in set(ledger["verdict"])


KEY = "of the configuration"
BAD = {
    f"unknown key in the top level {KEY} 'vison': did you mean 'vision'?": lambda c: c.update(vison={}),
    f"unknown key in vision {KEY} 'strenghts': did you mean 'strengths'?": lambda c: c["vision"].update(strenghts=[1]),
    f"unknown key in vision.recipe {KEY} 'batches'": lambda c: c["vision"]["recipe"].update(batches=1),
    "unknown backbone 'vit-s-por': did you mean 'vit-s-poor'?": lambda c: c["vision"]["panels"][0].update(
        source="vit-s-por"
    ),
    "unknown data set of table7 'digit': did you mean 'digits'?": lambda c: c["vision"]["table7"].update(
        dataset="digit"
    ),
    "unknown number of shots of figure6 '17': did you mean '16'?": lambda c: c["vision"]["figure6"].update(shots=17),
    f"vision.figure6.alphas.0 {KEY} is -0.1, but must be 0 or more": lambda c: c["vision"]["figure6"].update(
        alphas=[-0.1]
    ),
    "lacks 'seeds' in vision": lambda c: c["vision"].pop("seeds"),
    f"unknown value of vision.recipe.optimizer {KEY} 'sgd'": lambda c: c["vision"]["recipe"].update(optimizer="sgd"),
    "a data set cannot be called 'figure2'": lambda c: c["vision"]["datasets"].update(
        figure2=c["vision"]["datasets"]["mnist"]
    ),
    "vision.backbones.vit-s-poor": lambda c: c["vision"]["backbones"]["vit-s-poor"].pop("recipe"),
}


@pytest.mark.parametrize("sentence", BAD)
def test_bad_configurations(small: Config, write: Callable[[Config], Path], sentence: str) -> None:
    config = copy.deepcopy(small)
    BAD[sentence](config)
    folder = write(config)
    done = snakemake(folder, "--dry-run")
    assert done.returncode == 1
    assert sentence in done.stdout
    assert "Traceback" not in done.stdout
    assert not (folder / "results").exists()


def test_an_unknown_target(finished: Path) -> None:
    done = snakemake(finished, "figure22")
    assert done.returncode == 1
    assert "figure22" in done.stdout
    assert "Traceback" not in done.stdout


def test_a_failing_job_says_why(small: Config, write: Callable[[Config], Path]) -> None:
    """One sentence of the command reaches the terminal, and nothing declared is left."""
    config = copy.deepcopy(small)
    config["vision"]["datasets"]["digits"]["classes"] = ["even", "odd"]
    folder = write(config)
    done = snakemake(folder, "--show-failed-logs", "results/demo/vision/data/digits/manifest.json")
    assert done.returncode == 1
    assert "prt: error: 'classes' has 2 names, but miniature:digits has 10 classes." in done.stdout
    assert not list((folder / "results" / "demo" / "vision").rglob("*.json"))


def test_an_output_folder_that_cannot_be_written(small: Config, write: Callable[[Config], Path]) -> None:
    folder = write(small)
    (folder / "results").write_text("a file")
    done = snakemake(folder, "results/demo/vision/data/digits/manifest.json")
    assert done.returncode == 1
    assert "Not a directory" in done.stdout
    assert "Traceback" not in done.stdout
    assert (folder / "results").read_text() == "a file"


def test_the_report_in_a_real_browser(finished: Path) -> None:
    """The report is one file that opens without a network; a reader finds every figure and its caption."""
    report = finished / "report.html"
    done = snakemake(finished, "--report", str(report))
    assert done.returncode == 0, done.stdout
    options = webdriver.ChromeOptions()
    for flag in ("headless", "no-sandbox", "disable-gpu", "disable-background-networking", "disable-sync"):
        options.add_argument(f"--{flag}")
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
    with webdriver.Chrome(options, Service(shutil.which("chromedriver"))) as browser:
        browser.implicitly_wait(10)
        shown = {
            "Figure 2": "model kept as it is",
            "Figure 6a": "entropy maximisation",
            "Figure 6b": "for every",
            "Strength": "the paper's setting",
            "Table 7": "Proposition 3.2",
        }
        for label, caption in shown.items():
            browser.get(report.as_uri())
            category = "Tables" if label == "Table 7" else "Figures"
            browser.find_element(By.XPATH, f"//*[text()='{category}']").click()
            browser.find_element(By.XPATH, f"//*[text()='{label}']/..//a[@iconname='eye']").click()
            picture = browser.find_element(By.XPATH, "//img[starts-with(@src, 'data:image/png')]")
            assert picture.is_displayed()
            assert picture.get_property("naturalWidth") > 500
            browser.find_element(By.XPATH, f"//*[text()='{label}']/..//a[@iconname='information-circle']").click()
            assert browser.find_element(By.XPATH, f'//*[contains(text(), "{caption}")]').is_displayed()
