"""The tables of transfer against the equations, cell by cell."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.scores import scores
from scipy.stats import ttest_1samp
from sklearn.metrics import log_loss, top_k_accuracy_score

from prt.cell import Cell
from prt.classification import calibration_gap
from prt.errors import InputError
from prt.methods import METHODS
from prt.scores import Scores
from prt.tables import tables
from prt.vision.results import Scored

N, CLASSES = 40, ["a", "b", "c", "d"]


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Scores of two backbones: pretrained, ft and prt (two αs), two seeds, on unbalanced labels."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (N,), generator=generator).clamp_max(3)
    labels[:10] = 0
    written = []

    def write(backbone: str, method: str, alpha: float | None, seed: int | None, values: torch.Tensor) -> None:
        path = tmp_path / f"{backbone}.{method}.{alpha}.{seed}.safetensors"
        kind = "reward" if method == "prt" else "log_probs"
        made = scores(
            backbone=backbone,
            method=method,
            alpha=alpha,
            seed=seed,
            values=values,
            labels=labels,
            kind=kind,
            classes=CLASSES,
        )
        made.save(path)
        written.append(path)

    for backbone in ("old", "new"):
        write(backbone, "pretrained", None, None, torch.log_softmax(torch.randn(N, 4, generator=generator), -1))
        for seed in (0, 1):
            write(backbone, "ft", None, seed, torch.log_softmax(torch.randn(N, 4, generator=generator), -1))
    for seed in (0, 1):
        for alpha in (0.0, 0.1):
            write("old", "prt", alpha, seed, torch.randn(N, 4, generator=generator))
    return written


METHODS_HERE = ("pretrained", "prt", "eft", "poe", "ensemble", "ft", "source_ft", "reward")


def transfer(
    files: list[Path], pairs: list[tuple[str, str]], strengths: list[float]
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """All tables of these pairs, with every method, α and strength."""
    scored = Scored(files)
    cells = [
        Cell(
            dataset="digits", shots="16", source=source, target=target, method=method, alpha=alpha,
            strength=strength, seed=seed,
        )
        for source, target in pairs
        for method in METHODS_HERE
        for alpha in ([0.0, 0.1] if METHODS[method].has_alpha else [None])
        for strength in ([1.0, *strengths] if method in ("eft", "prt") and not alpha else [1.0])
        for seed in (0, 1)
    ]  # fmt: skip
    return *tables(cells, scored.result), scored.theory(cells)


def values(folder: Path, name: str) -> np.ndarray:
    return Scores.load(folder / f"{name}.safetensors").values.double().numpy()


def test_every_cell(files: list[Path], tmp_path: Path) -> None:
    table, summary, comparison, theory = transfer(files, [("old", "new"), ("old", "old")], [0.5, 2.0])
    truth = Scores.load(files[0]).labels.numpy()
    pt_old, pt_new = values(tmp_path, "old.pretrained.None.None"), values(tmp_path, "new.pretrained.None.None")
    ft_old, ft_new = values(tmp_path, "old.ft.None.1"), values(tmp_path, "new.ft.None.1")
    r = values(tmp_path, "old.prt.0.0.1")
    expected = {
        ("pretrained", None): pt_new,
        ("ft", None): ft_new,
        ("source_ft", None): ft_old,
        ("poe", 1.0): pt_new + ft_old,
        ("ensemble", 1.0): ft_new + ft_old,
        ("eft", 2.0): pt_new + 2 * (ft_old - pt_old),
        ("prt", 0.5): pt_new + 0.5 * r,
        ("prt", 1.0): pt_new + r,
        ("reward", None): r,
    }
    here = table[(table.target == "new") & (table.seed.eq(1) | table.seed.isna()) & ~(table.alpha > 0)]
    here = here.astype({"seed": float})
    for (method, strength), matrix in expected.items():
        hit = matrix.argmax(1) == truth
        rows = here[here.method == method]
        rows = rows[rows.strength.isna()] if strength is None else rows[rows.strength == strength]
        top1 = rows[rows.metric == "top1"].value
        recall = rows[rows.metric == "mean_per_class_recall"].value
        assert top1.tolist() == pytest.approx([hit.mean()])
        assert recall.tolist() == pytest.approx([np.mean([hit[truth == c].mean() for c in range(4)])])
        # Of a reward alone, too: its own predictions are softmax(r).
        log_probs = torch.log_softmax(torch.from_numpy(matrix), -1)
        assert rows[rows.metric == "nll"].value.tolist() == pytest.approx([log_loss(truth, log_probs.exp().numpy())])
        error = calibration_gap(log_probs, torch.from_numpy(truth)).mean().item()
        assert rows[rows.metric == "ece"].value.tolist() == pytest.approx([error])
    assert set(table.method) == set(METHODS_HERE)
    assert table.headline.eq(table.metric.eq("top1")).all()
    assert not table.lora.any()
    alone = table[table.method == "pretrained"]
    assert alone.seed.isna().all()
    assert set(table.metric) == {"top1", "mean_per_class_recall", "nll", "ece"}  # four labels: no top-5
    assert len(alone) == 2 * 4  # a row for each target and metric
    bounded = table.metric != "ece"
    assert (table.low <= table.value)[bounded].all() and (table.value <= table.high)[bounded].all()
    assert table[~bounded][["low", "high"]].isna().all(axis=None)
    assert set(comparison.metric) == {"top1"}
    assert not table.duplicated(["source", "target", "method", "alpha", "strength", "seed", "metric"]).any()
    means = table.groupby(["target", "method", "alpha", "strength", "metric"], dropna=False).value.mean()
    keys = ["target", "method", "alpha", "strength", "metric"]
    pd.testing.assert_series_equal(
        summary.set_index(keys).value.sort_index(), means.sort_index(), check_index_type=False
    )
    prt, baseline = (
        summary[(summary.metric == "top1") & (summary.target == "new") & (summary.method == m)]
        for m in ("prt", "source_ft")
    )
    difference = comparison[
        (comparison.target == "new") & (comparison.method == "prt") & (comparison.baseline == "source_ft")
    ]
    prt = prt[(prt.alpha == 0) & (prt.strength == 1)]
    assert difference.difference.item() == pytest.approx(prt.value.item() - baseline.value.item())
    assert list(comparison.columns)[-8:] == ["difference", "low", "high", "p", "p_holm", "verdict", "seeds", "n"]
    assert (comparison.p.lt(0.05) == comparison.verdict.ne("not told apart")).all()
    assert comparison.p_holm.min() == pytest.approx(min(1, len(comparison) * comparison.p.min()))
    assert (theory[theory.target == "old"][["epsilon", "bound", "kl"]] == 0).all(axis=None)
    assert (theory.kl <= theory.C.max() * theory.epsilon + 1e-12).all()


def test_top_5_where_there_are_more_labels(tmp_path: Path) -> None:
    """And the interval of the likelihood, which is no share: Student's over the examples."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 6, (N,), generator=generator)
    values = torch.log_softmax(torch.randn(N, 6, generator=generator), -1)
    file = tmp_path / "six.safetensors"
    alone = {"method": "pretrained", "seed": None, "alpha": None, "kind": "log_probs", "classes": list("abcdef")}
    scores(values=values, labels=labels, **alone).save(file)
    cell = Cell(dataset="digits", source="vit", target="vit", method="pretrained")
    table = tables([cell], Scored([file]).result).transfer.set_index("metric")
    assert list(table.index) == ["top1", "top5", "mean_per_class_recall", "nll", "ece"]
    assert table.value["top5"] == pytest.approx(top_k_accuracy_score(labels, values, k=5, labels=range(6)))
    assert list(table.index[table.headline]) == ["top1"]
    expected = ttest_1samp(-values.double().gather(1, labels[:, None])[:, 0], 0).confidence_interval(0.95)
    assert table.loc["nll", ["low", "high"]].tolist() == pytest.approx([expected.low, expected.high])


def test_on_the_source_itself_eft_is_the_fine_tuned_model(files: list[Path]) -> None:
    table, *_ = transfer(files, [("old", "old")], [1.0])
    table = table[table.metric == "top1"].set_index(["method", "seed"]).value
    for seed in (0, 1):
        assert table["eft", seed] == table["ft", seed] == table["source_ft", seed]


def test_missing_scores_are_named(files: list[Path]) -> None:
    with pytest.raises(InputError, match="no scores of newer on digits"):
        transfer(files, [("old", "newer")], [1.0])
    with pytest.raises(InputError, match="no score files"):
        transfer([], [("old", "new")], [1.0])
    with pytest.raises(InputError, match=r"no scores of old on digits \(prt, alpha 0.0, shots 16, seed 0\)"):
        transfer([f for f in files if "prt" not in f.name], [("old", "new")], [1.0])
    with pytest.raises(InputError, match="holds scores of a run that another file holds, too"):
        Scored([*files, files[0]])


def test_a_reward_on_other_images(files: list[Path], tmp_path: Path) -> None:
    """Table 5's rows: the target alone, with the reward of clean images, and with the one tuned further."""
    generator = torch.Generator().manual_seed(3)
    like = Scores.load(files[0])
    facts = {"dataset": "digits-noise", "fingerprint": "n", "labels": like.labels, "classes": CLASSES}
    made: dict[tuple[str, int | None], torch.Tensor] = {}
    noisy = []
    for method in ("pretrained", "prt", "adapted"):
        for seed in [None] if method == "pretrained" else [0, 1]:
            x = torch.randn(N, 4, generator=generator)
            alone = {
                "seed": seed,
                "alpha": None if seed is None else 0.0,
                "kind": "reward" if seed is not None else "log_probs",
            }
            noisy.append(tmp_path / f"noise.{method}.{seed}.safetensors")
            scores(backbone="old", method=method, values=x, **facts, **alone).save(noisy[-1])
            made[method, seed] = x.double()
    place = {"dataset": "digits-noise", "shots": "16", "source": "old", "target": "old", "alpha": 0.0, "strength": 1.0}
    cells = [Cell(method=m, seed=seed, **place) for m in ("pretrained", "prt", "adapted") for seed in (0, 1)]
    table, summary, comparison = tables(cells, Scored(noisy).result)
    for method in ("prt", "adapted"):
        expected = [
            (made["pretrained", None].add(made[method, seed]).argmax(1) == like.labels).double().mean().item()
            for seed in (0, 1)
        ]
        rows = table[(table.method == method) & table.headline]
        assert rows.value.tolist() == pytest.approx(expected)
        assert summary[(summary.method == method) & summary.headline].value.item() == pytest.approx(np.mean(expected))
    assert set(zip(comparison.method, comparison.baseline, strict=True)) == {
        ("prt", "pretrained"), ("prt", "adapted"), ("adapted", "pretrained")
    }  # fmt: skip
    with pytest.raises(InputError, match="scored on different examples"):
        Scored([*noisy, files[1]])
