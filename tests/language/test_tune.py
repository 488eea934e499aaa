"""Tuning tiny language models: the losses are Algorithm 1's, and several runs are as each alone."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
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
    interrupt,
    losses,
    run,
    stopped,
    tokens_of,
    weights,
)
from torch import Tensor

import prt.cell
from prt import objective
from prt.errors import InputError
from prt.language.chats import IGNORED, Manifest
from prt.language.models import load
from prt.language.recipe import Lora
from prt.language.reward import check_writable, load_tuned
from prt.language.reward import read_manifest as read_reward
from prt.language.tune import Tuning, tune

__all__ = ["bases", "data", "imported", "run", "stopped"]  # fixtures


@pytest.mark.parametrize(("method", "base", "alpha", "packing"), [
    ("ft", "llama", None, True),
    ("ft", "qwen", None, False),
    ("prt", "llama", 0.1, False),
    ("prt", "qwen", 0.0, True),
    ("prt", "qwen", 0.1, True),
])  # fmt: skip
def test_algorithm_1(
    run: Run,
    bases: dict[str, Path],
    data: Manifest,
    tmp_path: Path,
    method: str,
    base: str,
    alpha: Any,
    packing: bool,
) -> None:
    """The same losses and weights as a plain loop with the naive losses, batches whole and in parts."""
    recipe = but(RECIPE, batch=20, epochs=4, warmup=0.3, clip=1.0, weight_decay=0.1, packing=packing)
    folder = run("run", method, base, alpha=alpha, recipe=recipe) / "0"
    batch, other = (tokens_of(data, split, tmp_path) for split in ("train", "validation"))
    network, reference = (load(str(bases[base]), torch.float32, CPU).model for _ in range(2))
    matrices, vectors = ([p for p in network.parameters() if (p.ndim > 1) == wide] for wide in (True, False))
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0}])

    def loss(batch: dict[str, Tensor]) -> Tensor:
        learned = batch["labels"][:, 1:] != IGNORED
        inputs = {key: batch[key] for key in ("input_ids", "attention_mask")}
        ours, theirs = (m(**inputs).logits[:, :-1, :TOKENS][learned] for m in (network, reference))
        truth = batch["labels"][:, 1:][learned]
        if method == "ft":
            return objective.ft_loss(ours, truth)
        return objective.prt_loss(theirs, ours, truth, alpha)

    expected = []
    for lr in (0.0, 0.5e-2, 1e-2, 0.5e-2):  # two of four steps of warm-up, then down to 0
        optimizer.zero_grad()
        value = loss(batch)
        value.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
        expected.append(value.item())
    curve = pd.read_csv(folder / "curve.csv")
    assert curve.columns.tolist() == ["step", "epoch", "loss", "validation_loss", "lr"]
    assert curve["step"].tolist() == [1, 2, 3, 4]
    assert curve["lr"].tolist() == pytest.approx([0, 0.5e-2, 1e-2, 0.5e-2])
    assert curve["loss"].tolist() == pytest.approx(expected, rel=1e-4)
    assert curve["validation_loss"].iloc[-1] == pytest.approx(loss(other).item(), rel=1e-3)
    for name, value in network.state_dict().items():
        torch.testing.assert_close(weights(folder)[name], value, atol=2e-3, rtol=0)  # Adam makes much of small slopes


def test_it_learns(run: Run) -> None:
    """The tuned model, reference and reward together, falls far below the reference alone."""
    start = losses(run("start", "ft", recipe=but(RECIPE, lr=0.0, batch=20, epochs=1)) / "0")[0]  # the reference's
    whole = losses(run("whole", recipe=but(RECIPE, epochs=10)) / "0")
    assert whole[0] > start  # the reward is not a difference: it begins as log π_pt, which then counts twice
    assert whole[-1] < 0.7 * start
    adapter = run("adapter", recipe=but(RECIPE, epochs=10, lr=5e-2), lora=Lora(rank=4, alpha=16))
    assert losses(adapter / "0")[-1] < 0.98 * start  # of so small a network little can be learned beside its weights


def test_ways_that_change_nothing(run: Run) -> None:
    """Packing, passes and gradient checkpointing are of memory and speed alone."""
    plain = losses(run("plain") / "0")
    for name, options in {
        "padded": {"packing": False, "per_device_batch": 8},
        "checkpointing": {"gradient_checkpointing": True, "per_device_batch": 1},
    }.items():
        assert losses(run(name, recipe=but(RECIPE, **options)) / "0") == pytest.approx(plain, rel=1e-4)


def test_several_runs_are_as_each_alone(bases: dict[str, Path], data: Manifest, tmp_path: Path) -> None:
    """Every file, to the byte: weights, curve, tokenizer and manifest."""

    def tuning(top: str, method: str, alpha: float | None, lora: Lora | None, seed: int, how: Any) -> Tuning:
        run = prt.cell.Run(dataset="sums", model="llama", method=method, alpha=alpha, lora=lora is not None, seed=seed)
        place = Path(run.name, str(seed))
        return Tuning(run, but(RECIPE, **how), lora, tmp_path / top / place, tmp_path / f"{top}-checkpoints" / place)

    every: list[tuple[Any, ...]] = [
        ("ft", None, None, 0, {}),
        ("prt", 0.1, None, 0, {"lr": 1e-3}),
        ("prt", 0.1, None, 1, {"precision": "bf16"}),
        ("prt", 0.0, Lora(rank=2, alpha=4, targets=["q_proj"]), 0, {"max_length": 30}),
    ]
    together = [tuning("together", *one) for one in every]
    tune(str(bases["llama"]), together, data=data, device=CPU)
    for one in every:
        tune(str(bases["llama"]), [tuning("alone", *one)], data=data, device=CPU)
    written = [
        {path.relative_to(top): path.read_bytes() for path in top.rglob("*") if path.is_file()}
        for top in (tmp_path / "together", tmp_path / "alone")
    ]
    assert len(written[0]) > 4 * 6
    assert written[0] == written[1]
    assert len({content for path, content in written[0].items() if path.name == "curve.csv"}) == len(every)


def test_tunings_that_contradict_themselves(tmp_path: Path) -> None:
    run = prt.cell.Run(dataset="sums", model="llama", method="prt", lora=True)
    with pytest.raises(InputError, match="alpha is None, but prt's weight of entropy maximisation must be 0 or more"):
        Tuning(run, RECIPE, Lora(), tmp_path, tmp_path)
    with pytest.raises(InputError, match=r"the run prt-lora_0 and its adapter None disagree"):
        Tuning(run.model_copy(update={"alpha": 0.0}), RECIPE, None, tmp_path, tmp_path)


def test_bfloat16(run: Run) -> None:
    """Float32 weights computed with in bfloat16, and saved as that."""
    full, half = run("full") / "0", run("half", recipe=but(RECIPE, precision="bf16")) / "0"
    assert losses(half) == pytest.approx(losses(full), rel=0.05)
    assert losses(half) != losses(full)
    assert (half / "model.safetensors").stat().st_size < 0.6 * (full / "model.safetensors").stat().st_size
    adapter = run("adapter", recipe=but(RECIPE, precision="bf16"), lora=Lora(rank=2, alpha=4)) / "0"
    assert losses(adapter)[0] == pytest.approx(losses(full)[0], rel=0.05)


def test_nothing_of_others_is_removed(run: Run, bases: dict[str, Path], tmp_path: Path) -> None:
    """Neither in a folder of checkpoints that serves other ends or another job, too, nor beside a tuned model."""
    shared, out = tmp_path / "run-checkpoints", tmp_path / "run" / "0"
    theirs = [shared / "1" / "checkpoint-2" / "whole.json", shared / "1" / "tokens" / "train.arrow", shared / "0" / "a"]
    recipe = but(RECIPE, epochs=1)
    theirs += [shared / "thesis.txt", out / "notes.txt", out / "older.safetensors"]
    for file in theirs:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("mine")
    with pytest.raises(AssertionError):  # the folder stays
        run("run", recipe=recipe, lora=Lora(rank=2, alpha=4))
    assert all(file.read_text() == "mine" for file in theirs)
    assert sorted(p.name for p in shared.rglob("*")) == [
        *("0", "1", "a", "checkpoint-2", "thesis.txt", "tokens", "train.arrow", "whole.json")
    ]
    shutil.rmtree(shared)
    assert load_tuned(out, torch.float32, CPU)
    run("run", "ft", recipe=recipe)  # whole, where an adapter was
    assert read_reward(out)["files"].keys() == {p.name for p in out.iterdir()} - {
        *("curve.csv", "manifest.json", "notes.txt", "older.safetensors")
    }
    assert not list(out.glob("adapter*"))
    assert load_tuned(out, torch.float32, CPU).name == "llama ft"


def test_a_folder_that_cannot_be_written(run: Run, stopped: Callable[..., None], tmp_path: Path) -> None:
    """It is noticed before training."""
    stopped(1, interrupt)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write .*file/run/0: .*file is a file; remove it or choose another"):
        run("file/run")
    user = os.geteuid()
    (tmp_path / "closed").mkdir(mode=0o500)
    if user == 0:
        os.seteuid(65534)  # root may write anywhere
    try:
        with pytest.raises(InputError, match=r"cannot write .*closed/run/0: .* may not be written to; choose another"):
            check_writable(tmp_path / "closed" / "run" / "0")
    finally:
        os.seteuid(user)


def test_bad_settings(run: Run, bases: dict[str, Path], tmp_path: Path) -> None:
    def refused(complaint: str, **options: Any) -> None:
        with pytest.raises(InputError, match=complaint):
            run("run", **options)
        assert not (tmp_path / "run").exists()

    refused("unknown tuning method 'adapted'", method="adapted")
    refused("alpha is -1.0, but", alpha=-1)
    refused(
        "'batch' of a tuning recipe is 8, which cannot be made of 'per_device_batch' 3",
        recipe=but(RECIPE, per_device_batch=3),
    )
    refused("'max_length' of the recipe is 65, but the context of llama is 64", recipe=but(RECIPE, max_length=65))
    refused("LoRA cannot be put on llama: .*'targets'", lora=Lora(targets=["q_prog"]))
    refused("take it out of 'targets'", lora=Lora(targets=["lm_head"]), base="qwen")
    refused("LoRA cannot be put on llama: .*'targets'", lora=Lora(targets="(q_proj"))
    refused("LoRA on the input embeddings of llama would change", lora=Lora(targets=["embed_tokens", "q_proj"]))
    refused("alpha is 0.1, but ft has no entropy to maximise", method="ft", alpha=0.1)
    refused("has no chat template of its own", template="own")
