"""The figures: what is drawn equals the table, and the files say so."""

import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from prt.errors import InputError
from prt.figures import costs_table, entropy, noise_table, strength, style, theory_table, transfer_bars

SOURCES = ["vit-s-poor", "rn12-rich"]
TARGETS = ["vit-s-poor", "vit-b-poor", "rn12-rich", "rn24-rich"]
DATASETS = ["mnist"]
SHOTS = ["16", "full"]
ALPHAS = [0.0, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1]
STRENGTHS = [0.25, 0.5, 1.0, 1.5, 2.0]
SUMMARY = ["dataset", "shots", "source", "target", "method", "alpha", "strength", "metric"]
SUMMARY += ["value", "std", "low", "high", "seeds", "n"]
CURVES = ["dataset", "shots", "source", "alpha", "seed", "iteration", "method", "metric", "value"]
THEORY = ["dataset", "shots", "source", "target", "alpha", "seed", "epsilon", "C", "bound"]
PANELS: list[transfer_bars.Panel] = [
    {"source": source, "targets": [t for t in TARGETS if t != source]} for source in SOURCES
]


def summary_table(
    sources: list[str] = SOURCES,
    targets: list[str] = TARGETS,
    datasets: list[str] = DATASETS,
    shots: list[str] = SHOTS,
) -> pd.DataFrame:
    """A made-up summary that looks real: FT best, PRT near it, EFT behind, Pretrained far below."""
    rng = np.random.default_rng(0)
    level = {(d, s): rng.uniform(0.45, 0.8) for d in datasets for s in shots}
    gain = {t: rng.uniform(0.0, 0.1) for t in targets}
    variants = [(m, np.nan, np.nan) for m in ("pretrained", "ft", "source_ft", "poe")]
    variants += [("eft", np.nan, s) for s in STRENGTHS]
    variants += [("prt", 0.0, s) for s in STRENGTHS]
    variants += [("prt", a, 1.0) for a in ALPHAS[1:]]
    variants += [("reward", a, np.nan) for a in ALPHAS]
    above = {"pretrained": -0.3, "eft": 0.05, "prt": 0.09, "ft": 0.12, "poe": 0.04, "reward": -0.05}
    rows = []
    for d, n, s, t in itertools.product(datasets, shots, sources, targets):
        for method, alpha, power in variants:
            of = s if method == "source_ft" else t
            value = level[d, n] + gain[of] + above.get(method, 0.12) + rng.normal(0, 0.01)
            if s == t and method in ("eft", "prt"):
                value = level[d, n] + gain[t] + 0.12
            if method == "source_ft":
                value = level[d, n] + gain[s] + 0.12
            if not np.isnan(power):
                value -= 0.1 * (np.log2(power) - 0.2) ** 2 * (1.5 if method == "eft" else 0.7)
            value -= 0.03 * (alpha == 0.1)
            value = float(np.clip(value, 0.02, 0.99))
            half = 0.012 if n == "full" else 0.03
            rows.append(
                (
                    d,
                    n,
                    s,
                    t,
                    method,
                    alpha,
                    power,
                    "top1",
                    value,
                    half / 2,
                    value - half,
                    value + half,
                    3,
                    500,
                )
            )
    table = pd.DataFrame(rows, columns=SUMMARY)
    return pd.concat([table, table.assign(metric="mean_per_class_recall")], ignore_index=True)


def curves_table(
    sources: list[str] = SOURCES[:1], datasets: list[str] = DATASETS, shots: list[str] = SHOTS
) -> pd.DataFrame:
    """Made-up learning curves: PRT above the reward alone, which the entropy term pulls down."""
    rng = np.random.default_rng(1)
    rows = []
    for d, n, s, alpha, seed in itertools.product(datasets, shots, sources, ALPHAS, range(3)):
        for iteration, method in itertools.product(range(0, 2001, 200), ("prt", "reward")):
            below = 0.0 if method == "prt" else 0.25 + 1.5 * alpha
            value = 0.9 - 0.4 * np.exp(-iteration / 400) - below * np.exp(-iteration / 1500)
            rows.append((d, n, s, alpha, seed, iteration, method, "top1", value + rng.normal(0, 0.008)))
    return pd.DataFrame(rows, columns=CURVES)


def theory_frame(
    sources: list[str] = SOURCES,
    targets: list[str] = TARGETS,
    datasets: list[str] = DATASETS,
    shots: list[str] = SHOTS,
) -> pd.DataFrame:
    """Made-up constants of Table 7, on three seeds, for two α."""
    rng = np.random.default_rng(2)
    rows = []
    for d, n, s, t in itertools.product(datasets, shots, sources, targets):
        epsilon = 0.0 if s == t else rng.uniform(0.2, 3)
        for alpha, seed in itertools.product((0.0, 0.1), range(3)):
            C = rng.uniform(5, 150)
            rows.append((d, n, s, t, alpha, seed, epsilon, C, C * epsilon + np.log1p(C * epsilon)))
    return pd.DataFrame(rows, columns=THEORY)


def costs_frame(pairs: tuple[tuple[str, str], ...] = (("RN50", "ViT-B-16"), ("ViT-B-16", "ViT-L-14"))) -> pd.DataFrame:
    """Made-up measurements of Table 2 on a GPU; a network alone has no streams."""
    rows = []
    for number, ((s, t), method, variant) in enumerate(
        itertools.product(pairs, ("ft", "eft", "prt"), ("baseline", "+ bf16", "+ streams"))
    ):
        if method == "ft" and variant == "+ streams":
            continue
        for quantity, value, std, unit in (
            ("time_per_batch", 40.25 + number, 1.25, "ms"),
            ("launch_time_per_batch", 4.5 + number / 100, 0.1, "ms"),
            ("peak_memory", 2.5 + number / 100, np.nan, "GB"),
            ("flop_bound", 14.4 + number, np.nan, "ms"),
        ):
            precision = "fp32" if variant == "baseline" else "bf16"
            rows.append(("table2", s, t, method, variant, 128, precision, quantity, value, std, unit))
    columns = "table source target method variant batch precision quantity value std unit"
    facts = {"peak_from": "datasheet", "device": "NVIDIA A100-SXM4-80GB", "torch": "2.14.1"}
    return pd.DataFrame(rows, columns=columns.split()).assign(**facts)


DRAW: dict[str, Callable[[Path], None]] = {
    "figure2": lambda stem: transfer_bars.draw(summary_table(), PANELS, stem),
    "figure6a": lambda stem: entropy.draw_curves(curves_table(), stem),
    "figure6b": lambda stem: entropy.draw_transfer(summary_table(), stem),
    "strength": lambda stem: strength.draw(summary_table(), stem),
    "table2": lambda stem: costs_table.draw(costs_frame(), stem),
    "table7": lambda stem: theory_table.draw(theory_frame(), stem),
}


def draw_all(folder: Path) -> None:
    """Draw every figure into ``folder``."""
    for name, draw in DRAW.items():
        draw(folder / name)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every figure."""
    folder = tmp_path_factory.mktemp("drawn")
    draw_all(folder)
    return folder


def read(path: Path) -> pd.DataFrame:
    """A saved table; shots stay text."""
    return pd.read_csv(path, dtype={"shots": str})


def same_rows(left: pd.DataFrame, right: pd.DataFrame) -> None:
    """Two tables hold the same rows, in whatever order."""
    by = [c for c in left.columns if c not in ("value", "std", "low", "high")]
    left, right = (t.sort_values(by, ignore_index=True) for t in (left, right[left.columns]))
    pd.testing.assert_frame_equal(left, right, check_exact=True)


@pytest.mark.parametrize("name", DRAW)
def test_three_files_and_nothing_else(drawn: Path, name: str) -> None:
    """No half-written file stays beside the PDF, the PNG and the CSV."""
    assert sorted(p.name for p in drawn.glob(f"*{name}*")) == [f"{name}.{end}" for end in ("csv", "pdf", "png")]
    assert (drawn / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    assert (drawn / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_a_second_run_gives_the_same_bytes(drawn: Path, tmp_path: Path) -> None:
    """In a process of its own, with other hashes and a later clock."""
    code = "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); import test_figures as t;"
    command = [
        sys.executable,
        "-c",
        code + "t.draw_all(Path(sys.argv[2]))",
        str(Path(__file__).parent),
        str(tmp_path),
    ]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": "7"})
    files = sorted(p.name for p in drawn.iterdir())
    assert len(files) == 3 * len(DRAW)
    assert [f for f in files if (drawn / f).read_bytes() != (tmp_path / f).read_bytes()] == []


def test_the_tables_hold_exactly_what_is_drawn(drawn: Path) -> None:
    """The filters are written out here a second time, straight from the definition of each figure."""
    summary = summary_table()
    top1 = summary[summary["metric"] == "top1"]
    vanilla = top1["alpha"].isna() | top1["alpha"].eq(0)
    paper = top1["strength"].isna() | top1["strength"].eq(1)
    same_rows(top1[vanilla & paper & top1["method"].ne("reward")], read(drawn / "figure2.csv"))
    prt = top1["method"].eq("prt")
    same_rows(top1[(prt & paper) | top1["method"].eq("pretrained")], read(drawn / "figure6b.csv"))
    same_rows(top1[(prt & vanilla) | top1["method"].eq("eft")], read(drawn / "strength.csv"))

    table = read(drawn / "table7.csv")
    assert len(table) == len(SOURCES) * len(TARGETS) * len(DATASETS) * len(SHOTS)
    theory = theory_frame().query("alpha == 0 and source == 'rn12-rich' and target == 'vit-s-poor'")
    line = table.query("source == 'rn12-rich' and target == 'vit-s-poor'")
    for shots in SHOTS:
        expected = theory.loc[theory["shots"] == shots, ["epsilon", "C", "bound"]].mean()
        np.testing.assert_allclose(line.loc[line["shots"] == shots, expected.index].iloc[0], expected)


def test_bars_are_as_high_as_the_table_says() -> None:
    """Every bar: its height, its place and its colour; and the line of the source's FT."""
    rows = transfer_bars.select(summary_table(), PANELS)
    figure = transfer_bars.figure(rows, PANELS)
    places = itertools.product(PANELS, DATASETS, SHOTS)
    for (panel, dataset, shots), axis in zip(places, figure.axes, strict=True):
        here = rows[(rows["source"] == panel["source"]) & (rows["dataset"] == dataset) & (rows["shots"] == shots)]
        values = 100 * here.set_index(["target", "method"])["value"]
        names = [label.get_text() for label in axis.get_xticklabels()]
        assert names == [panel["source"], *panel["targets"]]
        bars = [patch for container in axis.containers for patch in getattr(container, "patches", [])]
        assert len(bars) == len(names) * len(transfer_bars.BARS)
        for bar in bars:
            middle = bar.get_x() + bar.get_width() / 2
            target = names[round(middle)]
            method = transfer_bars.BARS[round((middle - round(middle)) / transfer_bars.WIDTH) + 2]
            assert bar.get_height() == pytest.approx(values[target, method])
            assert to_hex(bar.get_facecolor()).upper() == style.COLOUR[method]
        dashed = next(line for line in axis.lines if line.get_linestyle() == "--")
        assert np.asarray(dashed.get_ydata())[0] == pytest.approx(values[panel["source"], "source_ft"])
        assert axis.get_ylim()[0] == 0


def test_panels_of_one_source_may_differ() -> None:
    """As in the paper, where one source has a panel per scenario."""
    panels: list[transfer_bars.Panel] = [
        {"source": "vit-s-poor", "targets": ["vit-b-poor"]},
        {"source": "vit-s-poor", "targets": ["vit-s-poor", "rn12-rich", "rn24-rich"]},
    ]
    rows = transfer_bars.select(summary_table(), panels)
    groups = [len(axis.get_xticks()) for axis in transfer_bars.figure(rows, panels).axes]
    assert groups == [2, 2, 3, 3]
    assert not rows.duplicated().any()


def test_lines_and_points_pass_through_the_table() -> None:
    """Figures 6a and 6b and the sweep show each value once."""
    curves = entropy.select_curves(curves_table())
    lines = [line for axis in entropy.figure_curves(curves).axes for line in axis.lines]
    assert len(lines) == len(SHOTS) * len(ALPHAS) * 2
    drawn = np.sort(np.concatenate([line.get_ydata() for line in lines]))
    np.testing.assert_allclose(drawn, np.sort(100 * curves["value"]))
    assert curves["seeds"].eq(3).all()

    sweep = strength.select(summary_table())
    lines = [line for axis in strength.figure(sweep).axes for line in axis.lines if np.size(line.get_xdata()) > 2]
    drawn = np.sort(np.concatenate([line.get_ydata() for line in lines]))
    np.testing.assert_allclose(drawn, np.sort(100 * sweep["value"]))

    transfer = entropy.select_transfer(summary_table())
    axes = entropy.figure_transfer(transfer).axes
    points = np.concatenate([line.get_ydata() for axis in axes for line in axis.lines]).astype(float)
    prt = transfer.loc[transfer["method"] == "prt", "value"]
    np.testing.assert_allclose(np.sort(points), np.sort(100 * prt))


def test_what_was_not_tried_everywhere_is_drawn_where_it_was() -> None:
    """No PoE at all; and one source whose rewards have fewer α, fewer strengths, and one seed."""
    table = summary_table()
    few = table["source"].eq("rn12-rich") & table["shots"].eq("full")
    transfer_bars.figure(transfer_bars.select(table[table["method"] != "poe"], PANELS), PANELS)
    rows = entropy.select_transfer(table[~(few & table["alpha"].gt(0))])
    points = [sum(np.size(line.get_xdata()) for line in a.lines) for a in entropy.figure_transfer(rows).axes]
    assert points == [len(TARGETS) * len(ALPHAS)] * 3 + [0]
    sweep = strength.select(table[~(few & table["strength"].gt(1))])
    assert sweep.loc[few[sweep.index], "strength"].max() == 1
    strength.figure(sweep)
    curves = entropy.select_curves(curves_table(SOURCES).query("source != 'rn12-rich' or seed == 0 and alpha > 0"))
    assert sorted(curves["seeds"].unique()) == [1, 3]
    entropy.figure_curves(curves)
    pairs = theory_table.select(theory_frame().query("source != 'rn12-rich' or shots == 'full'"))
    texts = [text.get_text() for text in theory_table.figure(pairs).axes[0].texts]
    assert texts.count("–") == 3 * len(TARGETS)


def read_sheet(figure: Figure) -> list[list[str]]:
    """The texts of a table drawn as a picture, line by line, each from left to right."""
    lines: dict[float, list[tuple[float, str]]] = {}
    for text in figure.axes[0].texts:
        lines.setdefault(text.get_position()[1], []).append((text.get_position()[0], text.get_text()))
    return [[text for _, text in sorted(lines[y])] for y in sorted(lines)]


def test_costs_stand_in_the_line_of_their_pair_and_the_group_of_their_method() -> None:
    """Each text of the picture, read from left to right and from top to bottom."""
    read = read_sheet(costs_table.figure(costs_frame()))
    assert read[0] == ["FT", "EFT", "PRT"]
    headers = ["memory (GB)", "time (ms)", "launch (ms)", "bound (ms)"] * 3
    assert read[1] == ["source", "target", "variant", "precision", *headers]
    first = ["2.50", "40.2 ± 1.2", "4.50", "14.4"]
    assert read[2][:8] == ["RN50", "ViT-B-16", "baseline", "fp32", *first]
    assert read[4][:6] == ["+ streams", "bf16", *"––––"]
    assert read[4][6:10] == ["2.55", "45.2 ± 1.2", "4.55", "19.4"]
    assert read[5][:3] == ["ViT-B-16", "ViT-L-14", "baseline"]
    assert read[8] == ["batch 128; NVIDIA A100-SXM4-80GB; torch 2.14.1; bound: FLOPs at its data sheet's peak"]
    training = costs_frame((("RN50", ""),)).assign(table="table1", target=np.nan, variant=np.nan)
    training = training.drop_duplicates(["method", "quantity"]).replace({"eft": "prt_cached"})
    texts = costs_table.figure(training).axes[0].texts
    header = texts[0].get_position()[1]
    assert [t.get_text() for t in texts if t.get_position()[1] == header] == ["network", "precision", *headers]


def test_noise_stands_under_its_target() -> None:
    """A line for each data set and reward; – where a target was not measured; ± is half of the interval."""
    rows = [
        ("shapes", "old", "none", 0.5, 0.4, 0.6),
        ("shapes", "old", "untuned", 0.7, 0.65, 0.75),
        ("shapes-noise", "old", "tuned", 0.25, 0.2, 0.3),
        ("shapes", "new", "none", 0.8, 0.78, 0.82),
    ]
    table = pd.DataFrame(rows, columns=["dataset", "target", "reward", "value", "low", "high"])
    table = table.assign(source="old", metric="top1")
    read = read_sheet(noise_table.figure(table))
    assert read[:5] == [
        ["reward of old, put on"],
        ["images", "reward", "old", "new"],
        ["shapes", "none (target alone)", "50.0 ± 10.0", "80.0 ± 2.0"],
        ["tuned on clean images", "70.0 ± 5.0", "–"],
        ["shapes-noise", "tuned further on noise", "25.0 ± 5.0", "–"],
    ]
    with pytest.raises(InputError, match="no top-1 accuracies"):
        noise_table.draw(table.assign(metric="other"), Path("nowhere"))


def test_costs_of_two_devices_are_not_mixed(tmp_path: Path) -> None:
    """Nor are both tables."""
    costs = costs_frame()
    for column in ("device", "table"):
        with pytest.raises(InputError, match=f"more than one '{column}'"):
            costs_table.draw(pd.concat([costs, costs.assign(**{column: "other"})]), tmp_path / "table")


def test_a_missing_source_is_named() -> None:
    """A panel whose source was never evaluated."""
    with pytest.raises(InputError, match="'pretrained' on 'vit-huge' with source 'vit-huge' on mnist"):
        transfer_bars.select(summary_table(), [*PANELS, {"source": "vit-huge", "targets": TARGETS}])


def test_a_missing_bar_is_named() -> None:
    """One method absent on one target, or everywhere."""
    table = summary_table()
    gone = table["method"].eq("ft") & table["target"].eq("rn24-rich") & table["shots"].eq("full")
    with pytest.raises(InputError, match=r"'ft' on 'rn24-rich' with source 'vit-s-poor' on mnist \(full\)"):
        transfer_bars.select(table[~gone], PANELS)
    with pytest.raises(InputError, match="'source_ft' with source 'vit-s-poor'"):
        transfer_bars.select(table[table["method"] != "source_ft"], PANELS)
    with pytest.raises(InputError, match="'pretrained' on"):
        entropy.select_transfer(table[table["method"] != "pretrained"])


def test_tables_without_the_asked_rows_are_refused() -> None:
    """Nothing to draw is an error, not an empty picture."""
    table = summary_table()
    with pytest.raises(InputError, match="no top-1"):
        transfer_bars.select(table[:0], PANELS)
    with pytest.raises(InputError, match="entropy term"):
        entropy.select_transfer(table[table["alpha"].fillna(0) == 0])
    with pytest.raises(InputError, match="'reward'"):
        entropy.select_curves(curves_table().query("method == 'prt'"))
    with pytest.raises(InputError, match="two strengths of 'prt'"):
        strength.select(table[table["strength"] == 1])
    with pytest.raises(InputError, match="alpha 0"):
        theory_table.select(theory_frame().query("alpha > 0"))


def test_shots_read_as_numbers_are_drawn_too() -> None:
    """pandas reads a column of 16s as integers."""
    table = summary_table(shots=["16"]).assign(shots=16)
    rows = transfer_bars.select(table, PANELS)
    assert [axis.get_title() for axis in transfer_bars.figure(rows, PANELS).axes] == ["mnist, 16 shots", ""]


def test_a_failed_save_leaves_nothing(tmp_path: Path) -> None:
    """A folder that cannot be made."""
    (tmp_path / "file").touch()
    rows = theory_table.select(theory_frame())
    with pytest.raises(InputError, match="cannot write"):
        style.save(theory_table.figure(rows), rows, tmp_path / "file" / "table7")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("alpha", "name"),
    [(0.0, "α = 0"), (1e-5, "α = 10⁻⁵"), (0.1, "α = 10⁻¹"), (0.05, "α = 0.05"), (1.0, "α = 1")],
)
def test_alphas_are_named_as_in_the_paper(alpha: float, name: str) -> None:
    """Powers of ten, else plain numbers."""
    assert style.alpha_name(alpha) == name


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("vit-s-poor", ["vit-s-poor"]),
        ("ViT-B-16 (LAION-400M)", ["ViT-B-16", "(LAION-400M)"]),
        ("ViT-L-14-datacomp_xl_s13b", ["ViT-L-14-", "datacomp_xl_", "s13b"]),
        ("unbreakablename", ["unbreakablename"]),
    ],
)
def test_long_names_are_folded(name: str, lines: list[str]) -> None:
    """No letter is lost, and no line is empty."""
    assert style.folded(name, 12).split("\n") == lines
