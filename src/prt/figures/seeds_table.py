"""Tables 4 and 6: every target's accuracy with each method, as mean and spread over seeds, without or with LoRA."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from prt.errors import InputError
from prt.figures.printed import beside
from prt.figures.sheet import Group, sheet
from prt.figures.style import NAME, save

METHODS = ("pretrained", "eft", "prt", "poe", "source_ft", "ft", "instruct", "reward")
UNTUNED = ("pretrained", "instruct")  # published or pretrained as they are: with LoRA or without, the same
PLACE = ["dataset", "source", "target"]
MARKS = {"pretrained": "†", "source_ft": "‡"}
FOOT = (
    "Mean ± standard deviation over seeds, and the 95 % interval over seeds and examples, in %. No better, in paired "
    "differences, than: † the pretrained target; ‡ the source's own fine-tuned model, kept as it is."
)


def draw(
    summary: pd.DataFrame,
    comparison: pd.DataFrame,
    stem: Path,
    lora: bool = False,
    published: pd.DataFrame | None = None,
    names: Mapping[str, str] | None = None,
) -> None:
    """Draw Table 4, or with ``lora`` Table 6, to ``stem``.pdf, .png and .csv.

    Args:
        summary: a language summary.
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
    """The headline metric at α = 0 and strength 1; ``marks`` tells what a transferred model is no better than.

    Raises:
        InputError: if there is no PRT among these rows.
    """
    rows = summary[summary["headline"] & summary["alpha"].fillna(0).eq(0) & summary["strength"].fillna(1).eq(1)]
    rows = rows[rows["lora"].eq(lora) | rows["method"].isin(UNTUNED)]
    prt = rows[rows["method"] == "prt"]
    if prt.empty:
        kind = "with" if lora else "without"
        raise InputError(f"the summary has no PRT {kind} LoRA at alpha 0; tune such a reward and evaluate it.")
    rows = rows.merge(prt[PLACE])
    # On the source itself EFT is that model, and PRT a sibling of it: nothing was transferred.
    of = comparison[comparison["lora"].eq(lora) & comparison["source"].ne(comparison["target"])]
    failed = of[of["verdict"] != "better"].assign(marks=of["baseline"].map(MARKS)).dropna(subset="marks")
    marks = failed.groupby([*PLACE, "method"])["marks"].agg("".join)
    rows = rows.merge(marks.reset_index(), "left", [*PLACE, "method"])
    return rows.assign(marks=rows["marks"].fillna(""))


def figure(rows: pd.DataFrame) -> Figure:
    """The table of the rows that :func:`select` gave, with the paper's numbers: a line per target."""
    methods = [method for method in METHODS if rows["method"].eq(method).any()]
    printed = set(rows.loc[rows["paper"].notna(), "method"])
    groups: list[Group] = [
        (NAME[method], ["mean", "95 %", *(["paper"] if method in printed else [])]) for method in methods
    ]

    def cells(here: pd.DataFrame) -> Iterator[str]:
        for method in methods:
            of = here[here["method"] == method].to_dict("records")
            if not of:
                yield from "–" * (2 + (method in printed))
                continue
            r = of[0]
            yield _percent(100 * r["value"], 100 * r["std"]) + r["marks"]
            yield f"{100 * r['low']:.1f}–{100 * r['high']:.1f}"
            if method in printed:
                yield "–" if pd.isna(r["paper"]) else _percent(r["paper"], r["paper_std"])

    lines = []
    for place, here in rows.groupby(PLACE, sort=False):
        seeds = int(here.loc[here["method"] == "prt", "seeds"].iloc[0])
        lines.append(([*map(str, place), str(seeds)], list(cells(here))))
    return sheet(["benchmark", "source", "target", "seeds"], groups, lines, FOOT)


def _percent(value: float, std: float) -> str:
    """A mean with its standard deviation, where there is one."""
    return f"{value:.1f}" + (f" ± {std:.1f}" if pd.notna(std) else "")
