"""Published numbers beside ours: the ledger of zero-shot accuracies, and the paper's tables."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from test_scores import scores

from prt.errors import InputError
from prt.published import ledger

ROOT = Path(__file__).parents[1]
PUBLISHED = ROOT / "config" / "published"
Prt = Callable[..., tuple[int, str, str]]


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Two pretrained models on unbalanced labels: 6 of 8 right, and 3 of 8."""
    labels = torch.tensor([0, 0, 0, 0, 0, 0, 1, 2])
    made = []
    for name, right in (("good", [0, 1, 2, 3, 4, 6]), ("bad", [0, 1, 7])):
        predicted = torch.tensor([t if i in right else (t + 1) % 3 for i, t in enumerate(labels.tolist())])
        values = torch.nn.functional.one_hot(predicted, 3).float()
        facts = {"method": "pretrained", "kind": "log_probs", "seed": None, "alpha": None}
        made.append(tmp_path / f"{name}.safetensors")
        scores(values=values, labels=labels, backbone=name, **facts).save(made[-1])
    return made


def table(folder: Path, *rows: str) -> Path:
    path = folder / "published.csv"
    path.write_text("\n".join(["backbone,dataset,metric,value,protocol,source", *rows]) + "\n")
    return path


def test_accuracies_are_compared_in_their_own_metric(files: list[Path], tmp_path: Path) -> None:
    """Top-1 of the good model is 6/8, its mean per-class recall (5/6 + 1 + 0) / 3."""
    published = table(tmp_path, "good,digits,mean_per_class_recall,0.60,,a", "bad,digits,top1,0.35,other images,b")
    rows = ledger(files, published, 0.02, "stop").set_index(["backbone", "metric"])
    assert rows.loc[("good", "top1"), "ours"] == 0.75
    assert rows.loc[("good", "top1"), "verdict"] == "none published"
    recall = rows.loc[("good", "mean_per_class_recall")]
    assert recall["ours"] == pytest.approx((5 / 6 + 1 + 0) / 3)
    assert recall["difference"] == pytest.approx(11 / 18 - 0.6)
    assert (recall["verdict"], recall["source"]) == ("agrees", "a")
    assert recall["low"] < recall["ours"] < recall["high"]
    other = rows.loc[("bad", "top1")]
    assert (other["verdict"], other["protocol"]) == ("not judged", "other images")
    assert other["difference"] == pytest.approx(3 / 8 - 0.35)


def test_a_difference_stops_or_warns(files: list[Path], tmp_path: Path, prt: Prt) -> None:
    published = table(tmp_path, "good,digits,top1,0.75,,a", "bad,digits,top1,0.40,,a")
    arguments = [*files, "--published", published, "--out", tmp_path / "ledger.csv"]
    code, _, complaint = prt("ledger", *arguments)
    assert code == 1
    assert "differs from the published one by more than 2 points: bad on digits has 37.5 %, published are 40.0 %" in (
        complaint
    )
    assert "good" not in complaint
    assert not (tmp_path / "ledger.csv").exists()
    code, _, complaint = prt("ledger", *arguments, "--beyond", "warn")
    assert code == 0
    assert "prt: warning: zero-shot accuracy differs" in complaint
    assert "differs" in set(pd.read_csv(tmp_path / "ledger.csv")["verdict"])
    code, _, complaint = prt("ledger", *arguments, "--tolerance", "0.03")
    assert (code, complaint) == (0, "")


def test_bad_ledgers(files: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown way to treat a difference beyond the tolerance 'stpo'"):
        ledger(files, table(tmp_path), 0.02, "stpo")
    with pytest.raises(InputError, match="is empty"):
        ledger(files, table(tmp_path), 0.02, "stop")
    with pytest.raises(InputError, match=r"unknown metric in .*'top-1': did you mean 'top1'"):
        ledger(files, table(tmp_path, "good,digits,top-1,0.7,,a"), 0.02, "stop")
    with pytest.raises(InputError, match=r"two values for good on digits \(top1\)"):
        ledger(files, table(tmp_path, "good,digits,top1,0.7,,a", "good,digits,top1,0.8,,b"), 0.02, "stop")
    with pytest.raises(InputError, match=r"nowhere.csv does not exist"):
        ledger(files, tmp_path / "nowhere.csv", 0.02, "stop")


def test_published_tables_speak_of_the_paper_s_configuration() -> None:
    """Every name in the tables is one of config/paper.yaml, and every accuracy a share."""
    vision = yaml.safe_load((ROOT / "config" / "paper.yaml").read_text())["vision"]
    zero_shot = pd.read_csv(PUBLISHED / "zero_shot.csv")
    assert set(zero_shot["backbone"]) == set(vision["backbones"])
    assert set(zero_shot["dataset"]) == set(vision["datasets"]) - {"cub"}  # none that could be relied on
    assert zero_shot["value"].between(0.1, 0.99).all()
    assert zero_shot["source"].notna().all()
    assert not zero_shot.duplicated(["backbone", "dataset", "metric"]).any()
    paper = pd.read_csv(PUBLISHED / "paper.csv")
    names = {entry.get("paper") for entry in vision["backbones"].values()}
    assert set(paper["source"]) | set(paper["target"]) <= names
    demo = yaml.safe_load((ROOT / "config" / "demo.yaml").read_text())["vision"]
    expected = pd.read_csv(PUBLISHED / "demo_zero_shot.csv")
    assert set(expected["backbone"]) == set(demo["backbones"])
    assert {entry["paper"] for entry in demo["backbones"].values()} <= names
