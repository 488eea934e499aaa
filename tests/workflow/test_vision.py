"""The vision half of the DAG, for real, on a smaller copy of the demo."""

import copy
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from helpers.hub import Server, server, shapes
from helpers.pipeline import ROOT, counts, invocation, snakemake
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

from prt.plan import Plan
from prt.tables import COMPARISON, SUMMARY, TRANSFER

__all__ = ["server"]  # a fixture
Config = dict[str, Any]


def planned(folder: Path, *arguments: str) -> dict[str, set[str]]:
    """Rules that a dry run would run, each with the jobs that it would run."""
    done = snakemake(folder, "--dry-run", *arguments)
    assert done.returncode == 0, done.stdout
    found: dict[str, set[str]] = {}
    rule = ""
    for line in map(str.strip, done.stdout.splitlines()):  # the jobs of a group are indented
        if line.startswith(("rule ", "localrule ")):
            rule = line.split()[1].rstrip(":")
            found[rule] = found.get(rule, set())
        if line.startswith("wildcards: job="):
            found[rule].add(line.removeprefix("wildcards: job="))
    return found


def table(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(folder / "results" / "demo" / "vision" / f"{name}.csv", dtype={"shots": str})


def test_everything_is_made(finished: Path, small: Config) -> None:
    transfer = table(finished, "transfer")
    assert list(transfer.columns) == TRANSFER
    methods = {"pretrained", "eft", "prt", "ft", "source_ft", "poe", "ensemble", "reward"}
    methods |= {"prt_chosen", "eft_chosen", "poe_chosen"}
    clean = transfer[transfer.dataset != "digits-noise"]
    for _, cell in clean.groupby(["dataset", "shots", "source", "target"]):
        assert set(cell.method) == methods
    assert set(map(tuple, transfer[["dataset", "shots"]].values)) == {
        ("digits", "16"),
        ("digits-noise", "16"),
        ("mnist", "full"),
    }
    seeded = clean[clean.method != "pretrained"]
    assert set(seeded.seed) == {0, 1}
    assert clean[clean.method == "pretrained"].seed.isna().all()
    assert set(transfer[transfer.dataset == "digits"].n) == {500}
    assert set(table(finished, "validation").n) == {200, 500}
    assert set(transfer.metric) == {"top1", "top5", "mean_per_class_recall", "nll", "ece"}
    assert transfer[transfer.metric != "nll"].value.between(0, 1).all()
    assert (transfer.value >= 0).all()
    assert list(table(finished, "summary").columns) == SUMMARY
    assert list(table(finished, "comparison").columns) == COMPARISON
    curves = pd.read_csv(finished / "results" / "demo" / "figures" / "figure6a.csv")
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


def test_table_5_is_rows_of_the_same_tables(finished: Path, small: Config) -> None:
    """On clean images it shows the transfer table; on noisy ones it has the reward before and after tuning on."""
    summary, shown = table(finished, "summary"), pd.read_csv(finished / "results" / "demo" / "figures" / "table5.csv")
    plain = summary.headline & summary.alpha.fillna(0).eq(0) & summary.strength.fillna(1).eq(1)
    expected = summary[plain].set_index(["dataset", "method", "target"])["value"]
    for row in shown.to_dict("records"):
        assert row["value"] == pytest.approx(expected[row["dataset"], row["method"], row["target"]])
    for target in small["vision"]["table5"]["targets"]:
        here = shown[shown.target == target]
        assert set(here[here.dataset == "digits"].method) >= {"pretrained", "prt"}
        assert set(here[here.dataset == "digits-noise"].method) == {"pretrained", "prt", "adapted"}
    tuned = finished / "results" / "demo" / "vision" / "tuned"
    for seed in ("0", "1"):
        clean, on = (
            yaml.safe_load((tuned / place / "16" / seed / "manifest.json").read_text())
            for place in ("digits/vit-s-poor/prt_0", "digits-noise/vit-s-poor/adapted")
        )
        assert on["initial_sha256"] == clean["weights_sha256"] != on["weights_sha256"]
        assert on["head_sha256"] == clean["head_sha256"]


def test_costs_of_the_pipeline_s_own_networks(finished: Path, small: Config) -> None:
    for name, methods in (("table1", {"ft", "prt", "prt_cached"}), ("table2", {"ft", "eft", "prt"})):
        costs = table(finished, name)
        assert set(costs.method) == methods
        assert {"time_per_batch", "peak_memory"} <= set(costs.quantity)
        assert set(costs.batch) == {16}
        values = costs.assign(variant=costs["variant"].astype(str)).pivot_table(
            "value", ["method", "variant"], "quantity"
        )
        if "flop_bound" in values:  # else a batch was faster
            assert not values["flop_bound"].gt(values["time_per_batch"]).any()
        assert (costs.value > 0).all()
    beside = pd.read_csv(finished / "results" / "demo" / "figures" / "beside.csv")
    assert set(beside.item) == {"table1", "table2", "table5", "table7"}
    assert beside.groupby("item")["ours"].count().min() >= 1


def test_nothing_is_left_to_do(finished: Path) -> None:
    assert "Nothing to be done" in snakemake(finished).stdout
    assert planned(finished) == {}


def test_no_checkpoint_and_no_half_file_is_left(finished: Path) -> None:
    assert not list((finished / "results" / "demo" / "vision" / "checkpoints").iterdir())
    assert not list(finished.rglob(".*.part*"))


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
    assert plan["prepare"] == plan["zero_shot"] == {"mnist"}
    assert plan["tune"] == {"mnist/vit-s-poor", "mnist/rn12-rich"}
    assert {rule for rule in plan if rule.startswith("tables_")} == {"tables_vision-mnist"}
    assert "pretrain" not in plan
    plan = planned(edited(lambda v: v["datasets"]["digits"]["shots"][16].update(steps=5)))
    assert plan["tune"] == {"digits/vit-s-poor", "digits/rn12-rich", "digits-noise/vit-s-poor"}
    assert not {"prepare", "zero_shot"} & set(plan)


def test_a_data_set_is_a_target(edited: Callable[..., Path]) -> None:
    folder = edited(lambda v: v.update(seeds=[0, 1, 2]))
    assert planned(folder, "mnist")["tune"] == {"mnist/vit-s-poor", "mnist/rn12-rich"}
    assert len(planned(folder)["tune"]) == 5


def test_items_are_targets_that_plan_their_own_pictures(small: Config, write: Callable[[Config], Path]) -> None:
    """Costly tables are jobs of their own; the other pictures of a half are one, as jobs are few."""
    folder = write(small)
    for target, pictures in {"figure2": "figure2", "table1": "table1", "table5": "vision-pictures"}.items():
        plan = planned(folder, target)
        assert {rule for rule in plan if rule.startswith("draw_")} == {f"draw_{pictures}"}
        assert ("tune" in plan) == (target != "table1")
        assert ("score_rewards" in plan) == (target == "table5")
    small = copy.deepcopy(small) | {"jobs": "many"}
    folder = write(small)
    plan = planned(folder, "table5")
    assert {rule for rule in plan if rule.startswith("draw_")} == {"draw_table5"}
    assert "digits/vit-s-poor/prt_0/16/1" in plan["tune"]
    assert not any(job.startswith("mnist") for job in plan["tune"])


def test_the_profile_tells_gpu_jobs_by_their_cores() -> None:
    """Every job of the paper has more than one core exactly where it has a GPU."""
    plan = Plan.read([ROOT / "config" / "paper.yaml"])
    assert all((job.cores > 1) == (job.gpus > 0) for job in plan.jobs.by_name.values())
    assert sum(job.gpus > 0 for job in plan.jobs.by_name.values()) > 100


def test_the_dry_run_of_the_paper(tmp_path: Path) -> None:
    """One family's item plans no other's models, some of which are gated, and torchrun where there are GPUs."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    (tmp_path / "config.yaml").write_text((ROOT / "config" / "paper.yaml").read_text())
    done = snakemake(tmp_path, "--dry-run", "--cores", "64", "--printshellcmds", "--", "table4")
    assert done.returncode == 0, done.stdout
    assert "torchrun --standalone --nproc-per-node 1" in done.stdout
    assert "meta-llama" not in done.stdout
    done = snakemake(tmp_path, "--dry-run", "--", "fetch")
    fetched = counts(done.stdout)
    assert all(rule.startswith("fetch") for rule in fetched)
    assert fetched["fetch_backbone"] == 11


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


def test_a_bad_configuration(small: Config, write: Callable[[Config], Path]) -> None:
    """The check's own sentence, and nothing is made; what it refuses is in tests/plan."""
    for part, key, value, sentence in (
        (lambda vision: vision["panels"][0], "source", "vit-s-por", "unknown backbone 'vit-s-por': did you mean"),
        (lambda vision: vision["ledger"], "published", "none.csv", "none.csv does not exist, and nothing makes it"),
    ):
        config = copy.deepcopy(small)
        part(config["vision"])[key] = value
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
    """One sentence of the command is nearly the last that the terminal shows, and nothing declared is left."""
    config = copy.deepcopy(small)
    config["vision"]["datasets"]["digits"]["classes"] = ["even", "odd"]
    folder = write(config)
    done = snakemake(folder, "results/demo/vision/data/digits/manifest.json")
    assert done.returncode == 1
    sentence = "prepare digits: 'classes' has 2 names, but miniature:digits has 10 classes. (results/demo/logs/"
    assert any(line.startswith(sentence) for line in done.stdout.splitlines()[-6:])
    assert not list((folder / "results" / "demo" / "vision").rglob("*.json"))


def test_sigterm_while_jobs_are_chosen_hangs_nothing(small: Config, write: Callable[[Config], Path]) -> None:
    """What runs ends, and nothing else begins."""
    folder = write(small)
    command, environment = invocation(folder, "table1", "table5")
    command[1:3] = [str(ROOT / "tests" / "helpers" / "terminated.py")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 1
    assert "Will exit after finishing currently running jobs" in done.stderr
    assert list((folder / "results/demo/vision").iterdir()) and "2 of" in done.stderr and "3 of" not in done.stderr


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
