"""Tables 4 and 6: every target's accuracy with each method, as mean and spread over seeds, without or with LoRA."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from prt.errors import InputError
from prt.figures.printed import beside
from prt.figures.sheet import Group, Line, sheet
from prt.figures.style import conditions, save, short, titles
from prt.methods import AS_TEXT, METHODS
from prt.select import plain

PLACE = ["dataset", "shots", "source", "target"]
REWARDED = ("prt", AS_TEXT["prt"])
MARKS = {"pretrained": "†", "source_ft": "‡"}
FOOT = (
    "In %: mean ± standard deviation over seeds; below, the 95 % interval over seeds and examples. No better, in "
    "paired differences, than: † the pretrained target; ‡ the source's own fine-tuned model, kept as it is (not marked "
    "where the target is the source)."
)


def draw(
    summary: pd.DataFrame,
    comparison: pd.DataFrame,
    stem: Path,
    *,
    lora: bool = False,
    published: pd.DataFrame | None = None,
    names: Mapping[str, str] | None = None,
) -> None:
    """Draw Table 4, or with ``lora`` Table 6, to ``stem``.pdf, .png and .csv.

    Args:
        summary: a summary of any data sets or benchmarks.
        comparison: the comparison that belongs to it.
        stem: name of the files, without their ending.
        lora: whether to show the runs with LoRA, or those without.
        published: the paper's numbers: item, source, target, method, quantity (the benchmark), value and std.
        names: our models' names → the paper's, where they differ.

    Raises:
        InputError: if the summary has no such PRT.
    """
    rows = select(summary, comparison, lora)
    printed = None
    if published is not None:
        of = published[published["item"] == ("table6" if lora else "table4")]
        printed = of.rename(columns={"quantity": "dataset"})
    rows = beside(rows, printed, names or {})
    save(figure(rows), rows, stem)


def select(summary: pd.DataFrame, comparison: pd.DataFrame, lora: bool) -> pd.DataFrame:
    """The headline metric at α = 0 and strength 1; ``marks`` says what a transferred model is no better than.

    Raises:
        InputError: if there is no PRT among these rows.
    """
    rows = plain(summary)
    rows = rows[rows["lora"].eq(lora) | ~rows["method"].map(lambda method: METHODS[method].seeded)]
    prt = rows[rows["method"].isin(REWARDED)]
    if prt.empty:
        kind = "with" if lora else "without"
        raise InputError(f"the summary has no PRT {kind} LoRA at alpha 0; tune such a reward and evaluate it.")
    rows = rows.merge(prt[PLACE])
    # On the source itself EFT is that model, and PRT a sibling of it: nothing was transferred.
    of = comparison[comparison["lora"].eq(lora) & comparison["source"].ne(comparison["target"])]
    of = of[of["variant"].isna()]
    failed = of[of["verdict"] != "better"].assign(marks=of["baseline"].map(MARKS)).dropna(subset="marks")
    marks = failed.groupby([*PLACE, "method", "metric"])["marks"].agg("".join)
    rows = rows.merge(marks.reset_index(), "left", [*PLACE, "method", "metric"])
    return rows.assign(marks=rows["marks"].fillna(""))


def figure(rows: pd.DataFrame) -> Figure:
    """The table of the rows that :func:`select` gave, with the paper's numbers: a line per target."""
    methods = [method for method in METHODS if rows["method"].eq(method).any()]
    printed = set(rows.loc[rows["paper"].notna(), "method"])
    groups: list[Group] = [
        (short(m), ["ours", "paper"] if m in printed else ["ours" if printed else "%"]) for m in methods
    ]
    where = conditions(rows)
    title = dict(zip(where, titles(where), strict=True))
    lines: list[Line] = []
    for place, here in sorted(rows.groupby(PLACE, sort=False), key=lambda of: where.index(of[0][:2])):
        above, below = [], []
        for method in methods:
            of = here[here["method"] == method].to_dict("records")
            above.append(_percent(100 * of[0]["value"], 100 * of[0]["std"]) + of[0]["marks"] if of else "–")
            below.append(f"{100 * of[0]['low']:.1f}–{100 * of[0]['high']:.1f}" if of else "")
            if method in printed:
                known = of and pd.notna(of[0]["paper"])
                above.append(_percent(of[0]["paper"], of[0]["paper_std"]) if known else "–")
                below.append("")
        seeds = int(here.loc[here["method"].isin(REWARDED), "seeds"].iloc[0])
        names = [title[place[:2]], *place[2:], str(seeds)]
        lines += [(names, above), (names, below)]
    return sheet(["benchmark", "source", "target", "seeds"], groups, lines, FOOT)


def _percent(value: float, std: float) -> str:
    """A mean with its standard deviation, where there is one."""
    return f"{value:.1f}" + (f" ± {std:.1f}" if pd.notna(std) else "")
