"""Tables 1 and 2 measured on small networks, and the arithmetic behind their bounds."""

import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from helpers.made_up import read_sheet

from prt.errors import InputError
from prt.figures.costs_table import draw, figure
from prt.profiling import in_own_process
from prt.vision import peak, speed

CPU = torch.device("cpu")


def vit_flops(tokens: int = 197, width: int = 768, layers: int = 12, patch: int = 16, out: int = 512) -> int:
    """Twice the multiplications of ViT-B-16 on an image, from its shapes."""
    embedding = (tokens - 1) * 3 * patch**2 * width
    attention = 4 * tokens * width**2 + 2 * tokens**2 * width
    return 2 * (embedding + layers * (attention + 8 * tokens * width**2) + width * out)


def test_flops_are_those_of_a_count_by_hand() -> None:
    forward = speed.count("ViT-B-16", 1, backward=False)
    assert sum(forward.values()) == vit_flops()
    assert forward["convolutions"] == 2 * 196 * 3 * 16**2 * 768
    assert 128 * vit_flops() == pytest.approx(4.5e12, rel=0.01)
    assert speed.count("ViT-B-16/laion2b_s34b_b88k", 128, backward=False)["rest"] == 128 * forward["rest"]


@pytest.mark.parametrize(
    ("model", "stem"),
    [("ViT-B-16", 2 * 196 * 3 * 16**2 * 768), ("convnext_base_w", 2 * 64**2 * 3 * 4**2 * 128)],
)
def test_the_backward_pass_costs_two_forward_passes_but_for_the_image(model: str, stem: int) -> None:
    """ConvNeXt's convolutions are grouped; nothing asks for the gradient of an image."""
    forward, whole = speed.count(model, 1, backward=False), speed.count(model, 1)
    assert whole["rest"] == 3 * forward["rest"]
    assert whole["convolutions"] == 3 * forward["convolutions"] - stem


def test_the_bound_of_an_a100() -> None:
    """The paper's 3.52 ms for 128 images through ViT-B-16 are less than a quarter of it."""
    network = speed.count("ViT-B-16", 128, backward=False)
    bound = speed._bound([network], "bf16", torch.device("cuda"), peak.A100)
    assert bound == pytest.approx(128 * vit_flops() / 312e12 * 1000)
    assert bound > 4 * 3.52
    # Float32 convolutions run on TF32 units, unless torch is told otherwise.
    mixed = 1000 * (network["convolutions"] / 156e12 + network["rest"] / 19.5e12)
    assert speed._bound([network], "fp32", torch.device("cuda"), peak.A100) == pytest.approx(mixed)
    assert speed._bound([network] * 2, "fp32", CPU, {"fp32": 1e12}) == pytest.approx(2 * 128 * vit_flops() / 1e9)


def checked(table: pd.DataFrame, *keys: str) -> pd.DataFrame:
    """The table, whose rows ``keys`` tell in_own_process, and whose numbers are all above 0 and in order."""
    assert not table.duplicated([*keys, "quantity"]).any()
    assert (table["value"] > 0).all()
    times = table[table["quantity"] == "time_per_batch"]
    assert (times["repeats"] == 3).all()
    assert (times["std"] >= 0).all()
    assert (times["low"] <= times["median"]).all()
    assert (times["median"] <= times["high"]).all()
    assert dict(zip(table["quantity"], table["unit"], strict=True)) == {
        "time_per_batch": "ms",
        "peak_memory": "GB",
        "flop_bound": "ms",
    }  # no launch time without a GPU
    assert set(table["peak_from"]) == {"matmul"}
    assert set(table["torch"]) == {torch.__version__}
    assert set(table["batch"]) == {4}
    return table


def test_training(backbone: Path, tmp_path: Path) -> None:
    costs = speed.training({"tiny": f"local-dir:{backbone}"}, 4, CPU, "bf16", 3)
    table = checked(costs, "source", "method").set_index(["quantity", "method"])
    assert list(table.loc["time_per_batch"].index) == ["ft", "prt", "prt_cached"]
    assert set(table["table"]) == {"table1"}
    assert set(table["source"]) == {"tiny"}
    assert set(table["precision"]) == {"bf16"}
    bound = table.loc["flop_bound", "value"]
    assert bound["prt_cached"] == bound["ft"]
    assert bound["prt"] / bound["ft"] == pytest.approx(4 / 3, rel=0.02)  # one more forward pass
    draw(costs, stem=tmp_path / "table1")
    assert len(pd.read_csv(tmp_path / "table1.csv")) == 9


def test_inference(backbone: Path, tmp_path: Path) -> None:
    models = dict.fromkeys("ab", f"local-dir:{backbone}")
    table = checked(speed.inference(models, [("a", "b")], 4, CPU, 3, False), "source", "target", "method", "variant")
    alone = ["baseline", "+ channels_last", "+ bf16"]
    variants = {"ft": alone, "eft": [*alone, "+ shared input"], "prt": [*alone, "+ shared input"]}
    assert {m: list(dict.fromkeys(t["variant"])) for m, t in table.groupby("method")} == variants
    assert set(zip(table["variant"], table["precision"], strict=True)) == {
        ("baseline", "fp32"),
        ("+ channels_last", "fp32"),
        ("+ bf16", "bf16"),
        ("+ shared input", "bf16"),
    }
    bound = table[(table["quantity"] == "flop_bound") & (table["variant"] == "+ bf16")].set_index("method")["value"]
    assert bound["prt"] == pytest.approx(2 * bound["ft"], rel=1e-4)
    assert bound["eft"] == pytest.approx(3 * bound["ft"], rel=1e-4)
    draw(table, stem=tmp_path / "table2")
    assert len(pd.read_csv(tmp_path / "table2.csv")) == len(table)


def test_without_a_compiler_it_says_so(
    backbone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    table = speed.inference({"tiny": f"local-dir:{backbone}"}, [("tiny", "tiny")], 2, CPU, 1, True)
    assert "there is no g++" in capsys.readouterr().err
    assert "+ compile" not in set(table["variant"])


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"models": {"tiny": "ViT-B-61"}}, r"unknown open_clip model 'ViT-B-61': did you mean 'ViT-B-16'\?"),
        ({"models": {"tiny": "local-dir:nowhere"}}, "nowhere/open_clip_config.json does not exist"),
        ({"batch": 0}, "the batch is 0, but must be 1 or more"),
        ({"repeats": 0}, "the number of repeats is 0, but must be 1 or more"),
        ({"pairs": [("tiny", "teny")]}, r"unknown model of a pair 'teny': did you mean 'tiny'\?"),
        ({"batch": 10**9}, "a batch of 1000000000 does not fit into memory; give a smaller --batch"),
    ],
)
def test_bad_input(changed: dict[str, Any], complaint: str) -> None:
    good = {"models": {"tiny": "RN50"}, "pairs": [("tiny", "tiny")], "batch": 1, "repeats": 1}
    with pytest.raises(InputError, match=complaint):
        speed.inference(**(good | changed), device=CPU, compiled=False)


def test_a_measurement_that_is_killed_is_told_in_a_sentence() -> None:
    """As Linux does where memory runs out."""
    with pytest.raises(InputError, match=r"killed: most likely a batch of 4 does not fit into memory; give a smaller"):
        in_own_process(speed._too_large(4), os._exit, 137)


def test_a_precision_that_cannot_be() -> None:
    with pytest.raises(InputError, match=r"unknown precision 'bf61': did you mean 'bf16'\?"):
        speed.training({"a": "RN50"}, 1, CPU, "bf61", 1)


@pytest.mark.parametrize(
    ("precision", "kinds"), [("fp32", {"fp32"}), ("bf16", {"fp32", "bf16"}), ("fp16", {"fp32", "bf16"})]
)
def test_the_peak_is_measured_for_what_is_computed_in_only(precision: str, kinds: set[str]) -> None:
    """A product in bf16 takes a processor without units for it seconds."""
    facts, peaks = speed._about(CPU, {precision})
    assert facts["peak_from"] == "matmul"
    assert set(peaks) == kinds
    assert all(flops > 1e8 for flops in peaks.values())


def test_a_processor_slow_in_bf16_has_the_peak_of_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """It could have computed in float32: its bf16 networks, which do in part, were below the bound of the product."""
    monkeypatch.setattr(peak, "_attained", lambda device, kind: {"fp32": 9e10, "bf16": 1e9}[kind])
    assert peak.reach(CPU, {"fp32", "bf16"}) == ("matmul", {"fp32": 9e10, "bf16": 9e10})
    monkeypatch.setattr(peak, "_attained", lambda device, kind: {"fp32": 9e10, "bf16": 4e11}[kind])
    assert peak.reach(CPU, {"bf16"}) == ("matmul", {"fp32": 9e10, "bf16": 4e11})


def test_a_bound_above_a_measurement_is_not_given(
    backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor any other in its precision: they are of one peak, which was none. In this process, to save time."""
    monkeypatch.setattr(speed, "in_own_process", lambda _, measure, *arguments: measure(*arguments))
    bounds = iter([1e9, *[1e-3] * 20])  # of the first batch, in float32
    monkeypatch.setattr(speed, "_bound", lambda *_: next(bounds))
    pair = dict.fromkeys("ab", f"local-dir:{backbone}")
    table = speed.inference(pair, [("a", "b")], 2, CPU, 1, False)
    assert set(table.loc[table["quantity"] == "flop_bound", "precision"]) == {"bf16"}
    assert set(table.loc[table["quantity"] == "time_per_batch", "precision"]) == {"fp32", "bf16"}
    assert "fp32 without a bound: some batch was faster than it" in capsys.readouterr().err
    monkeypatch.setattr(speed, "_bound", lambda *_: 1e9)
    table = speed.training({"tiny": f"local-dir:{backbone}"}, 2, CPU, "fp32", 1)
    draw(table, stem=tmp_path / "table1")
    texts = [text for line in read_sheet(figure(table)) for text in line]
    assert not [text for text in texts if "bound" in text]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_launch_times_on_a_gpu(backbone: Path) -> None:
    table = speed.inference({"tiny": f"local-dir:{backbone}"}, [("tiny", "tiny")], 128, torch.device("cuda"), 3, False)
    assert "+ streams" in set(table["variant"])
    assert set(table["quantity"]) == {"time_per_batch", "launch_time_per_batch", "peak_memory", "flop_bound"}
