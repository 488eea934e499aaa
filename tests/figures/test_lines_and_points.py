"""Figures 6a, 6b and 7 and the strength sweep: lines and points pass through the table."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.made_up import ALPHAS, SHOTS, SOURCES, STRENGTHS, TARGETS, curves, inside, language, summary
from torch import nn

from prt import reward
from prt.errors import InputError
from prt.figures import entropy, strength


def tuned(folder: Path, seed: int, values: list[tuple[int, float, float]]) -> Path:
    """A reward as it is tuned, with its curve."""
    facts = {"kind": "vision", "method": "prt", "alpha": 0.01, "seed": seed, "shots": "16", "recipe": {}}
    backbone = {"name": "vit", "model_cfg": {}, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3, "size": 32}}
    data = {"name": "digits", "fingerprint": "0"}
    named = {"backbone": backbone, "dataset": data, "classes": ["a"], "templates": ["{}"]}
    reward.save(folder / str(seed), nn.Linear(1, 1), facts | named)
    lines = ["iteration,prt,reward", *(",".join(map(str, line)) for line in values)]
    (folder / str(seed) / "curve.csv").write_text("\n".join(lines) + "\n")
    return folder / str(seed)


def test_curves_are_read_from_the_rewards(tmp_path: Path) -> None:
    """A row for each iteration and method, with the facts of its run."""
    runs = [tuned(tmp_path, 0, [(0, 0.4, 0.1), (10, 0.8, 0.6)]), tuned(tmp_path, 1, [(0, 0.4, 0.1), (10, 0.6, 0.4)])]
    table = entropy.read_curves(runs)
    assert sorted(table) == sorted(curves())
    assert table[["dataset", "shots", "source", "alpha", "metric"]].drop_duplicates().to_numpy().tolist() == [
        ["digits", "16", "vit", 0.01, "top1"]
    ]
    end = table[table["iteration"] == 10].set_index(["seed", "method"])["value"].to_dict()
    assert end == {(0, "prt"): 0.8, (0, "reward"): 0.6, (1, "prt"): 0.6, (1, "reward"): 0.4}
    rows = entropy.select_curves(table).set_index(["method", "iteration"])
    assert rows.loc[("prt", 10), ["value", "std", "seeds"]].tolist() == pytest.approx([0.7, 0.02**0.5, 2])
    (tmp_path / "1" / "curve.csv").unlink()
    with pytest.raises(InputError, match=r"curve.csv does not exist"):
        entropy.read_curves(runs)


def test_curves_pass_through_the_table() -> None:
    rows = entropy.select_curves(curves())
    drawn = entropy.figure_curves(rows)
    inside(drawn)
    lines = [line for axis in drawn.axes for line in axis.lines]
    assert len(lines) == len(SHOTS) * len(ALPHAS) * 2
    points = np.sort(np.concatenate([line.get_ydata() for line in lines]))
    np.testing.assert_allclose(points, np.sort(100 * rows["value"]))
    assert rows["seeds"].eq(3).all()
    with pytest.raises(InputError, match="'reward'"):
        entropy.select_curves(curves().query("method == 'prt'"))


@pytest.mark.parametrize("table", [summary(), language()])
def test_every_alpha_is_a_point(table: pd.DataFrame) -> None:
    """PRT's, without LoRA; the pretrained targets are not points."""
    rows = entropy.select_transfer(table)
    drawn = entropy.figure_transfer(rows)
    inside(drawn)
    points = np.concatenate([line.get_ydata() for axis in drawn.axes for line in axis.lines]).astype(float)
    prt = table[table["headline"] & ~table["lora"] & table["method"].eq("prt") & table["strength"].eq(1)]
    np.testing.assert_allclose(np.sort(points), np.sort(100 * prt["value"]))
    first = table.iloc[0]
    place = rf"'pretrained' on '{first.source}' with source '{first.source}' on {first.dataset} \({first.shots}\)"
    with pytest.raises(InputError, match=f"no headline accuracy of {place}; evaluate it"):
        entropy.select_transfer(table[table["method"] != "pretrained"])
    with pytest.raises(InputError, match="entropy term"):
        entropy.select_transfer(table[table["alpha"].fillna(0) == 0])


def test_the_sweep_passes_through_the_table() -> None:
    """Where one strength was tried, as on noisy images, there is no panel."""
    rows = strength.select(summary())
    drawn = strength.figure(rows)
    inside(drawn)
    lines = [line for axis in drawn.axes for line in axis.lines if np.size(line.get_xdata()) > 2]
    assert len(lines) == len(SOURCES) * len(TARGETS) * len(SHOTS) * 2
    points = np.sort(np.concatenate([line.get_ydata() for line in lines]))
    np.testing.assert_allclose(points, np.sort(100 * rows["value"]))
    single = summary(datasets=["mnist-noise"], strengths=[1.0])
    both = strength.select(pd.concat([single, summary()]))
    pd.testing.assert_frame_equal(both, rows)
    with pytest.raises(InputError, match="two strengths of 'prt'"):
        strength.select(single)


def test_what_was_not_tried_everywhere_is_drawn_where_it_was() -> None:
    """One source whose rewards have fewer α, fewer strengths, and one seed."""
    table = summary()
    few = table["source"].eq("rn12-rich") & table["shots"].eq("full")
    rows = entropy.select_transfer(table[~(few & table["alpha"].gt(0))])
    points = [sum(np.size(line.get_xdata()) for line in a.lines) for a in entropy.figure_transfer(rows).axes]
    assert points == [len(TARGETS) * len(ALPHAS)] * 3 + [0]
    sweep = strength.select(table[~(few & table["strength"].gt(1))])
    assert sweep.loc[few[sweep.index], "strength"].max() == 1
    longest = [max(np.size(line.get_xdata()) for line in axis.lines) for axis in strength.figure(sweep).axes]
    assert longest == [len(STRENGTHS)] * 3 + [3]
    some = entropy.select_curves(curves(SOURCES).query("source != 'rn12-rich' or seed == 0 and alpha > 0"))
    assert sorted(some["seeds"].unique()) == [1, 3]
    entropy.figure_curves(some)


def test_a_strength_that_was_chosen_stands_beside_the_sweep() -> None:
    """Of each method and target a point right of the greatest strength, with its interval."""
    table = summary()
    one = table[table["method"].eq("prt") & table["strength"].eq(1) & table["alpha"].eq(0)]
    chosen = one.assign(method="prt_chosen", strength=np.nan, value=one["value"] + 0.01)
    variant = chosen.assign(variant="half")
    rows = strength.select(pd.concat([table, chosen, variant]))
    assert len(rows) == len(strength.select(table)) + len(chosen[chosen["headline"]])
    drawn = strength.figure(rows)
    inside(drawn)
    points = [line for a in drawn.axes for line in a.lines if np.size(line.get_xdata()) == 1]
    values = sorted(float(line.get_ydata()[0]) for line in points)
    assert values == pytest.approx(sorted(100 * chosen.loc[chosen["headline"], "value"]))
    assert all(line.get_xdata()[0] > max(STRENGTHS) for line in points)
