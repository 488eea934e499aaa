"""Tables 1 and 2 measured on small networks, the arithmetic behind their bounds, and networks that run as one."""

import copy
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from prt.errors import InputError
from prt.profiling import apart
from prt.vision import speed as benchmark
from prt.vision.backbones import Classifier, build_tower
from prt.vision.fused import Fused

Prt = Callable[..., tuple[int, str, str]]
CPU = torch.device("cpu")
TINY = {"embed_dim": 16, "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16}}
LOOK = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]}


def vit_flops(tokens: int = 197, width: int = 768, layers: int = 12, patch: int = 16, out: int = 512) -> int:
    """Twice the multiplications of ViT-B-16 on an image, from its shapes."""
    embedding = (tokens - 1) * 3 * patch**2 * width
    attention = 4 * tokens * width**2 + 2 * tokens**2 * width
    return 2 * (embedding + layers * (attention + 8 * tokens * width**2) + width * out)


def test_flops_are_those_of_a_count_by_hand() -> None:
    forward = benchmark.count("ViT-B-16", 1, backward=False)
    assert sum(forward.values()) == vit_flops()
    assert forward["convolutions"] == 2 * 196 * 3 * 16**2 * 768
    assert 128 * vit_flops() == pytest.approx(4.5e12, rel=0.01)
    assert benchmark.count("ViT-B-16/laion2b_s34b_b88k", 128, backward=False)["rest"] == 128 * forward["rest"]


@pytest.mark.parametrize(
    ("model", "stem"),
    [("ViT-B-16", 2 * 196 * 3 * 16**2 * 768), ("convnext_base_w", 2 * 64**2 * 3 * 4**2 * 128)],
)
def test_the_backward_pass_costs_two_forward_passes_but_for_the_image(model: str, stem: int) -> None:
    """ConvNeXt's convolutions are grouped; nothing asks for the gradient of an image."""
    forward, whole = benchmark.count(model, 1, backward=False), benchmark.count(model, 1)
    assert whole["rest"] == 3 * forward["rest"]
    assert whole["convolutions"] == 3 * forward["convolutions"] - stem


def test_the_bound_of_an_a100() -> None:
    """The paper's 3.52 ms for 128 images through ViT-B-16 are less than a quarter of it."""
    network = benchmark.count("ViT-B-16", 128, backward=False)
    bound = benchmark._bound([network], "bf16", torch.device("cuda"), benchmark.A100)
    assert bound == pytest.approx(128 * vit_flops() / 312e12 * 1000)
    assert bound > 4 * 3.52
    # Float32 convolutions run on TF32 units, unless torch is told otherwise.
    mixed = 1000 * (network["convolutions"] / 156e12 + network["rest"] / 19.5e12)
    assert benchmark._bound([network], "fp32", torch.device("cuda"), benchmark.A100) == pytest.approx(mixed)
    assert benchmark._bound([network] * 2, "fp32", CPU, {"fp32": 1e12}) == pytest.approx(2 * 128 * vit_flops() / 1e9)


def measured(path: Path, *keys: str) -> pd.DataFrame:
    """The table, whose rows ``keys`` tell apart, and whose numbers are all above nought and in order."""
    table = pd.read_csv(path)
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


def test_training_on_the_command_line(prt: Prt, backbone: Path, tmp_path: Path) -> None:
    arguments = ["vision", "benchmark-training", "--model", f"tiny=local-dir:{backbone}", "--batch", 4, "--repeats", 3]
    code, _, complaint = prt(*arguments, "--out", tmp_path / "costs.csv", "--device", "cpu", "--precision", "bf16")
    assert code == 0, complaint
    table = measured(tmp_path / "costs.csv", "source", "method").set_index(["quantity", "method"])
    assert list(table.loc["time_per_batch"].index) == ["ft", "prt", "prt_cached"]
    assert set(table["table"]) == {"table1"}
    assert set(table["source"]) == {"tiny"}
    assert set(table["precision"]) == {"bf16"}
    bound = table.loc["flop_bound", "value"]
    assert bound["prt_cached"] == bound["ft"]
    assert bound["prt"] / bound["ft"] == pytest.approx(4 / 3, rel=0.02)  # one more forward pass
    code, _, complaint = prt("figure", "costs-table", "--table", tmp_path / "costs.csv", "--out", tmp_path / "table1")
    assert code == 0, complaint
    assert len(pd.read_csv(tmp_path / "table1.csv")) == 9


def test_inference_on_the_command_line(prt: Prt, backbone: Path, tmp_path: Path) -> None:
    models = ["--model", f"a=local-dir:{backbone}", "--model", f"b=local-dir:{backbone}"]
    arguments = ["vision", "benchmark-inference", *models, "--pair", "a:b", "--batch", 4, "--repeats", 3]
    out = tmp_path / "costs.csv"
    code, _, complaint = prt(*arguments, "--no-compile", "--out", out, "--device", "cpu")
    assert code == 0, complaint
    table = measured(out, "source", "target", "method", "variant")
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
    assert prt("figure", "costs-table", "--table", out, "--out", tmp_path / "table2")[0] == 0
    table.assign(batch=[4, *[8] * (len(table) - 1)]).to_csv(out)
    code, _, complaint = prt("figure", "costs-table", "--table", out, "--out", tmp_path / "mixed")
    assert code == 1
    assert "more than one 'batch' (4 and 8)" in complaint


def test_without_a_compiler_it_says_so(
    backbone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    table = benchmark.inference({"tiny": f"local-dir:{backbone}"}, [("tiny", "tiny")], 2, CPU, 1, True)
    assert "there is no g++" in capsys.readouterr().err
    assert "+ compile" not in set(table["variant"])


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"--model": "tiny=ViT-B-61"}, "unknown open_clip model 'ViT-B-61': did you mean 'ViT-B-16'?"),
        ({"--model": "ViT-B-16"}, "--model is 'ViT-B-16', but must be NAME=SPEC"),
        ({"--model": "tiny=local-dir:nowhere"}, "nowhere/open_clip_config.json does not exist"),
        ({"--batch": 0}, "the batch is 0, but must be 1 or more"),
        ({"--repeats": 0}, "the number of repeats is 0, but must be 1 or more"),
        ({"--pair": "tiny:teny"}, "unknown model of a pair 'teny': did you mean 'tiny'?"),
        ({"--pair": "tiny"}, "--pair is 'tiny', but must be SOURCE:TARGET"),
        ({"--batch": 10**9}, "a batch of 1000000000 does not fit into memory; give a smaller --batch"),
    ],
)
def test_bad_input(prt: Prt, tmp_path: Path, changed: dict[str, object], complaint: str) -> None:
    options = {"--model": "tiny=RN50", "--pair": "tiny:tiny", "--batch": 1, "--repeats": 1, "--out": tmp_path / "out"}
    given = [part for option in (options | changed).items() for part in option]
    code, _, said = prt("vision", "benchmark-inference", *given, "--no-compile", "--device", "cpu")
    assert code == 1
    assert complaint in said.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_a_measurement_that_is_killed_is_told_in_a_sentence() -> None:
    """As Linux does where memory runs out."""
    with pytest.raises(InputError, match=r"killed: most likely a batch of 4 does not fit into memory; give a smaller"):
        apart(benchmark._too_large(4), os._exit, 137)


def test_a_name_or_precision_that_cannot_be(prt: Prt, tmp_path: Path) -> None:
    arguments = ["vision", "benchmark-training", "--model", "a=RN50", "--out", tmp_path / "out"]
    assert "--model names 'a' twice" in prt(*arguments, "--model", "a=RN101")[2]
    assert "unknown precision 'bf61': did you mean 'bf16'?" in prt(*arguments, "--precision", "bf61")[2]


def tiny(seed: int, width: int = 32, look: dict[str, list[float]] = LOOK) -> Classifier:
    torch.manual_seed(seed)
    config = {**TINY, "vision_cfg": TINY["vision_cfg"] | {"width": width}}  # type: ignore[operator]
    return Classifier(build_tower(config), torch.randn(7, 16), torch.tensor(20.0), look).eval()


def pictures(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (5, 3, 32, 32), dtype=torch.uint8, generator=generator)


@torch.no_grad()
def test_fused_networks_say_what_each_says_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    other = {"mean": [0.5] * 3, "std": [0.5] * 3}
    networks = [tiny(0), tiny(1, width=64), tiny(2, look=other), tiny(3), tiny(4)]
    networks[3].tower.bfloat16()
    first, second = pictures(0), pictures(1)
    images = [first, first, first, first, second]
    alone = [network(x) for network, x in zip(networks, images, strict=True)]
    seen = []
    normalised = Classifier.normalised
    monkeypatch.setattr(Classifier, "normalised", lambda self, x: seen.append(self) or normalised(self, x))
    for one, other_one in zip(Fused(networks)(images), alone, strict=True):
        assert torch.equal(one, other_one)
    # The second network sees what the first does; then come another look, another precision, another image.
    assert seen == [networks[0], *networks[2:]]
    seen.clear()
    assert torch.equal(Fused(networks[:2], share=False)([first, first])[1], alone[1])
    assert seen == networks[:2]


@torch.no_grad()
def test_bf16_stays_near() -> None:
    network = tiny(0)
    half = copy.deepcopy(network)
    half.tower.bfloat16()
    logits = Fused([half])([pictures(0)])[0]
    assert logits.dtype == torch.float32
    assert not torch.equal(logits, network(pictures(0)))
    torch.testing.assert_close(logits, network(pictures(0)), atol=0.3, rtol=0.02)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@torch.no_grad()
def test_compiled_networks_say_the_same() -> None:
    network = tiny(0)
    assert torch.allclose(Fused([network], compiled=True)([pictures(0)])[0], network(pictures(0)), atol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@torch.no_grad()
def test_streams_and_launch_times_on_a_gpu(prt: Prt, backbone: Path, tmp_path: Path) -> None:
    networks = [tiny(0).cuda(), tiny(1, width=64).cuda()]
    fused, plain = Fused(networks), Fused(networks, streams=False)
    for seed in range(50):  # memory is used again and again
        images = pictures(seed).cuda()
        for one, other in zip(fused([images, images]), plain([images, images]), strict=True):
            torch.testing.assert_close(one, other)
        del images
    models = ["--model", f"tiny=local-dir:{backbone}", "--pair", "tiny:tiny", "--repeats", 3, "--out", tmp_path / "out"]
    code, _, complaint = prt("vision", "benchmark-inference", *models, "--no-compile", "--device", "cuda")
    assert code == 0, complaint
    table = pd.read_csv(tmp_path / "out")
    assert "+ streams" in set(table["variant"])
    assert set(table["quantity"]) == {"time_per_batch", "launch_time_per_batch", "peak_memory", "flop_bound"}
