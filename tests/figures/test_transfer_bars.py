"""Figures 2 to 4 and their kin: every bar equals the table, and what is missing is named."""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.made_up import LANGUAGE, NAMES, PANELS, SHOTS, TARGETS, figure3, inside, instructed, language, summary
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex

from prt.errors import InputError
from prt.figures.transfer_bars import BARS, READ, WIDTH, Panel, bars, draw, figure, select
from prt.methods import AS_TEXT, METHODS
from prt.select import chosen


@pytest.mark.parametrize(
    ("table", "panels", "last"),
    [(summary(), PANELS, "ft"), (language(), LANGUAGE, "ft"), (instructed(), LANGUAGE, "instruct")],
)
def test_bars_are_as_high_as_the_table_says(table: pd.DataFrame, panels: list[Panel], last: str) -> None:
    """Every bar: its height, its place and its colour; and the line of the source's FT. No LoRA, no α above 0."""
    rows = select(table, panels)
    drawn = figure(rows, panels)
    inside(drawn)
    methods = (*BARS[:3], last)
    places = itertools.product(panels, table["dataset"].unique(), table["shots"].unique())
    for (panel, dataset, shots), axis in zip(places, drawn.axes, strict=True):
        here = table[table["source"].eq(panel["source"]) & table["dataset"].eq(dataset) & table["shots"].eq(shots)]
        here = here[here["headline"] & ~here["lora"] & ~here["alpha"].gt(0) & here["strength"].fillna(1).eq(1)]
        values = 100 * here.set_index(["target", "method"])["value"]
        names = [label.get_text() for label in axis.get_xticklabels()]
        assert names == [panel["source"], *panel["targets"]]
        patches = [patch for container in axis.containers for patch in getattr(container, "patches", [])]
        assert len(patches) == len(names) * len(methods)
        for bar in patches:
            middle = bar.get_x() + bar.get_width() / 2
            target = names[round(middle)]
            method = methods[round((middle - round(middle)) / WIDTH) + 2]
            assert bar.get_height() == pytest.approx(values[target, method])
            assert to_hex(bar.get_facecolor()).upper() == METHODS[method].colour
        dashed = next(line for line in axis.lines if line.get_linestyle() == "--")
        kept = values[panel["source"], "source_ft"]
        assert np.asarray(dashed.get_ydata())[0] == pytest.approx(kept)
        assert axis.get_ylim()[0] == 0


def test_a_target_of_another_tokenizer_has_bars_of_other_methods() -> None:
    """In the same places, in colours of their own, which the legend names."""
    table = language()
    across = table["target"].eq("large") & table["method"].isin(list(AS_TEXT))
    table["method"] = table["method"].mask(across, table["method"].replace(AS_TEXT))
    drawn = figure(select(table, LANGUAGE), LANGUAGE)
    names = [text.get_text() for text in drawn.legends[0].get_texts()]
    assert len(set(names)) == len(names)
    assert {METHODS[name].label for pair in AS_TEXT.items() for name in pair} <= set(names)
    for axis in drawn.axes:
        patches = [patch for container in axis.containers for patch in getattr(container, "patches", [])]
        colours = {(round(bar.get_x() + bar.get_width() / 2), to_hex(bar.get_facecolor()).upper()) for bar in patches}
        for plain, text in AS_TEXT.items():
            assert {(0, METHODS[plain].colour), (1, METHODS[text].colour)} <= colours
            assert (1, METHODS[plain].colour) not in colours
    with pytest.raises(InputError, match="no headline accuracy of 'prt' on 'large'"):
        select(table[table["method"].ne("prt-text")], LANGUAGE)


def test_shots_are_in_the_titles_where_they_differ() -> None:
    """Also where pandas read a column of 16s as integers."""
    titles = [axis.get_title() for axis in figure(select(summary(), PANELS), PANELS).axes]
    assert titles == ["mnist, 16 shots", "mnist, full data", "", ""]
    rows = select(summary(shots=["16"]).assign(shots=16), PANELS)
    assert [axis.get_title() for axis in figure(rows, PANELS).axes] == ["mnist, 16 shots", ""]
    assert [axis.get_title() for axis in figure(select(language(), LANGUAGE), LANGUAGE).axes] == ["gsm8k", "ifeval"]


def test_panels_of_one_source_may_differ() -> None:
    """As in the paper, where one source has a panel per scenario."""
    panels: list[Panel] = [
        {"source": "vit-s-poor", "targets": ["vit-b-poor"]},
        {"source": "vit-s-poor", "targets": ["vit-s-poor", "rn12-rich", "rn24-rich"]},
    ]
    rows = select(summary(), panels)
    assert [len(axis.get_xticks()) for axis in figure(rows, panels).axes] == [2, 2, 3, 3]
    assert not rows.duplicated().any()


def test_without_poe() -> None:
    table = summary()
    drawn = figure(select(table[table["method"] != "poe"], PANELS), PANELS)
    assert "PoE" not in [text.get_text() for text in drawn.legends[0].texts]
    drawn = figure(select(table, PANELS), PANELS)
    assert "PoE" in [text.get_text() for text in drawn.legends[0].texts]


def test_the_paper_s_bars_are_ticks_beside_ours(tmp_path: Path) -> None:
    draw(instructed(), tmp_path / "figure3", panels=LANGUAGE, published=figure3(), names=NAMES)
    rows = pd.read_csv(tmp_path / "figure3.csv")
    read = figure3()
    for ours, theirs in NAMES.items():
        there = read[(read.target == theirs) & (read.source == "Qwen2.5-0.5B")].set_index(["benchmark", "method"])
        here = rows[rows.target == ours].set_index(["dataset", "method"])["paper"]
        for place, percent in there["value_percent"].items():
            assert here[place] == percent
    assert rows.loc[rows.method.isin(["poe", "source_ft"]), "paper"].isna().all()
    axis = figure(rows, LANGUAGE).axes[0]
    lines = [c for c in axis.collections if isinstance(c, LineCollection)]
    ticks = {y for c in lines if to_hex(c.get_color()[0]).upper() == READ
             for segment in c.get_segments() for _, y in segment}  # fmt: skip
    assert ticks == {2, 30, 25, 28, 8, 70, 72, 55}
    with pytest.raises(InputError, match="two numbers for Falcon3-1B, Falcon3-7B, eft, gsm8k"):
        draw(instructed(), tmp_path / "x", panels=LANGUAGE, published=pd.concat([read, read[50:]]), names=NAMES)


def test_no_bar_is_cut_where_panels_share_an_axis() -> None:
    """The lower panel is the higher one."""
    table = language()
    low = table.assign(source="weak", target=table.target.replace("small", "weak"))
    low[["value", "low", "high"]] /= 4
    panels: list[Panel] = [{"source": "weak", "targets": ["large"]}, *LANGUAGE]
    rows = select(pd.concat([low, table]), panels)
    for axis in figure(rows, panels).axes:
        assert axis.get_ylim()[0] == 0
        assert axis.get_ylim()[1] > max(bar.get_height() for bar in axis.patches)
        assert axis.get_ylim()[1] > 100 * rows.value.max() * (axis.get_title() == "ifeval")


def test_many_benchmarks_of_one_source_go_into_rows() -> None:
    table = chosen(language(), "gsm8k")
    many = pd.concat([table.assign(dataset=f"benchmark-{i}") for i in range(7)])
    drawn = figure(select(many, LANGUAGE), LANGUAGE)
    inside(drawn)
    assert [axis.get_title() for axis in drawn.axes] == [f"benchmark-{i}" for i in range(7)]
    assert len({round(axis.get_position().y0, 3) for axis in drawn.axes}) == 2
    assert drawn.get_figwidth() < 7.5


def test_published_models_of_other_families_leave_a_figure_as_it_is() -> None:
    other = instructed().assign(source="other", target=instructed().target.replace("small", "other"))
    assert bars(select(pd.concat([language(), other]), LANGUAGE)) == BARS


def test_what_is_missing_is_named() -> None:
    """A source that was never evaluated, one method absent on one target or everywhere, and nothing at all."""
    table = summary()
    with pytest.raises(InputError, match="'pretrained' on 'vit-huge' with source 'vit-huge' on mnist"):
        select(table, [*PANELS, {"source": "vit-huge", "targets": TARGETS}])
    gone = table["method"].eq("ft") & table["target"].eq("rn24-rich") & table["shots"].eq(SHOTS[1])
    with pytest.raises(InputError, match=r"'ft' on 'rn24-rich' with source 'vit-s-poor' on mnist \(full\)"):
        select(table[~gone], PANELS)
    with pytest.raises(InputError, match="'source_ft' with source 'vit-s-poor'"):
        select(table[table["method"] != "source_ft"], PANELS)
    for nothing in (table[:0], table[table["alpha"] > 0]):
        with pytest.raises(InputError, match="no headline accuracies at alpha 0"):
            select(nothing, PANELS)


def test_the_numbers_read_off_the_paper_are_whole() -> None:
    """A number for each bar of the paper's Figure 3."""
    read = figure3()
    assert read.groupby(["panel", "benchmark", "target"])["method"].nunique().eq(4).all()
    assert read.groupby("panel")["target"].nunique().to_dict() == dict(
        zip(read.panel.unique(), (2, 4, 5, 4), strict=True)
    )
    assert (read.groupby("panel")["target"].first() == read.groupby("panel")["source"].first()).all()
    assert set(read.method) == {*BARS[:3], "instruct"}
