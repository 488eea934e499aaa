"""Benchmarks asked in vLLM: the answers and likelihoods of transformers, and a result that says what measured it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.harness import ARC

from prt.cli.options import models_of
from prt.errors import InputError
from prt.miniature.tasks import write_problems

pytestmark = pytest.mark.vllm


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("data")
    write_problems(top / "problems")
    (top / "arc").mkdir()
    (top / "arc" / "test.jsonl").write_text("\n".join(json.dumps(each) for each in ARC))
    return top


def measured(out: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    lines = (out / "samples.jsonl").read_text().splitlines()
    return json.loads((out / "result.json").read_text()), [json.loads(line) for line in lines]


@pytest.mark.parametrize(
    ("benchmark", "folder", "settings"),
    [
        ("gsm8k", "problems", {"limit": 8, "generation": "{max_gen_toks: 24}", "chat_template": "true"}),
        ("arc_easy", "arc", {}),
    ],
)
def test_equal_to_transformers(
    family: Path,
    data: Path,
    tmp_path: Path,
    prt: Callable[..., tuple[int, str, str]],
    benchmark: str,
    folder: str,
    settings: dict[str, Any],
) -> None:
    asked = ["evaluate", benchmark, "--reward", family / "prt", "--target", family / "target", "--device", "cpu"]
    for key, value in ({"data": data / folder} | settings).items():
        asked += ["--set", f"{key}={value}"]
    for engine in ("transformers", "vllm"):
        code, _, said = prt(*asked, "--engine", engine, "--out", tmp_path / engine)
        assert code == 0, said
    (result, samples), (expected, wanted) = (measured(tmp_path / engine) for engine in ("vllm", "transformers"))
    assert (result["protocol"]["engine"], expected["protocol"]["engine"]) == ("vllm", "transformers")
    assert result["versions"]["vllm"]
    assert result["documents"] == expected["documents"]
    assert result["metrics"] == expected["metrics"]
    for sample, like in zip(samples, wanted, strict=True):
        assert sample["prompt"] == like["prompt"]
        if benchmark == "arc_easy":
            assert sample["response"] == pytest.approx(like["response"], abs=1e-4)
        else:
            assert sample["response"] == like["response"]


def test_cells_of_one_sum_share_an_engine(family: Path) -> None:
    from contextlib import ExitStack

    import torch

    from prt.cell import Cell
    from prt.engine.harness import EngineModels
    from prt.methods import PRETRAINED, SOURCE_FT, SOURCE_PRETRAINED

    places = {PRETRAINED: family / "target", SOURCE_PRETRAINED: family / "source"}
    asked: Any = (
        (lambda _, network: str(places.get(network, family / "prt"))),
        torch.float32,
        torch.device("cpu"),
        "tulu",
    )
    facts: Any = {"source": "source", "target": "target", "method": "prt", "alpha": 0.0, "seed": 0, "strength": 1.0}
    with ExitStack() as stack:
        models = EngineModels(*asked, stack)
        first = models.of(Cell(dataset="problems", **facts))
        assert models.of(Cell(dataset="instructions", **facts)) is first
        alone = models.of(Cell(dataset="problems", target="target", method="pretrained"))
        assert alone is not first
        assert "<|assistant|>" in alone.tokenizer.chat_template
        assert alone.name == "target"
        of = Cell(dataset="problems", **facts | {"target": "source", "method": "difference", "alpha": None})
        places[PRETRAINED], places[SOURCE_FT] = family / "source", family / "ft"
        assert models.of(of).name.startswith("source (difference: ")


def test_a_device_that_vllm_would_not_take() -> None:
    with (
        pytest.raises(
            InputError, match="computes on the first cpu that it sees, not on --device cuda:1; leave --device"
        ),
        models_of("vllm", lambda *_: "nowhere", torch.float32, torch.device("cuda:1")),
    ):
        pass
