"""The training loop: its schedule, its checks, and that a killed run ends where it would have ended."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from prt import training
from prt.atomic import read_tensors
from prt.errors import InputError
from prt.training import Recipe, fit

# Writes a checkpoint after every iteration, so that a kill at any moment leaves one behind it.
OFTEN = "import prt.training; prt.training.CHECKPOINT_SECONDS = 0; from prt.cli import main; main()"


@given(st.integers(1, 60), st.integers(0, 60))
def test_learning_rate(steps: int, warmup: int) -> None:
    recipe = Recipe(lr=2.0, steps=steps, warmup=warmup)
    rates = [recipe.learning_rate(step) for step in range(steps)]
    assert all(0 < rate <= 2 for rate in rates)
    up, down = rates[:warmup], rates[warmup:]
    assert up == sorted(up)
    assert down == sorted(down, reverse=True)
    if warmup < steps:
        assert recipe.learning_rate(warmup) == 2
        assert recipe.learning_rate(steps) == pytest.approx(0, abs=1e-12)


def test_the_paper_s_recipe() -> None:
    """App. B.1: Adam, 1e-5, batch 128, 2000 iterations, 500 of them warm-up, cosine."""
    recipe = Recipe()
    assert (recipe.optimizer, recipe.lr, recipe.batch, recipe.steps, recipe.warmup) == ("adam", 1e-5, 128, 2000, 500)
    assert (recipe.weight_decay, recipe.clip, recipe.precision) == (0, None, "fp32")
    assert recipe.learning_rate(0) == pytest.approx(1e-5 / 500)
    assert recipe.learning_rate(1250) == pytest.approx(0.5e-5)


def regression(tmp_path: Path, recipe: Recipe, stop_at: int | None = None, **options: object) -> tuple[nn.Module, list]:
    """A small regression with batch norm; stops by an exception after ``stop_at`` batches."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))

    def batches(start: int) -> Iterator[Tensor]:
        for step in range(start, 10**6):
            if step == stop_at:
                raise KeyboardInterrupt
            yield torch.randn(8, 3, generator=torch.Generator().manual_seed(step))

    curve = fit(
        network,
        lambda x: ((network(x)[:, 0] - x.sum(1)) ** 2).mean(),
        batches,
        recipe,
        name="test",
        checkpoint=tmp_path / "c.safetensors",
        identity="test",
        **options,
    )
    return network, curve


def same(a: nn.Module, b: nn.Module) -> bool:
    theirs = b.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in a.state_dict().items())


@pytest.mark.parametrize("recipe", [
    Recipe(lr=1e-2, steps=12, warmup=3),
    Recipe(lr=1e-2, steps=12, warmup=0, optimizer="adamw", weight_decay=0.1, clip=0.5),
    Recipe(lr=1e-2, steps=12, warmup=3, precision="bf16"),
])  # fmt: skip
def test_resumed_at_every_iteration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: Recipe) -> None:
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0)
    calls = []

    def evaluate() -> dict[str, float]:
        calls.append(1)
        return {"measured": float(len(calls))}

    whole, curve = regression(tmp_path / "whole", recipe, evaluate=evaluate, every=5)
    assert [row["iteration"] for row in curve] == [0, 5, 10, 12]
    for stop_at in range(1, recipe.steps):
        folder, calls[:] = tmp_path / str(stop_at), []
        with pytest.raises(KeyboardInterrupt):
            regression(folder, recipe, stop_at, evaluate=evaluate, every=5)
        resumed, rows = regression(folder, recipe, evaluate=evaluate, every=5)
        assert same(whole, resumed)
        assert rows == curve


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    recipe = Recipe(lr=1e-2, steps=4, warmup=0)
    whole, _ = regression(tmp_path, recipe)
    again, _ = regression(tmp_path, recipe, stop_at=0)
    assert same(whole, again)


def test_another_recipe_starts_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    regression(tmp_path, Recipe(lr=1e-2, steps=4, warmup=0))
    network, _ = regression(tmp_path, Recipe(lr=1e-3, steps=4, warmup=0))
    assert "belongs to another configuration" in capsys.readouterr().err
    assert same(network, regression(tmp_path / "fresh", Recipe(lr=1e-3, steps=4, warmup=0))[0])


def test_a_damaged_checkpoint_starts_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = Recipe(lr=1e-2, steps=4, warmup=0)
    whole, _ = regression(tmp_path, recipe)
    path = tmp_path / "c.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    again, _ = regression(tmp_path, recipe)
    assert "starting over" in capsys.readouterr().err
    assert same(whole, again)


def test_the_checkpoint_holds_no_pickle(tmp_path: Path) -> None:
    regression(tmp_path, Recipe(lr=1e-2, steps=4, warmup=0))
    tensors, header = read_tensors(tmp_path / "c.safetensors", "checkpoint")
    assert header["step"] == 4
    assert {"rng", "network.0.weight", "optimizer.0.exp_avg"} <= set(tensors)


def test_a_loss_that_is_not_finite(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the loss of test is (nan|inf) at iteration \d+: lower the learning rate"):
        regression(tmp_path, Recipe(lr=1e30, steps=50, warmup=0))


def command(backbone: Path, dataset: Path, head: Path, out: Path, workers: int = 0) -> list[str]:
    recipe = {"lr": 1e-3, "batch": 8, "steps": 60, "warmup": 5, "augment": workers > 0}
    options = {
        "spec": f"local-dir:{backbone}", "backbone": "tiny", "dataset": "shapes", "data": dataset, "head": head,
        "method": "prt", "workers": workers, "regimes": json.dumps({"4": recipe}), "every": 20, "alpha": 0.01,
        "out": out, "checkpoints": out / "checkpoints",
    }  # fmt: skip
    flags = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    return [sys.executable, "-c", OFTEN, "vision", "tune", *flags, "--seed", "0", "--seed", "1"]


def weights(out: Path) -> dict[str, Tensor]:
    found = {}
    for seed in ("0", "1"):
        for name in ("weights", "test", "validation"):
            tensors, _ = read_tensors(out / "4" / seed / f"{name}.safetensors", "file")
            found |= {f"{seed}/{name}/{key}": value for key, value in tensors.items()}
    return found


def kill_in_training(arguments: list[str], folder: Path, number: signal.Signals, delay: float) -> int:
    """Start, wait for a new checkpoint, wait ``delay`` seconds more, send a signal; the exit code."""
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*.safetensors")} if folder.exists() else {}
    process = subprocess.Popen(arguments, stderr=subprocess.DEVNULL)
    limit = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < limit:
        if {p: p.stat().st_mtime_ns for p in folder.rglob("[!.]*.safetensors") if p.exists()} != before:
            break
        time.sleep(0.01)
    time.sleep(delay)
    os.kill(process.pid, number)
    return process.wait()


def test_killed_at_random_moments(backbone: Path, dataset: Path, head: Path, tmp_path: Path) -> None:
    """SIGKILL and SIGTERM, then again: bitwise the same weights, scores and curve as a run never stopped."""
    subprocess.run(command(backbone, dataset, head, tmp_path / "whole"), check=True, stderr=subprocess.DEVNULL)
    arguments, checkpoints = command(backbone, dataset, head, tmp_path / "killed"), tmp_path / "killed" / "checkpoints"
    moments = random.Random(time.time_ns())
    for number, code in ((signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGKILL, -9)):
        delay = moments.uniform(0, 0.3)
        assert kill_in_training(arguments, checkpoints, number, delay) in (code, 0), f"delay {delay}"
        # Nothing declared is ever half-written: where there is a manifest, the folder is whole.
        for manifest in (tmp_path / "killed").rglob("manifest.json"):
            assert {"weights.safetensors", "test.safetensors"} <= {p.name for p in manifest.parent.iterdir()}
    subprocess.run(arguments, check=True, stderr=subprocess.DEVNULL)
    whole, killed = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert whole.keys() == killed.keys()
    assert all(torch.equal(whole[name], killed[name]) for name in whole)
    for seed in ("0", "1"):
        curves = [(tmp_path / d / "4" / seed / "curve.csv").read_text() for d in ("whole", "killed")]
        assert curves[0] == curves[1]
        assert len(curves[0].splitlines()) == 5
    assert not [p for p in (tmp_path / "killed").rglob("*.part")]
    assert not list(checkpoints.rglob("*.safetensors"))


def test_a_signal_to_all_processes(backbone: Path, dataset: Path, head: Path, tmp_path: Path) -> None:
    """A cluster signals the workers, too: the run still writes its checkpoint, and goes on to the same weights."""
    for name in ("whole", "killed"):
        arguments = command(backbone, dataset, head, tmp_path / name, workers=2)
        if name == "killed":
            process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, start_new_session=True)
            while not list((tmp_path / name).rglob("[!.]*.safetensors")) and process.poll() is None:
                time.sleep(0.01)
            os.killpg(process.pid, signal.SIGTERM)
            _, complaint = process.communicate()
            assert process.returncode == 143
            assert "stopped by a signal" in complaint
            assert "Traceback" not in complaint
        subprocess.run(arguments, check=True, stderr=subprocess.DEVNULL)
    whole, killed = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert all(torch.equal(whole[name], killed[name]) for name in whole)


def test_weights_that_are_not_finite_after_the_last_iteration(tmp_path: Path) -> None:
    """A finite loss can have a gradient that is not: √u at u = 0."""
    network = nn.Linear(1, 1)
    with pytest.raises(InputError, match="the weights of test are not finite after the last iteration"):
        fit(
            network,
            lambda x: (0 * network.weight).abs().sqrt().sum() + x,
            lambda start: [torch.zeros(())],
            Recipe(lr=1e-3, steps=1, warmup=0),
            name="test",
            checkpoint=tmp_path / "c.safetensors",
            identity=0,
        )
    assert not list(tmp_path.iterdir())


BAD = [
    ("optimizer", "sgd"),
    ("precision", "fp8"),
    ("batch", 0),
    ("steps", "many"),
    ("warmup", -1),
    ("lr", -1.0),
    ("clip", "x"),
]


@pytest.mark.parametrize(("key", "value"), BAD)
def test_bad_recipes(key: str, value: object) -> None:
    with pytest.raises(InputError, match=key):
        Recipe(**{key: value})


def test_signal_handlers_are_put_back(tmp_path: Path) -> None:
    before: Callable | int | None = signal.getsignal(signal.SIGTERM)
    regression(tmp_path, Recipe(lr=1e-2, steps=2, warmup=0))
    assert signal.getsignal(signal.SIGTERM) == before
