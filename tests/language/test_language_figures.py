"""The figures of the language half: what is drawn equals the table, and nothing falls out of the page."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from test_figures import read_sheet
from test_language_tables import PAIRS, evaluated

from prt.errors import InputError
from prt.figures import decoding_table, entropy, next_tokens, seeds_table, style, transfer_bars
from prt.language.transfer import transfer
from prt.tables import read_table, write_table

PUBLISHED = Path(__file__).parents[2] / "config" / "published"
PANELS: list[transfer_bars.Panel] = [{"source": "small", "targets": ["large"]}]
NAMES = {"small": "Qwen2.5-0.5B", "large": "Qwen2.5-7B"}
Tables = tuple[pd.DataFrame, pd.DataFrame]


def read_again(folder: Path, *tables: pd.DataFrame) -> Tables:
    """Summary and comparison as they come back from their files."""
    for name, table in zip(("transfer", "summary", "comparison"), tables, strict=True):
        write_table(folder / f"{name}.csv", table)
    summary, comparison = (read_table(folder / f"{name}.csv", {}, ["dataset"]) for name in ("summary", "comparison"))
    return summary, comparison


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """Summary and comparison of one pair, with LoRA and without."""
    folder = tmp_path_factory.mktemp("ft")
    files = evaluated(folder, loras=(False, True), alphas=(0.0, 0.01, 0.1))
    return read_again(folder, *transfer(files.values(), PAIRS))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """The same with published instruct models, a single seed and no LoRA."""
    folder = tmp_path_factory.mktemp("instruct")
    files = evaluated(folder, seeds=(0,), alphas=(0.0,), instruct=True)
    return read_again(folder, *transfer(files.values(), PAIRS))


def paper() -> pd.DataFrame:
    return pd.read_csv(PUBLISHED / "paper.csv")


def figure3() -> pd.DataFrame:
    return pd.read_csv(PUBLISHED / "figure3.csv")


def costs_frame() -> pd.DataFrame:
    """Made-up measurements of Table 3: three methods, two variants, and the speculative one."""
    rows = []
    for target, source in (("Llama-2-13B", "Llama-2-7B"), ("Llama-3-8B", "Llama-3.2-1B")):
        for method, slower in (("pretrained", 1.0), ("eft", 1.6), ("prt", 1.3), ("prt_speculative", 0.8)):
            for variant, ms in (("eager", 26.0), ("compiled", 14.0)):
                facts = ("table3", source, target, method, variant)
                rows += [
                    (*facts, "time_per_token", ms * slower, 0.25, "ms"),
                    (*facts, "tokens_per_second", 1000 / ms / slower, 0.5, "1/s"),
                    (*facts, "bytes_bound", 12.5 * slower, np.nan, "ms"),
                    (*facts, "relative_speed", 1 / slower, np.nan, ""),
                ]
                if method == "prt_speculative":
                    rows.append((*facts, "acceptance", 0.82, 0.02, ""))
    columns = "table source target method variant quantity value std unit".split()
    facts = {"prompt_tokens": 512, "new_tokens": 128, "repeats": 10, "precision": "bf16", "weights": "tuned"}
    return pd.DataFrame(rows, columns=columns).assign(**facts, device="NVIDIA A100-SXM4-80GB", torch="2.14.1")


QUESTION = (
    "Question: Janet’s ducks lay 16 eggs per day. She eats three for breakfast every morning and bakes muffins for her "
    "friends every day with four. She sells the remainder at the farmers' market daily for $2 per fresh duck egg. How "
    "much in dollars does she make every day at the farmers' market?\nAnswer:"
)
ANSWER = (
    " Janet eats 3 eggs and bakes 4, so she sells 16 - 3 - 4 = 9 eggs per day.\nShe makes 9 * $2 = $18 every day at "
    "the farmers' market.\n#### 18"
)


def position(index: int, before: str, chosen: str, without: str) -> dict[str, Any]:
    """One chosen place: the reward turns the target from ``without`` to ``chosen``."""
    top = [[without, 0.41], [chosen, 0.22], [" the", 0.12], ["\n\n", 0.05], [" dollars_and_cents", 0.01]]
    return {
        "index": index,
        "before": (QUESTION + before)[-40:],
        "chosen": chosen,
        "without": top,
        "with": [[chosen, 0.93], [without, 0.03], [" $", 0.02], ["   ", 0.01], ["\t", 0.001]],
    }


def next_content() -> dict[str, Any]:
    """Figure 5 as it is written by the decoding: the last position is the end of the text."""
    cuts = [(" Janet", " $"), (" 9", "9"), ("\n", " So"), ("####", "The")]
    positions = []
    for number, (chosen, without) in enumerate(cuts):
        at = ANSWER.index(chosen, 20 if number in (1, 2) else 0)
        positions.append(position(3 * number, ANSWER[:at], chosen, without))
    positions.append(position(60, ANSWER, "<|end_of_text|>", "\n"))
    return {
        "target": "Llama-3-8B",
        "reward": "Llama-3.2-1B",
        "prompt": QUESTION,
        "answer": ANSWER,
        "positions": positions,
    }


DRAW: dict[str, Callable[[Tables, Tables, Path], None]] = {
    "figure3": lambda _, b, stem: transfer_bars.draw(b[0], PANELS, stem, figure3(), NAMES),
    "figure4": lambda a, _, stem: transfer_bars.draw(a[0], PANELS, stem),
    "figure7": lambda a, _, stem: entropy.draw_transfer(a[0], stem),
    "figure5": lambda _, __, stem: next_tokens.draw(next_content(), stem),
    "table3": lambda _, __, stem: decoding_table.draw(costs_frame(), stem, paper()),
    "table4": lambda a, _, stem: seeds_table.draw(*a, stem, False, paper(), NAMES),
    "table6": lambda a, _, stem: seeds_table.draw(*a, stem, True, paper(), NAMES),
}


@pytest.fixture(scope="module")
def drawn(tables: Tables, published: Tables, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every figure."""
    folder = tmp_path_factory.mktemp("drawn")
    for name, draw in DRAW.items():
        draw(tables, published, folder / name)
    return folder


def inside(figure: Figure) -> None:
    """Nothing is cut off at the edge of the page."""
    figure.set_dpi(200)  # as it is saved
    FigureCanvasAgg(figure).draw()
    page, box = figure.bbox, figure.get_tightbbox()
    width, height = page.width / figure.dpi, page.height / figure.dpi
    assert box.x0 > -0.02
    assert box.y0 > -0.02
    assert box.x1 < width + 0.02
    assert box.y1 < height + 0.02


@pytest.mark.parametrize("name", DRAW)
def test_three_files_and_nothing_else(drawn: Path, name: str) -> None:
    assert sorted(p.name for p in drawn.glob(f"*{name}*")) == [f"{name}.{end}" for end in ("csv", "pdf", "png")]
    assert (drawn / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    assert (drawn / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_bars_of_the_language_half(tables: Tables, published: Tables) -> None:
    """The target's own fine-tuning is the last bar, or the published model where there is one; no LoRA, no α."""
    for (summary, _), last in ((tables, "ft"), (published, "instruct")):
        rows = transfer_bars.select(summary, PANELS)
        figure = transfer_bars.figure(rows, PANELS)
        inside(figure)
        assert [axis.get_title() for axis in figure.axes] == ["gsm8k", "ifeval"]
        for axis, dataset in zip(figure.axes, ("gsm8k", "ifeval"), strict=True):
            plain = summary[(summary.dataset == dataset) & summary.headline & ~summary.lora & ~summary.alpha.gt(0)]
            for bar, method, target in (
                (bar, method, target)
                for method, container in zip(
                    ("pretrained", "eft", "prt", last),
                    (c for c in axis.containers if len(c.get_children()) == 2),
                    strict=False,
                )
                for target, bar in zip(("small", "large"), container.get_children(), strict=True)
            ):
                value = plain[(plain.method == method) & (plain.target == target)].value.item()
                assert bar.get_height() == pytest.approx(100 * value), (method, target)
                assert to_hex(bar.get_facecolor()).upper() == style.COLOUR[method]


def test_the_paper_s_bars_are_ticks_beside_ours(published: Tables, drawn: Path) -> None:
    rows = pd.read_csv(drawn / "figure3.csv")
    read = figure3()
    for ours, theirs in NAMES.items():
        there = read[(read.target == theirs) & (read.source == "Qwen2.5-0.5B")].set_index(["benchmark", "method"])
        here = rows[rows.target == ours].set_index(["dataset", "method"])["paper"]
        for place, percent in there["value_percent"].items():
            assert here[place] == percent
    assert rows.loc[rows.method.isin(["poe", "source_ft"]), "paper"].isna().all()
    (axis, _) = transfer_bars.figure(rows, PANELS).axes
    lines = [c for c in axis.collections if isinstance(c, LineCollection)]
    ticks = {y for c in lines if to_hex(c.get_color()[0]).upper() == transfer_bars.READ
             for segment in c.get_segments() for _, y in segment}  # fmt: skip
    assert ticks == {2, 30, 25, 28, 8, 70, 72, 55}
    with pytest.raises(InputError, match="two numbers for Falcon3-1B, Falcon3-7B, eft, gsm8k"):
        transfer_bars.draw(published[0], PANELS, drawn / "none", pd.concat([read, read[50:]]), NAMES)


def test_the_published_numbers_are_whole() -> None:
    """A number for each bar of the paper's Figure 3, and each cell of its Tables 3, 4 and 6."""
    read = figure3()
    assert read.groupby(["panel", "benchmark", "target"])["method"].nunique().eq(4).all()
    assert read.groupby("panel")["target"].nunique().to_dict() == dict(
        zip(read.panel.unique(), (2, 4, 5, 4), strict=True)
    )
    assert (read.groupby("panel")["target"].first() == read.groupby("panel")["source"].first()).all()
    assert set(read.method) == {*transfer_bars.BARS[:3], "instruct"}
    printed = paper()
    printed = printed[printed["item"].isin(["table3", "table4", "table6"])]
    assert not printed.duplicated(["item", "source", "target", "method"]).any()
    assert printed.groupby("item").size().to_dict() == {"table3": 9, "table4": 10, "table6": 10}
    assert set(printed.method) == {"pretrained", "eft", "prt"}


def test_no_bar_is_cut_where_panels_share_an_axis(tables: Tables) -> None:
    """The lower panel is the higher one."""
    summary, _ = tables
    low = summary.assign(source="weak", target=summary.target.replace("small", "weak"))
    for column in ("value", "low", "high"):
        low[column] = low[column] / 4
    panels: list[transfer_bars.Panel] = [{"source": "weak", "targets": ["large"]}, *PANELS]
    rows = transfer_bars.select(pd.concat([low, summary]), panels)
    for axis in transfer_bars.figure(rows, panels).axes:
        assert axis.get_ylim()[0] == 0
        assert axis.get_ylim()[1] > max(bar.get_height() for bar in axis.patches)
        assert axis.get_ylim()[1] > 100 * rows.value.max() * (axis.get_title() == "gsm8k")


def test_many_benchmarks_of_one_source_go_into_rows(tables: Tables) -> None:
    summary = tables[0][tables[0].dataset == "gsm8k"]
    many = pd.concat([summary.assign(dataset=f"benchmark-{i}") for i in range(7)])
    figure = transfer_bars.figure(transfer_bars.select(many, PANELS), PANELS)
    inside(figure)
    assert [axis.get_title() for axis in figure.axes] == [f"benchmark-{i}" for i in range(7)]
    assert len({round(axis.get_position().y0, 3) for axis in figure.axes}) == 2
    assert figure.get_figwidth() < 7.5


def test_published_models_of_other_families_leave_a_figure_as_it_is(tables: Tables, published: Tables) -> None:
    other = published[0].assign(source="other", target=published[0].target.replace("small", "other"))
    rows = transfer_bars.select(pd.concat([tables[0], other]), PANELS)
    assert transfer_bars.bars(rows) == transfer_bars.BARS


def test_missing_bars_are_named_without_shots(tables: Tables) -> None:
    summary, _ = tables
    gone = (summary.method == "eft") & (summary.target == "large")
    with pytest.raises(InputError, match="no headline accuracy of 'eft' on 'large' with source 'small' on gsm8k; eval"):
        transfer_bars.select(summary[~gone], PANELS)
    with pytest.raises(InputError, match="no headline accuracies at alpha 0"):
        transfer_bars.select(summary[summary.alpha > 0], PANELS)


def test_figure_7_shows_every_alpha(tables: Tables, drawn: Path) -> None:
    summary, _ = tables
    rows = pd.read_csv(drawn / "figure7.csv")
    expected = summary[summary.headline & ~summary.lora & summary.method.isin(["prt", "pretrained"])]
    assert sorted(rows.value) == pytest.approx(sorted(expected.value))
    figure = entropy.figure_transfer(entropy.select_transfer(summary))
    inside(figure)
    points = np.concatenate([line.get_ydata() for axis in figure.axes for line in axis.lines]).astype(float)
    np.testing.assert_allclose(np.sort(points), np.sort(100 * expected.loc[expected.method == "prt", "value"]))
    with pytest.raises(
        InputError, match="no headline accuracy of 'pretrained' on 'small' with source 'small' on gsm8k;"
    ):
        entropy.select_transfer(summary[summary.method != "pretrained"])


def test_tables_4_and_6(tables: Tables, drawn: Path) -> None:
    """Each cell of a line is its method's; the paper's number stands beside it; the mark says what it does not beat."""
    summary, comparison = tables
    for name, lora in (("table4", False), ("table6", True)):
        rows = pd.read_csv(drawn / f"{name}.csv")
        figure = seeds_table.figure(rows.assign(marks=rows.marks.fillna("")))
        inside(figure)
        lines = read_sheet(figure)
        titles = ["Pretrained", "EFT", "PRT", "PoE", "source's FT", "target's FT", "reward alone"]
        assert lines[0] == titles
        assert lines[1][:4] == ["benchmark", "source", "target", "seeds"]
        columns = [t for t, more in zip(titles, (0, 1, 1, 0, 0, 0, 0), strict=True) for _ in range(1 + more)]
        cells = dict(zip(["target", "seeds", *columns], lines[4], strict=True))  # the paper's overwrite ours
        assert (cells["target"], cells["seeds"]) == ("large", "3")
        assert (cells["EFT"], cells["PRT"]) == (("56.4", "74.9") if lora else ("66.1 ± 2.4", "71.3 ± 0.6"))
        of = summary[(summary.dataset == "gsm8k") & (summary.target == "large") & summary.headline]
        eft = of[(of.method == "eft") & (of.lora == lora)].iloc[0]
        verdicts = comparison[(comparison.dataset == "gsm8k") & (comparison.target == "large")]
        verdicts = verdicts[(verdicts.lora == lora) & (verdicts.method == "eft")].set_index("baseline")["verdict"]
        marks = "".join(m for b, m in seeds_table.MARKS.items() if verdicts[b] != "better")
        assert marks == "‡"
        assert lines[4][3] == f"{100 * eft.value:.1f} ± {100 * eft['std']:.1f}‡"
        assert lines[5][1] == f"{100 * eft.low:.1f}–{100 * eft.high:.1f}"
        assert "paired differences" in lines[-2][0] + lines[-1][0]
    with pytest.raises(InputError, match="no PRT with LoRA at alpha 0"):
        seeds_table.select(summary[~summary.lora], comparison, True)


def test_a_table_of_one_seed_has_no_spread(published: Tables) -> None:
    rows = seeds_table.select(*published, False).assign(paper=np.nan, paper_std=np.nan)
    lines = read_sheet(seeds_table.figure(rows))
    assert "Instruct" in lines[0]
    assert "paper" not in lines[1]
    assert not any("±" in cell for line in lines[2:-2] for cell in line)


def test_table_3(drawn: Path) -> None:
    """A line for each method and variant; the paper's numbers beside the plainest."""
    rows = pd.read_csv(drawn / "table3.csv")
    figure = decoding_table.figure(rows)
    inside(figure)
    lines = read_sheet(figure)
    assert lines[0] == ["ours", "paper"]
    ours = ["26.0 ± 0.2", "38.5", "12.5", "×1.00", "–"]
    assert lines[2] == ["Llama-2-7B", "Llama-2-13B", "Pretrained", "eager", *ours, "26.0 ± 0.2", "×1.00"]
    assert lines[4][:2] == ["EFT", "eager"]
    assert lines[4][-2:] == ["39.8 ± 0.1", "×0.65"]
    assert lines[5][-2:] == ["–", "–"]
    assert lines[8][:2] == ["PRT, speculative", "eager"]
    assert lines[8][-3:] == ["82 %", "–", "–"]
    assert "prompt of 512 tokens, 128 new ones, 10 repeats" in lines[-2][0]


def test_table_3_without_the_paper_and_of_mixed_measurements(tmp_path: Path) -> None:
    costs = costs_frame()
    decoding_table.draw(costs.assign(source="a"), tmp_path / "t", paper())
    assert pd.read_csv(tmp_path / "t.csv")["paper"].isna().all()
    with pytest.raises(InputError, match="two values of time_per_token for pretrained of a on b, eager; keep one"):
        decoding_table.draw(costs.assign(source="a", target="b"), tmp_path / "t")
    with pytest.raises(InputError, match="more than one 'device'"):
        decoding_table.draw(pd.concat([costs, costs.assign(device="cpu")]), tmp_path / "t")
    with pytest.raises(InputError, match="no times of decoding"):
        decoding_table.draw(costs[costs.quantity == "other"], tmp_path / "t")


def test_next_tokens_are_where_the_text_says(drawn: Path) -> None:
    """Bars as high as the probabilities; the highlighted letters are the chosen tokens'."""
    content = next_content()
    figure = next_tokens.figure(content)
    inside(figure)
    page, *axes = figure.axes
    widths = [[bar.get_width() for bar in axis.patches] for axis in axes]
    assert widths == [
        [p for _, p in position[side]] for position in content["positions"] for side in ("without", "with")
    ]
    assert [label.get_text() for label in axes[1].get_yticklabels()] == ["␣Janet", "␣$", "␣$", "␣␣␣", "⇥"]
    bold = [label.get_text() for axis in axes for label in axis.get_yticklabels() if label.get_fontweight() == "bold"]
    assert bold[:4] == ["␣Janet", "␣Janet", "␣9", "␣9"]
    assert bold[-1] == "<|end_of_te…"
    text = QUESTION + ANSWER
    spans = next_tokens.places(text, len(QUESTION), content["positions"])
    assert [text[a:b] for a, b in spans] == ["Janet", "9", "\n", "####", ""]
    words = {w.get_text(): w.get_position()[0] for w in page.texts}
    marked = [r.get_x() for r in page.patches if isinstance(r, Rectangle) and to_hex(r.get_facecolor()) == "#ffe08a"]
    assert marked[0] == pytest.approx(words["Janet"])
    assert {"$18", "$2"} <= set(words)
    table = pd.read_csv(drawn / "figure5.csv")
    assert len(table) == 5 * 2 * 5
    assert table.query("index == 0 and side == 'with' and rank == 1").token.item() == " Janet"


def test_a_token_is_found_however_its_tokenizer_writes_spaces() -> None:
    """Without the space before a word, split letters, and the second of two equal places."""
    text, answer = "Q: 1 2 A: yes 1 yes 1 é", 10

    def at(before: str, chosen: str) -> dict[str, Any]:
        return {"index": 0, "before": before, "chosen": chosen}

    found = next_tokens.places(text, answer, [at("yes", "1"), at("yes", " 1"), at("1 ", "\ufffd")])
    assert [text[a:b] for a, b in found] == ["1", "1", "é"]
    assert found[0][0] < found[1][0]
    with pytest.raises(InputError, match="position 0, 'no', is not in the answer"):
        next_tokens.places(text, answer, [at("no", "1")])


def test_long_text_is_wrapped_and_nothing_is_lost() -> None:
    text = "word " * 40 + "\n\n" + "x" * 150 + "\nend"
    pieces = next_tokens.wrapped(text, 60)
    assert max(len(p.text) for p in pieces) <= 60
    assert all(text[p.start : p.start + len(p.text)] == p.text for p in pieces)
    assert "".join(p.text for p in pieces) == text.replace("\n", "")
    assert [p.line for p in pieces] == list(range(len(pieces)))


def test_next_tokens_of_strange_texts(tmp_path: Path) -> None:
    """A long prompt, letters that no font has, a position at the very start; and content of another form."""
    top = [["\U0001f986", 0.5], ["$x_1$", 0.25]]
    first = {"index": 0, "before": "", "chosen": "鴨", "without": top, "with": top}
    content = next_content() | {"prompt": "A duck. " * 400, "answer": "鴨 is $x_1$ \U0001f986", "positions": [first]}
    inside(next_tokens.figure(content))
    next_tokens.draw(content, tmp_path / "strange")
    with pytest.raises(InputError, match=r"positions.0.with is wrong"):
        next_tokens.draw(content | {"positions": [first | {"with": []}]}, tmp_path / "x")
    with pytest.raises(InputError, match=r"the top level is wrong.*'answer' is a required"):
        next_tokens.draw({k: v for k, v in content.items() if k != "answer"}, tmp_path / "x")
    assert not list(tmp_path.glob("x*"))
