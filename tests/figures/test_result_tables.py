"""Tables 4 to 7: each cell is its method's and its target's."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.made_up import (
    NAMES,
    SHOTS,
    SOURCES,
    TARGETS,
    comparison,
    inside,
    instructed,
    language,
    paper,
    read_sheet,
    summary,
    theory,
)

from figures.test_drawing import noise
from prt.errors import InputError
from prt.figures import noise_table, seeds_table, theory_table


@pytest.mark.parametrize("lora", [False, True])
def test_tables_4_and_6(tmp_path: Path, lora: bool) -> None:
    """Each cell of a line is its method's; the paper's number stands beside it; the mark says what it does not beat."""
    table = language()
    seeds_table.draw(table, comparison(table), tmp_path / "t", lora=lora, published=paper(), names=NAMES)
    rows = pd.read_csv(tmp_path / "t.csv")
    figure = seeds_table.figure(rows.assign(marks=rows.marks.fillna("")))
    inside(figure)
    lines = read_sheet(figure)
    titles = ["Pretrained", "PRT", "EFT", "PoE", "FT", "source's FT", "reward alone"]
    assert lines[0] == titles
    assert lines[1][:4] == ["benchmark", "source", "target", "seeds"]
    assert lines[2][:4] == ["gsm8k", "small", "small", "3"]
    columns = [t for t, more in zip(titles, (0, 1, 1, 0, 0, 0, 0), strict=True) for _ in range(1 + more)]
    cells = dict(zip(["target", "seeds", *columns], lines[4], strict=True))  # the paper's overwrite ours
    assert (cells["target"], cells["seeds"]) == ("large", "3")
    assert (cells["EFT"], cells["PRT"]) == (("56.4", "74.9") if lora else ("66.1 ± 2.4", "71.3 ± 0.6"))
    of = table[(table.dataset == "gsm8k") & (table.target == "large") & table.headline & ~table.alpha.gt(0)]
    pretrained = of[of.method == "pretrained"].value.item()
    assert cells["Pretrained"] == f"{100 * pretrained:.1f}"
    of = of[of.lora == lora].set_index("method")
    ours = [f"{100 * of.value[m]:.1f} ± {100 * of['std'][m]:.1f}" for m in ("prt", "eft", "poe")]
    of_this = comparison(table).query(
        f"dataset == 'gsm8k' and target == 'large' and metric == 'top1' and lora == {lora}"
    )
    verdicts = of_this.set_index(["method", "baseline"])["verdict"]
    marks = [
        "".join(x for b, x in seeds_table.MARKS.items() if verdicts[m, b] != "better") for m in ("prt", "eft", "poe")
    ]
    assert marks == ["", "", "‡"]
    assert [lines[4][i] for i in (3, 5, 7)] == [cell + mark for cell, mark in zip(ours, marks, strict=True)]
    assert lines[5][1] == f"{100 * of.low['prt']:.1f}–{100 * of.high['prt']:.1f}"
    assert "paired differences" in lines[-2][0] + lines[-1][0]


def test_a_table_without_lora_has_no_table_6() -> None:
    table = language()
    with pytest.raises(InputError, match="no PRT with LoRA at alpha 0"):
        seeds_table.select(table[~table.lora], comparison(table), True)


def test_a_table_of_one_seed_has_no_spread() -> None:
    table = instructed()
    rows = seeds_table.select(table, comparison(table), False).assign(paper=np.nan, paper_std=np.nan)
    lines = read_sheet(seeds_table.figure(rows))
    assert "Instruct" in lines[0]
    assert "paper" not in lines[1]
    assert not any("±" in cell for line in lines[2:-2] for cell in line)


def test_images_have_a_line_for_each_number_of_shots() -> None:
    """And the marks of their own comparison."""
    table = summary()
    rows = seeds_table.select(table, comparison(table), False).assign(paper=np.nan, paper_std=np.nan)
    lines = read_sheet(seeds_table.figure(rows))
    first = [line[0] for line in lines]
    assert (first.count("mnist, 16 shots"), first.count("mnist, full data")) == (1, 1)
    assert len(lines) == 2 + 2 * len(SHOTS) * len(SOURCES) * len(TARGETS) + 2


def test_noise_stands_under_its_target() -> None:
    """A line for each data set and reward; – where a target was not measured; ± is half of the interval."""
    table = noise()
    gone = table["target"].eq("vit-b-poor") & table["method"].eq("adapted")
    read = read_sheet(noise_table.figure(noise_table.select(table[~gone])))

    def cells(dataset: str, method: str) -> list[str]:
        of = table[table["dataset"].eq(dataset) & table["method"].eq(method) & table["metric"].eq("top1")]
        of = of[~of["alpha"].gt(0) & of["strength"].fillna(1).eq(1)]
        return [f"{100 * value:.1f} ± 3.0" for value in of["value"]]

    assert read == [
        ["reward of vit-s-poor, put on"],
        ["images", "reward", "vit-s-poor", "vit-b-poor"],
        ["digits", "none (target alone)", *cells("digits", "pretrained")],
        ["tuned on clean images", *cells("digits", "prt")],
        ["digits-noise", "none (target alone)", *cells("digits-noise", "pretrained")],
        ["tuned on clean images", *cells("digits-noise", "prt")],
        ["tuned further on noise", cells("digits-noise", "adapted")[0], "–"],
    ]
    with pytest.raises(InputError, match="no headline accuracy of 'adapted'"):
        noise_table.draw(table[table["dataset"] == "digits"], Path("nowhere"))
    with pytest.raises(InputError, match="more than one 'source'"):
        noise_table.draw(pd.concat([table, table.assign(source="other")]), Path("nowhere"))


def test_table_7_shows_means_over_seeds() -> None:
    table = theory_table.select(theory())
    assert len(table) == len(SOURCES) * len(TARGETS) * len(SHOTS)
    place = "source == 'rn12-rich' and target == 'vit-s-poor' and shots == '16'"
    expected = theory().query(f"alpha == 0 and {place}")[["epsilon", "C", "bound"]].mean()
    np.testing.assert_allclose(table.query(place)[expected.index].iloc[0], expected)
    cells = [f"{expected.epsilon:.2f}", f"{expected.C:.1f}", f"{expected.bound:.1f}"]
    lines = read_sheet(theory_table.figure(table))
    assert lines[6][:2] == ["rn12-rich", "rn12-rich"]  # the source's own row is first
    assert lines[7][:4] == ["vit-s-poor", *cells]
    some = theory_table.select(theory().query("source != 'rn12-rich' or shots == 'full'"))
    texts = [text.get_text() for text in theory_table.figure(some).axes[0].texts]
    assert texts.count("–") == 3 * len(TARGETS)
    with pytest.raises(InputError, match="alpha 0"):
        theory_table.select(theory().query("alpha > 0"))


def test_the_published_tables_are_whole() -> None:
    """A number for each cell of the paper's Tables 3, 4 and 6."""
    printed = paper()
    printed = printed[printed["item"].isin(["table3", "table4", "table6"])]
    assert not printed.duplicated(["item", "source", "target", "method"]).any()
    assert printed.groupby("item").size().to_dict() == {"table3": 9, "table4": 10, "table6": 10}
    assert set(printed.method) == {"pretrained", "eft", "prt"}
