"""Published numbers beside ours: the ledger of zero-shot accuracies, and the paper's tables."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from helpers.made_up import summary
from matplotlib.backends.backend_agg import FigureCanvasAgg

from prt.errors import InputError
from prt.figures import beside as figures
from prt.figures import ledger as ledger_figure
from prt.plan.checks import BACKBONES, MODELS
from prt.published import VISION, beside, differences, ledger
from prt.scores import Scores
from prt.tables import write_table

ROOT = Path(__file__).parents[1]
PUBLISHED = ROOT / "config" / "published"


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Two pretrained models on unbalanced labels: 6 of 8 right, and 3 of 8."""
    labels = torch.tensor([0, 0, 0, 0, 0, 0, 1, 2])
    made = []
    for name, right in (("good", [0, 1, 2, 3, 4, 6]), ("bad", [0, 1, 7])):
        predicted = torch.tensor([t if i in right else (t + 1) % 3 for i, t in enumerate(labels.tolist())])
        values = torch.nn.functional.one_hot(predicted, 3).float()
        facts = {"dataset": "digits", "fingerprint": "f", "split": "test", "classes": ["a", "b", "c"]}
        made.append(tmp_path / f"{name}.safetensors")
        Scores(values, labels, "log_probs", name, "pretrained", **facts).save(made[-1])
    return made


def table(folder: Path, *rows: str) -> Path:
    path = folder / "published.csv"
    path.write_text("\n".join(["backbone,dataset,metric,value,protocol,source", *rows]) + "\n")
    return path


def test_accuracies_are_compared_in_their_own_metric(files: list[Path], tmp_path: Path) -> None:
    """Top-1 of the good model is 6/8, its mean per-class recall (5/6 + 1 + 0) / 3."""
    published = table(tmp_path, "good,digits,mean_per_class_recall,0.60,,a", "bad,digits,top1,0.35,other images,b")
    rows = ledger(files, published, 0.02).set_index(["backbone", "metric"])
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


def test_a_difference_is_told(files: list[Path], tmp_path: Path) -> None:
    published = table(tmp_path, "good,digits,top1,0.75,,a", "bad,digits,top1,0.40,,a")
    expected = "differs from the published one by more than 2 points: bad on digits has 37.5 %, published are 40.0 %"
    rows = ledger(files, published, 0.02)
    assert expected in differences(rows)
    assert "good" not in differences(rows)
    assert set(rows["verdict"]) == {"agrees", "differs", "none published"}
    assert differences(ledger(files, published, 0.03)) == ""


def test_bad_ledgers(files: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is empty"):
        ledger(files, table(tmp_path), 0.02)
    with pytest.raises(InputError, match=r"unknown metric in .*'top-1': did you mean 'top1'"):
        ledger(files, table(tmp_path, "good,digits,top-1,0.7,,a"), 0.02)
    with pytest.raises(InputError, match=r"two values for good on digits \(top1\)"):
        ledger(files, table(tmp_path, "good,digits,top1,0.7,,a", "good,digits,top1,0.8,,b"), 0.02)
    with pytest.raises(InputError, match=r"nowhere.csv does not exist"):
        ledger(files, tmp_path / "nowhere.csv", 0.02)


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
    paper = paper[paper["item"].isin(VISION)]
    names = {entry["paper"] for entry in vision["backbones"].values() if "paper" in entry}
    assert set(paper["source"]) | set(paper["target"]) == names
    assert set(BACKBONES) == names
    models = yaml.safe_load((ROOT / "config" / "paper.yaml").read_text())["language"]["models"]
    assert set(MODELS) == {model["paper"] for model in models.values()}
    demo = yaml.safe_load((ROOT / "config" / "demo.yaml").read_text())["vision"]
    expected = pd.read_csv(PUBLISHED / "demo_zero_shot.csv")
    assert set(expected["backbone"]) == set(demo["backbones"])
    assert {entry["paper"] for entry in demo["backbones"].values()} <= names


TABLE5 = {("prt", "top1_clean", "shapes"): 71, ("adapted", "top1_noise", "shapes-noise"): 72}


@pytest.fixture
def ours(tmp_path: Path) -> dict[str, Path]:
    """Small tables of our own: costs of two networks, summaries for Table 5, and Table 7."""
    texts = {
        "table1": "table,source,target,method,variant,quantity,value,precision,device\n"
        "table1,a,,ft,,time_per_batch,10,bf16,A100\ntable1,a,,ft,,peak_memory,2,bf16,A100\n"
        "table1,a,,prt_cached,,time_per_batch,11,bf16,A100\n",
        "table2": "table,source,target,method,variant,quantity,value,precision,device\n"
        "table2,a,b,prt,baseline,time_per_batch,7,fp32,A100\ntable2,a,b,prt,+ bf16,time_per_batch,3,bf16,A100\n"
        "table2,a,b,prt,baseline,launch_time_per_batch,2,fp32,A100\n",
        "table7": "source,target,epsilon,C\na,a,0,15\na,b,0.5,15\n",
        "paper": "item,source,target,method,quantity,value,std,unit,note\n"
        "table1,A,A,ft,time_per_batch,38,3,ms,\ntable1,A,A,ft,peak_memory,12,,GB,\n"
        "table2,A,B,prt,time_per_batch,9,,ms,\ntable2,A,C,prt,time_per_batch,8,,ms,\n"
        "table5,A,B,prt,top1_clean,71,,%,\ntable5,A,B,adapted,top1_noise,72,,%,\n"
        "table7,A,A,prt,C,19,,,\ntable7,A,B,prt,epsilon,0.001,,nat,\n"
        "table4,A,B,prt,gsm8k,50,1,%,\n",  # of the language half, and not shown here
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.csv").write_text(text)
    methods = ("pretrained", "prt", "adapted")
    for name in ("shapes", "shapes-noise"):
        here = methods if name == "shapes-noise" else methods[:2]
        table = summary(["a"], ["a", "b"], [name], ["16", "full"], strengths=[0.5, 1.0], methods=here)
        write_table(tmp_path / f"{name}.csv", table)
    return {name: tmp_path / f"{name}.csv" for name in (*texts, "shapes", "shapes-noise")}


def put_beside(ours: dict[str, Path]) -> pd.DataFrame:
    costs, noise = ([ours[name] for name in names] for names in (("table1", "table2"), ("shapes", "shapes-noise")))
    item = {"dataset": "shapes", "shots": "full", "source": "a", "targets": ["a", "b"]}
    return beside(ours["paper"], {"a": "A", "b": "B"}, costs, noise, pd.read_csv(ours["table7"]), item)


def test_the_paper_beside_ours(ours: dict[str, Path]) -> None:
    rows = put_beside(ours)
    found = {(r.item, r.target, r.method, r.quantity): (r.paper, r.ours) for r in rows.itertuples()}
    assert found[("table1", "A", "ft", "time_per_batch")] == (38, 10)
    assert found[("table1", "A", "ft", "peak_memory")] == (12, 2)
    assert found[("table2", "B", "prt", "time_per_batch")] == (9, 7)  # the plain variant, not the fast one
    assert found[("table2", "B", "prt", "launch_time_per_batch")] == (9, 2)
    assert np.isnan(found[("table2", "C", "prt", "time_per_batch")][1])  # no network of ours stands for C
    for (method, quantity, dataset), theirs in TABLE5.items():
        table = pd.read_csv(ours[dataset]).query("shots == 'full' and target == 'b' and metric == 'top1'")
        table = table[table["method"].eq(method) & table["alpha"].eq(0) & table["strength"].eq(1)]
        assert found[("table5", "B", method, quantity)] == (theirs, pytest.approx(100 * table["value"].item()))
    assert found[("table7", "A", "prt", "C")] == (19, 15)
    assert found[("table7", "B", "prt", "epsilon")] == (0.001, 0.5)
    assert len(rows) == 9
    assert rows.loc[rows["ours"].notna(), "our_source"].eq("a").all()
    measured = rows[rows["ours"].notna()].groupby("item")[["precision", "device"]].first()
    assert measured.loc["table1"].tolist() == ["bf16", "A100"]
    assert measured.loc["table2"].tolist() == ["fp32", "A100"]


def test_both_are_drawn(ours: dict[str, Path], tmp_path: Path) -> None:
    write_table(tmp_path / "rows.csv", put_beside(ours))
    rows = pd.read_csv(tmp_path / "rows.csv")
    figures.draw(rows, tmp_path / "beside")
    for name in ("beside", "beside_table"):
        for ending in ("png", "pdf", "csv"):
            assert (tmp_path / f"{name}.{ending}").stat().st_size > 100
    drawn = figures.figure(rows)
    axes = [axis for part in drawn.subfigs for axis in part.axes]
    assert len(axes) == 2 + 2 + 2 + 2
    points = [line.get_xdata() for axis in axes for line in axis.lines]
    assert sorted(x for xs in points for x in xs if x == x) == sorted(rows[["paper", "ours"]].stack().dropna())
    FigureCanvasAgg(drawn).draw()
    labels = {label.get_text() for axis in axes for label in axis.get_xticklabels()}
    assert "0.001" in labels
    assert not any("$" in label for label in labels)
    texts = {text.get_text() for text in figures.table(rows).axes[0].texts}
    assert {"38 ± 3", "a → b, fp32", "a, bf16", "Table 5", "time to launch (ms)", "–"} <= texts


def test_the_ledger_is_drawn(files: list[Path], tmp_path: Path) -> None:
    """Only what has a published value is drawn, each where its difference puts it."""
    published = table(tmp_path, "good,digits,top1,0.73,,a", "bad,digits,top1,0.5,,a", "bad,x,top1,0.5,,a")
    rows = ledger(files, published, 0.02)
    ledger_figure.draw(rows, tmp_path / "ledger")
    assert (tmp_path / "ledger.png").stat().st_size > 100
    (axis,) = ledger_figure.figure(rows).axes
    assert axis.get_title() == "digits"
    points = {round(float(x), 6) for line in axis.lines for x in line.get_xdata() if line.get_marker() == "o"}
    assert points == {2.0, -12.5}
    with pytest.raises(InputError, match="no published value for any backbone"):
        ledger_figure.draw(ledger(files, table(tmp_path, "other,digits,top1,0.73,,a"), 0.02), tmp_path / "none")
