"""Runs are resumed bit for bit, and end where a loss is no number."""

import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.recipes import but
from helpers.tuning import RECIPE, Run, bases, data, imported, interrupt, run, same, stopped

from prt.errors import InputError
from prt.language import trainer as module
from prt.language.network import Tuned
from prt.language.recipe import Lora

__all__ = ["bases", "data", "imported", "run", "stopped"]  # fixtures


def always_saved(patch: pytest.MonkeyPatch) -> None:
    """Have a checkpoint after each step."""
    patch.setattr(module, "CHECKPOINT_SECONDS", 0)
    patch.setattr(module, "SAVING_SHARE", 0)


@pytest.mark.parametrize(("options", "signalled"), [
    ({"alpha": 0.1, "seeds": [0, 1]}, signal.SIGTERM),
    ({"lora": Lora(rank=2, alpha=4)}, signal.SIGUSR1),
    ({"method": "ft"}, None),
])  # fmt: skip
def test_a_resumed_run_is_the_same(
    run: Run,
    stopped: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    options: dict[str, Any],
    signalled: signal.Signals | None,
) -> None:
    """Six steps of ten passes a seed, ended in the last seed's second epoch: by a signal, or just so."""
    seeds = options.get("seeds", [0])
    whole = run("whole", **options)
    with monkeypatch.context() as patch:
        if signalled is None:
            always_saved(patch)
        if signalled is not None:
            stopped(10 * len(seeds) - 3, lambda: os.kill(os.getpid(), signalled))
        else:
            stopped(10 * len(seeds) - 1, interrupt)
        with pytest.raises((SystemExit, KeyboardInterrupt)) as stop:
            run("again", **options)
        if signalled is not None:
            assert stop.value.code == 128 + signalled
            said = capfd.readouterr().err
            assert f": {signalled.name} came; it ends when the iteration under way is done and saved" in said
            assert "stopped by a signal after iteration 4; run again to go on." in said
    calls: list[int] = []
    stopped(-1, interrupt)
    forward = Tuned.forward
    monkeypatch.setattr(Tuned, "forward", lambda self, **o: calls.append(self.training) or forward(self, **o))
    again = run("again", **options)
    assert sum(calls) < 6  # only what was left
    for seed in map(str, seeds):
        assert same(whole / seed, again / seed)
        assert (whole / seed / "curve.csv").read_text() == (again / seed / "curve.csv").read_text()


def test_half_a_checkpoint_is_not_resumed_from(
    run: Run, stopped: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = run("whole")
    with monkeypatch.context() as patch:
        always_saved(patch)
        writes: list[int] = []
        before = module._Trainer._save_rng_state
        patch.setattr(
            module._Trainer,
            "_save_rng_state",
            lambda self, folder: interrupt() if len(writes) == 3 else writes.append(1) or before(self, folder),
        )
        with pytest.raises(KeyboardInterrupt):
            run("again")
    folder = tmp_path / "again-checkpoints" / "0"
    found = {path.name: (path / "whole.json").exists() for path in folder.glob("checkpoint-*")}
    assert found == {"checkpoint-2": True, "checkpoint-3": True, "checkpoint-4": False}
    assert same(whole / "0", run("again") / "0")


def test_a_damaged_checkpoint(
    run: Run, stopped: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whichever of its files is cut or is something else: the run starts over, or says what to delete."""
    folder = tmp_path / "again-checkpoints" / "0"
    with monkeypatch.context() as patch:
        always_saved(patch)
        stopped(8, interrupt)
        with pytest.raises(KeyboardInterrupt):
            run("again")
    whole = tmp_path / "whole"
    shutil.copytree(folder, whole)
    name = max(path.name for path in whole.glob("checkpoint-*"))
    stopped(-1, interrupt)
    refused = set()
    for file in sorted(path for path in (whole / name).iterdir()):
        for content in (b"[]", file.read_bytes()[: -file.stat().st_size // 2]):
            shutil.rmtree(folder)
            shutil.copytree(whole, folder)
            (folder / name / file.name).write_bytes(content)
            try:
                run("again")
            except InputError as error:
                assert re.search("checkpoint.* is (damaged|corrupt) .*delete it", str(error))
                refused.add(file.name)
                shutil.copytree(whole, folder, dirs_exist_ok=True)
            else:
                folder.mkdir(parents=True)
    assert refused == {"model.safetensors", "optimizer.pt", "rng_state.pth", "scheduler.pt", "whole.json"}


@pytest.mark.parametrize("other", ["alpha", "threads"])
def test_another_configuration_starts_over(
    other: str,
    run: Run,
    stopped: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What was half done with another α, or by other threads, which round otherwise, is not gone on with."""
    with monkeypatch.context() as patch:
        always_saved(patch)
        stopped(4, interrupt)
        with pytest.raises(KeyboardInterrupt):
            run("again")
    stopped(-1, interrupt)
    options, before = {"alpha": 0.1} if other == "alpha" else {}, torch.get_num_threads()
    torch.set_num_threads(before + (other == "threads"))
    try:
        again = run("again", **options)
        assert "belongs to another configuration, or another number of threads" in capsys.readouterr().err
        assert same(again / "0", run("fresh", **options) / "0")
    finally:
        torch.set_num_threads(before)


def test_a_long_save_is_a_rare_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes longer than all the steps after it, and is due at each, is the only one but that on a signal."""
    monkeypatch.setattr(module, "CHECKPOINT_SECONDS", 0)
    monkeypatch.setattr(module, "SAVING_SHARE", 1e9)
    saves: list[int] = []
    before = module._Trainer._save_rng_state
    monkeypatch.setattr(
        module._Trainer, "_save_rng_state", lambda self, folder: saves.append(1) or before(self, folder)
    )
    run("run")
    assert len(saves) == 1


def test_a_loss_that_is_no_number(run: Run, tmp_path: Path) -> None:
    remedy = r"is (nan|inf) at iteration \d: lower the learning rate \(1e\+30\)"
    with pytest.raises(InputError, match=rf"the loss of prt α=0 llama sums 0 {remedy} or set 'clip'\.$"):
        run("run", recipe=but(RECIPE, lr=1e30))
    half = rf"the loss of ft llama sums 0 {remedy}, set 'clip' or use precision fp32 \(now bf16\)\.$"
    with pytest.raises(InputError, match=half):
        run("run", "ft", recipe=but(RECIPE, lr=1e30, precision="bf16"))
    assert not (tmp_path / "run").exists()
