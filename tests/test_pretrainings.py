"""Several pretrainings: the mean of K experiments, with Student's interval, however far they are apart."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers import made_up
from helpers.pipeline import ROOT
from scipy import stats

from prt.errors import InputError
from prt.pretrainings import over_pretrainings
from prt.tables import COMPARISON, SUMMARY

ROW = {
    **{"dataset": "digits", "shots": "16", "source": "a", "target": "b", "lora": False, "metric": "top1"},
    **{"headline": True, "alpha": np.nan, "variant": np.nan, "strength": np.nan, "seeds": 3, "n": 100},
}


def summary(values: dict[str, float]) -> pd.DataFrame:
    rows = [ROW | {"method": name, "value": value, "std": 0.1, "low": 0, "high": 1} for name, value in values.items()]
    return pd.DataFrame(rows)[SUMMARY]


def comparison(differences: dict[str, float]) -> pd.DataFrame:
    rows: list[dict[str, Any]] = [
        ROW | {"method": "prt", "baseline": name, "difference": value, "low": 0, "high": 0, "p": 1, "p_holm": 1}
        for name, value in differences.items()
    ]
    return pd.DataFrame(rows).assign(verdict="better")[COMPARISON]


def test_levels() -> None:
    """The order of rows is each table's own; keys without a value agree."""
    tables = [
        summary({"pretrained": 0.5, "prt": 0.7}),
        summary({"prt": 0.8, "pretrained": 0.5}),
        summary({"pretrained": 0.5, "prt": 0.3}),
    ]
    found = over_pretrainings("summary", tables).set_index("method")
    x = np.array([0.7, 0.8, 0.3])
    half = stats.t.ppf(0.975, 2) * x.std(ddof=1) / 3**0.5
    prt = found.loc["prt"]
    expected = [0.6, x.std(ddof=1), 0.3, 0.8, 0.6 - half, 0.6 + half, 3]
    assert list(prt[["value", "std", "min", "max", "low", "high", "pretrainings"]]) == pytest.approx(expected)
    # Five equal values are no certainty: no interval is better than one of no length.
    assert found.loc["pretrained", "value"] == 0.5
    assert found.loc["pretrained", ["low", "high"]].isna().all()


def test_differences() -> None:
    """Signs that agree are not enough: a difference must be large beside its spread, and Holm's p is the larger."""
    numbers = {"pretrained": [0.2, 0.22, 0.21], "eft": [0.01, 0.3, 0.02], "ft": [-0.1, -0.13, -0.12], "poe": [0.0] * 3}
    tables = [comparison({name: of[k] for name, of in numbers.items()}) for k in range(3)]
    found = over_pretrainings("comparison", tables).set_index("baseline")
    expected = {"pretrained": "better", "eft": "not told apart", "ft": "worse", "poe": "not told apart"}
    assert found["verdict"].to_dict() == expected
    p = {name: stats.ttest_1samp(of, 0).pvalue for name, of in numbers.items() if name != "poe"}
    assert found["p"].dropna().to_dict() == pytest.approx(p)
    assert found.loc["pretrained", "p_holm"] == pytest.approx(3 * p["pretrained"])
    assert np.isnan(found.loc["poe", "p_holm"])


def test_what_cannot_be_put_together() -> None:
    one, other = summary({"prt": 0.5}), summary({"eft": 0.5})
    with pytest.raises(InputError, match="one pretraining has no spread"):
        over_pretrainings("summary", [one])
    with pytest.raises(InputError, match="have other rows"):
        over_pretrainings("summary", [one, other])


@pytest.fixture
def experiments(tmp_path: Path) -> list[Path]:
    """Two experiments of the demo's configuration, with made-up tables."""
    demo = (ROOT / "config" / "demo.yaml").read_text(encoding="utf-8")
    folders = [tmp_path / "zero", tmp_path / "one"]
    for seed, folder in enumerate(folders):
        for half in ("vision", "language"):
            (folder / half).mkdir(parents=True)
            summary({"prt": 0.5 + seed / 10}).to_csv(folder / half / "summary.csv", index=False)
            comparison({"eft": 0.1 + seed / 10}).to_csv(folder / half / "comparison.csv", index=False)
        (folder / "config.yaml").write_text(f"{demo}\npretraining_seed: {seed}\n", encoding="utf-8")
    return folders


def test_the_command(prt: Callable[..., tuple[int, str, str]], experiments: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert prt("pretrainings", *experiments, "--out", out)[0] == 0
    for half in ("vision", "language"):
        assert pd.read_csv(out / half / "summary.csv")["value"].item() == pytest.approx(0.55)
        assert pd.read_csv(out / half / "comparison.csv")["difference"].item() == pytest.approx(0.15)


def test_experiments_of_other_kinds(
    prt: Callable[..., tuple[int, str, str]], experiments: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    code, _, complaint = prt("pretrainings", experiments[0], experiments[0], "--out", out)
    assert (code, complaint.count("\n")) == (1, 1)
    assert "the same pretraining_seed" in complaint
    config = experiments[1] / "config.yaml"
    config.write_text(config.read_text().replace("validation: 0.05", "validation: 0.1"))
    code, _, complaint = prt("pretrainings", *experiments, "--out", out)
    assert (code, complaint.count("\n")) == (1, 1)
    assert "differ in more than pretraining_seed" in complaint
    assert not out.exists()


def test_the_study_s_pictures(prt: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    """Of experiments with variants: each as one experiment draws it, of the tables of all."""
    study = (ROOT / "config" / "portability.yaml").read_text(encoding="utf-8")
    folders = [tmp_path / "zero", tmp_path / "one"]
    images = ["rn12-150", "rn12-300", "rn12-500", "rn12-700", "rn24-700"]
    language = ["s-poor", "m-rich-300", "m-rich-700", "m-rich", "l-rich"]
    for seed, folder in enumerate(folders):
        for half, (source, *targets) in (("vision", images), ("language", language)):
            (folder / half).mkdir(parents=True)
            table = made_up.summary([source], [source, *targets], alphas=[0.0])
            prt_rows = table[table["method"] == "prt"]
            table = pd.concat([table, prt_rows.assign(variant="half", value=prt_rows["value"] + 0.01 * seed)])
            table.to_csv(folder / half / "summary.csv", index=False)
            compared = made_up.comparison(table)
            compared.assign(p=0.5, p_holm=0.5)[COMPARISON].to_csv(folder / half / "comparison.csv", index=False)
        theory = made_up.theory().query("alpha == 0").replace({"source": {"vit-s-poor": images[0]}})
        theory = theory.replace({"target": dict(zip(made_up.TARGETS, images[:4], strict=True))})
        theory.to_csv(folder / "vision" / "theory.csv", index=False)
        (folder / "config.yaml").write_text(f"{study}\npretraining_seed: {seed}\n", encoding="utf-8")
    assert prt("pretrainings", *folders, "--out", tmp_path / "out")[0] == 0
    drawn = {path.stem for path in (tmp_path / "out" / "figures").glob("*.png")}
    assert drawn == {"portability_vision", "portability_language", "bound", "calibration", "ageing", "ageing_language"}
    bound = pd.read_csv(tmp_path / "out" / "figures" / "bound.csv")
    assert set(bound["pretraining"]) == {"zero", "one"}
    ageing = pd.read_csv(tmp_path / "out" / "figures" / "ageing_language.csv")
    assert list(ageing["target"].unique()) == language[1:] and ageing["pretrainings"].eq(2).all()
