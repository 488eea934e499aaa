"""What holds for all figures: three files, the same bytes every time, nothing outside the page, and the common look."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from helpers import made_up
from helpers.made_up import LANGUAGE, NAMES, PANELS, figure3, paper

from figures.test_next_tokens import next_content
from prt.errors import InputError
from prt.figures import (
    costs_table,
    decoding_table,
    entropy,
    next_tokens,
    noise_table,
    seeds_table,
    strength,
    style,
    theory_table,
    transfer_bars,
)
from prt.methods import METHODS
from prt.select import chosen


def table(stem: Path, lora: bool) -> None:
    summary = made_up.language()
    options = {"lora": lora, "published": paper(), "names": NAMES}
    seeds_table.draw(summary, made_up.comparison(summary), stem, **options)


def noise() -> pd.DataFrame:
    """The clean data set has more strengths and α than Table 5 shows; the noisy one has the reward tuned further."""
    clean, noisy = {"datasets": ["digits"]}, {"datasets": ["digits-noise"], "strengths": [1.0], "alphas": [0.0]}
    methods = ("pretrained", "prt", "adapted")
    both = pd.concat([made_up.summary(**clean), made_up.summary(**noisy, methods=methods)], ignore_index=True)
    return chosen(both, ["digits", "digits-noise"], "16", "vit-s-poor", made_up.TARGETS[:2])


DRAW: dict[str, Callable[[Path], None]] = {
    "figure2": lambda stem: transfer_bars.draw(made_up.summary(), stem, panels=PANELS),
    "figure3": lambda stem: transfer_bars.draw(
        made_up.instructed(), stem, panels=LANGUAGE, published=figure3(), names=NAMES
    ),
    "figure4": lambda stem: transfer_bars.draw(made_up.language(), stem, panels=LANGUAGE),
    "figure5": lambda stem: next_tokens.draw(next_content(), stem),
    "figure6a": lambda stem: entropy.draw_curves(made_up.curves(), stem),
    "figure6b": lambda stem: entropy.draw_transfer(made_up.summary(), stem),
    "figure7": lambda stem: entropy.draw_transfer(made_up.language(), stem),
    "strength": lambda stem: strength.draw(made_up.summary(), stem),
    "table2": lambda stem: costs_table.draw(made_up.costs(), stem),
    "table3": lambda stem: decoding_table.draw(made_up.decoding(), stem, published=paper()),
    "table4": lambda stem: table(stem, False),
    "table5": lambda stem: noise_table.draw(noise(), stem),
    "table6": lambda stem: table(stem, True),
    "table7": lambda stem: theory_table.draw(made_up.theory(), stem),
}


def draw_all(folder: Path) -> None:
    for name, draw in DRAW.items():
        draw(folder / name)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every figure."""
    folder = tmp_path_factory.mktemp("drawn")
    draw_all(folder)
    return folder


@pytest.mark.parametrize("name", DRAW)
def test_three_files_and_nothing_else(drawn: Path, name: str) -> None:
    """No half-written file stays beside the PDF, the PNG and the CSV."""
    assert sorted(p.name for p in drawn.glob(f"*{name}*")) == [f"{name}.{end}" for end in ("csv", "pdf", "png")]
    assert (drawn / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    assert (drawn / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_a_second_run_gives_the_same_bytes(drawn: Path, tmp_path: Path) -> None:
    """In a process of its own, with other hashes and a later clock."""
    tests = Path(__file__).parents[1]
    code = "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]);"
    code += "from figures.test_drawing import draw_all; draw_all(Path(sys.argv[2]))"
    command = [sys.executable, "-c", code, str(tests), str(tmp_path)]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": "7"})
    files = sorted(p.name for p in drawn.iterdir())
    assert len(files) == 3 * len(DRAW)
    assert [f for f in files if (drawn / f).read_bytes() != (tmp_path / f).read_bytes()] == []


def test_nothing_but_what_is_drawn_is_in_the_tables(drawn: Path) -> None:
    """The filters are written out here a second time, straight from the definition of each figure."""
    summary = made_up.summary()
    top1 = summary[summary["metric"] == "top1"]
    vanilla = top1["alpha"].isna() | top1["alpha"].eq(0)
    paper = top1["strength"].isna() | top1["strength"].eq(1)
    prt = top1["method"].eq("prt")
    words = made_up.language()
    words = words[words["metric"].eq("top1") & ~words["lora"]]
    expected = {
        "figure2": top1[vanilla & paper & top1["method"].ne("reward")],
        "figure6b": top1[(prt & paper) | top1["method"].eq("pretrained")],
        "figure7": words[words["method"].isin(["prt", "pretrained"])],
        "strength": top1[(prt & vanilla) | top1["method"].eq("eft")],
    }
    for name, rows in expected.items():
        read = pd.read_csv(drawn / f"{name}.csv", dtype={"shots": str})[rows.columns]
        left, right = (t.sort_values(list(t.columns[:8]), ignore_index=True) for t in (rows, read))
        pd.testing.assert_frame_equal(left, right, check_exact=True)


def test_a_failed_save_leaves_nothing(tmp_path: Path) -> None:
    """A folder that cannot be made."""
    (tmp_path / "file").touch()
    rows = theory_table.select(made_up.theory())
    with pytest.raises(InputError, match="cannot write"):
        style.save(theory_table.figure(rows), rows, tmp_path / "file" / "table7")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_names_of_methods_come_from_their_table() -> None:
    """A short one only where the label is too long for a column."""
    assert [style.short(method) for method in ("prt", "poe", "adapted")] == ["PRT", "PoE", "PRT, tuned further"]
    assert style.short("source_ft") == METHODS["source_ft"].label.split(",")[0]


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
