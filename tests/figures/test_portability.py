"""The portability study's pictures: every gain, correlation and mean is the table's."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.made_up import STRENGTHS, TARGETS, comparison, inside, summary, theory
from scipy.stats import spearmanr

from prt.errors import InputError
from prt.figures import ageing, bound, calibration, portability

VARIANTS = ("half", "random")


def varied(table: pd.DataFrame) -> pd.DataFrame:
    """A table of rewards that were tuned in two further ways, each a little better."""
    prt = table[table["method"].eq("prt") & table["alpha"].eq(0)]
    shown = [prt.assign(variant=name, value=prt["value"] + 0.01 * (n + 1)) for n, name in enumerate(VARIANTS)]
    return pd.concat([table, *shown], ignore_index=True)


def compared() -> pd.DataFrame:
    """Comparisons of those, with PoE as a baseline, a weight difference, and a strength and a way that were chosen."""
    table = varied(summary(sources=["vit-s-poor"], shots=["16"], datasets=["digits", "mnist"]))
    found = comparison(table)
    found["variant"] = found["variant"].astype(object)
    poe = found[found["method"].eq("prt") & found["baseline"].eq("pretrained")].assign(baseline="poe", difference=0.05)
    merged = poe[poe["variant"].isna()].assign(method="poe", baseline="difference", difference=-0.02, low=-0.03, high=0)
    chosen = found[found["method"].eq("prt") & found["variant"].isna()].assign(method="prt_best")
    alike = poe[poe["variant"].isna()].assign(method="prt_best", baseline="poe_chosen", difference=0.04)
    lora = found[found["method"].eq("prt")].assign(lora=True, difference=0.9)  # Table 6's
    return pd.concat([found, poe, merged, chosen, alike, lora], ignore_index=True)


def test_gains(tmp_path: Path) -> None:
    table = compared()
    rows = portability.select(table)
    assert not (rows["source"] == rows["target"]).any() and not rows["lora"].any()
    assert not rows.duplicated(["way", "over", "dataset", "source", "target", "metric"]).any()
    ways = ["PRT", *VARIANTS, "PRT, tuning and strength chosen", "EFT", "PoE", "weight difference"]
    assert list(rows["way"].unique()) == ways
    over = rows[rows["over"] == "over PoE"].set_index(["way", "dataset", "target"])["difference"]
    assert over["PRT"].eq(0.05).all()  # at strength 1 against PoE at strength 1
    assert over["PRT, tuning and strength chosen"].eq(0.04).all()  # against PoE whose strength is chosen, too
    turned = rows[(rows["over"] == "over PoE") & (rows["way"] == "weight difference")]
    assert turned["difference"].eq(0.02).all() and turned["low"].eq(0).all() and turned["high"].eq(0.03).all()
    drawn = portability.figure(rows)
    inside(drawn)
    points = [100 * rows["difference"], [x for a in drawn.axes for line in a.lines for x in line.get_xdata()]]
    assert set(np.round(points[0], 6)) <= set(np.round(np.asarray(points[1], float), 6))
    portability.draw(table, tmp_path / "portability")
    assert (tmp_path / "portability.pdf").stat().st_size > 1000
    with pytest.raises(InputError, match="has no variant of a reward on another model"):
        portability.select(table[table["variant"].isna()])


def test_the_bound_beside_the_gains() -> None:
    """Gains are those of the summary at strength 1; correlations are SciPy's, and pretrainings are kept apart."""
    tables = varied(summary(alphas=[0.0, 0.1]))
    own = theory().query("alpha == 0")
    others = [own.assign(variant=name, C=own["C"] * (2 + number)) for number, name in enumerate(VARIANTS)]
    constants = pd.concat([theory(), *others])
    rows = bound.select(constants, tables)
    keys = ["source", "target", "shots"]
    assert len(rows) == 2 * 3 * 2 * (1 + len(VARIANTS))  # sources, other targets, shots, and ways to tune
    here = tables[tables["headline"]]
    one = rows[rows["variant"].eq("half")].iloc[0]
    place = here[np.logical_and.reduce([here[key].eq(one[key]) for key in keys])]
    prt = place[place["variant"].eq("half") & place["strength"].eq(1)]["value"].iloc[0]
    assert one["gain"] == pytest.approx(prt - place.loc[place["method"].eq("pretrained"), "value"].iloc[0])
    assert one["kept"] == pytest.approx(prt - place.loc[place["method"].eq("source_ft"), "value"].iloc[0])
    over, within = bound.correlations(rows, "C", "gain")
    assert over == [pytest.approx(spearmanr(rows["C"], rows["gain"]).statistic)]
    inner = [spearmanr(of["C"], of["gain"]).statistic for _, of in rows.groupby(keys)]
    assert within == [pytest.approx(np.mean(inner))]
    assert bound.correlations(rows, "epsilon", "gain")[1] == []  # of pretrained models: one value in a transfer
    twice = [pd.concat([t.assign(pretraining=p) for p in "ab"]) for t in (constants, tables)]
    assert bound.correlations(bound.select(*twice), "C", "gain")[0] == [pytest.approx(over[0])] * 2
    inside(bound.figure(rows))
    assert bound.said([-0.25]) == "−0.25" and bound.said([-0.5, 0.5]) == "+0.00 (−0.50 to +0.50)"
    with pytest.raises(InputError, match="fewer than three rewards"):
        bound.select(constants, tables[tables["source"] == tables["target"]])


def test_calibration_over_the_strength() -> None:
    """Lines are means over the targets of a source, without itself."""
    table = varied(summary())
    both = pd.concat([table, table[table["metric"].eq("top1")].assign(metric="ece", headline=False, value=0.1)])
    rows = calibration.select(both)
    assert rows["targets"].eq(len(TARGETS) - 1).all() and set(rows["metric"]) == {"top1", "ece"}
    facts = {"shots": "16", "source": "vit-s-poor", "variant": "half", "strength": 0.5, "metric": "top1"}
    of = both[np.logical_and.reduce([both[key].eq(value) for key, value in facts.items()])]
    mean = of.loc[of["target"] != "vit-s-poor", "value"].mean()
    mine = rows[np.logical_and.reduce([rows[key].eq(value) for key, value in facts.items()])]
    assert mine["value"].tolist() == [pytest.approx(mean)]
    drawn = calibration.figure(rows)
    inside(drawn)
    lines = [line for axis in drawn.axes for line in axis.lines if np.size(line.get_xdata()) == len(STRENGTHS)]
    assert len(lines) == 2 * 4 * (2 + len(VARIANTS))  # metrics, panels; PRT, EFT and the variants
    with pytest.raises(InputError, match="no two strengths"):
        calibration.select(both[both["strength"].fillna(1).eq(1)])


def test_a_chain_of_targets() -> None:
    """In the order that was asked for, with the target's own accuracy under each."""
    table = varied(summary(datasets=["digits", "mnist"], shots=["16"]))
    chain = ["vit-b-poor", "rn24-rich", "rn12-rich"]
    rows = ageing.select(table, "vit-s-poor", chain)
    assert list(rows["target"].unique()) == chain and set(rows["source"]) == {"vit-s-poor"}
    assert rows["variant"].isna().all()
    drawn = ageing.figure(rows)
    inside(drawn)
    value = rows.set_index(["dataset", "method", "target"])["value"].sort_index()
    for axis, dataset in zip(drawn.axes[2:], ("digits", "mnist"), strict=True):
        own = value[dataset, "pretrained"].loc[chain]
        assert [tick.get_text() for tick in axis.get_xticklabels()] == [
            f"{name}\n{100 * own[name]:.0f} %" for name in chain
        ]
        gains = [tuple(np.round(line.get_ydata(), 6)) for line in axis.lines]
        kept = value[dataset, "source_ft"].iloc[0]
        for method in ("prt", "ft", "source_ft"):
            assert tuple(np.round(100 * (value[dataset, method].loc[chain] - kept), 6)) in gains
    with pytest.raises(InputError, match="the summary has no 'prt' on 'rn12-rich' of the chain"):
        ageing.select(table[~(table["method"].eq("prt") & table["target"].eq("rn12-rich"))], "vit-s-poor", chain)


def test_long_names_stay_inside() -> None:
    names = {"vit-s-poor": "a-source-with-a-very-long-name", "vit-b-poor": "ViT-L-14-336 (OpenAI, 336 pixels)"}
    table = compared().replace({"source": names, "target": names})
    inside(portability.figure(portability.select(table)))
    chain = [names["vit-b-poor"], "rn12-rich", "rn24-rich", *(f"model-number-{n}-of-a-chain" for n in range(3))]
    table = summary(sources=chain[:1], targets=chain, shots=["16"], datasets=["a", "b"])
    inside(ageing.figure(ageing.select(table, chain[0], chain)))
