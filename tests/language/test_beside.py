"""Rewards of language models that are tuned beside more or less of a pretrained model, or beside several."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.recipes import but
from helpers.tuning import (
    CPU,
    RECIPE,
    TOKENS,
    Run,
    bases,
    data,
    imported,
    losses,
    run,
    same,
    stopped,
    tokens_of,
    weights,
)
from transformers import LlamaConfig, LlamaForCausalLM

from prt import objective
from prt.errors import InputError
from prt.language.chats import IGNORED, Manifest
from prt.language.models import load
from prt.language.recipe import Lora
from prt.language.reward import read_manifest
from prt.reference import drawn

__all__ = ["bases", "data", "imported", "run", "stopped"]  # fixtures

MIXED = {"reference": [0.0, 1.5], "references": ["qwen"]}


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("beside", [{"reference": 0.5}, {"reference": [0.0, 1.0]}, MIXED])
def test_by_hand(
    run: Run, bases: dict[str, Path], data: Manifest, tmp_path: Path, beside: dict[str, Any], packing: bool
) -> None:
    """A plain loop with the naive loss, each conversation with its own β and model; batches whole and in parts."""
    recipe = but(RECIPE, batch=20, epochs=3, warmup=0, packing=packing, **beside)
    folder = run("run", recipe=recipe) / "0"
    batch, other = (tokens_of(data, split, tmp_path) for split in ("train", "validation"))
    network, reference = (load(str(bases["llama"]), torch.float32, CPU).model for _ in range(2))
    frozen = [reference, load(str(bases["qwen"]), torch.float32, CPU).model]
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0)
    labels, every = batch["labels"][:, 1:], torch.arange(20)
    learned, inputs = labels != IGNORED, {key: batch[key] for key in ("input_ids", "attention_mask")}
    with torch.no_grad():
        seen = torch.stack([model(**inputs).logits[:, :-1, :TOKENS] for model in frozen])
    expected = []
    for step, lr in enumerate((1e-2, 1e-2 * 2 / 3, 1e-2 / 3)):
        beta, model = drawn(recipe, 0, step, every, 20)
        ours = network(**inputs).logits[:, :-1, :TOKENS]
        per_token = beta[:, None].expand_as(labels)[learned][:, None]
        loss = objective.prt_loss(seen[model, every][learned], ours[learned], labels[learned], 0.0, per_token)
        optimizer.zero_grad()
        loss.backward()
        optimizer.param_groups[0]["lr"] = lr
        optimizer.step()
        expected.append(loss.item())
    assert losses(folder) == pytest.approx(expected, rel=1e-4)
    for name, value in network.state_dict().items():
        torch.testing.assert_close(weights(folder)[name], value, atol=2e-3, rtol=0)
    # The validation loss is the tuned source's own: β = 1.
    learned, inputs = other["labels"][:, 1:] != IGNORED, {key: other[key] for key in ("input_ids", "attention_mask")}
    with torch.no_grad():
        ours, theirs = (m(**inputs).logits[:, :-1, :TOKENS][learned] for m in (network, reference))
    own = objective.prt_loss(theirs, ours, other["labels"][:, 1:][learned]).item()
    last = [line.split(",") for line in (folder / "curve.csv").read_text().splitlines()][-1]
    assert float(last[3]) == pytest.approx(own, rel=1e-3)


@pytest.mark.parametrize("options", [{}, {"lora": Lora(rank=2, alpha=4)}])
def test_a_resumed_run_is_the_same(run: Run, stopped: Callable[..., None], options: dict[str, Any]) -> None:
    """Six steps of two passes and more, ended in the second epoch."""
    recipe = but(RECIPE, **MIXED)
    whole = run("whole", recipe=recipe, **options)
    stopped(7, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit):
        run("again", recipe=recipe, **options)
    again = run("again", recipe=recipe, **options)
    assert same(whole / "0", again / "0")
    assert (whole / "0" / "curve.csv").read_text() == (again / "0" / "curve.csv").read_text()


def test_ways_that_change_nothing(run: Run) -> None:
    """Draws do not depend on packing and passes; β = 0 is fine-tuning."""
    plain = losses(run("plain", recipe=but(RECIPE, **MIXED)) / "0")
    parts = but(RECIPE, **MIXED, packing=False, per_device_batch=2)
    assert losses(run("parts", recipe=parts) / "0") == pytest.approx(plain, rel=1e-4)
    nothing, ft = run("nothing", recipe=but(RECIPE, reference=0)) / "0", run("ft", "ft") / "0"
    assert losses(nothing) == losses(ft)
    assert same(nothing, ft)


def test_a_manifest_says_how(run: Run, tmp_path: Path) -> None:
    manifest = read_manifest(run("run", recipe=but(RECIPE, epochs=1, **MIXED)) / "0")
    assert manifest["recipe"]["reference"] == [0.0, 1.5]
    assert manifest["references"].keys() == {"qwen"}
    assert "reference" not in read_manifest(run("plain", recipe=but(RECIPE, epochs=1)) / "0")["recipe"]


def test_a_model_of_other_tokens(run: Run, bases: dict[str, Path], tmp_path: Path) -> None:
    config = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    model = LlamaForCausalLM(LlamaConfig(**config, vocab_size=TOKENS - 5, max_position_embeddings=64))
    model.save_pretrained(tmp_path / "small")
    for file in bases["llama"].glob("token*"):
        (tmp_path / "small" / file.name).write_bytes(file.read_bytes())
    bases["small"] = tmp_path / "small"
    with pytest.raises(InputError, match=r"small has .* rows for .* tokens"):
        run("run", recipe=but(RECIPE, references=["small"]))
    del bases["small"]
