"""The training loop: its checks, and that a stopped run ends where it would have ended."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from prt import training
from prt.atomic import read_tensors, write_tensors
from prt.errors import InputError
from prt.recipe import Recipe
from prt.training import fit


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


def test_one_that_ends_early_is_a_checkpoint_of_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its learning rates are the whole recipe's; where the whole was stopped, it had the same weights."""
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0)
    recipe = Recipe(lr=1e-2, steps=12, warmup=3)
    early, curve = regression(tmp_path / "early", recipe, stop=7, evaluate=dict, every=5)
    assert [row["iteration"] for row in curve] == [0, 5, 7]
    with pytest.raises(KeyboardInterrupt):
        regression(tmp_path / "whole", recipe, stop_at=7)
    state = read_tensors(tmp_path / "whole" / "c.safetensors", "checkpoint")[0]
    assert all(torch.equal(value, state[f"network.{name}"]) for name, value in early.state_dict().items())


def test_another_recipe_starts_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    regression(tmp_path, Recipe(lr=1e-2, steps=4, warmup=0))
    network, _ = regression(tmp_path, Recipe(lr=1e-3, steps=4, warmup=0))
    assert "belongs to another configuration" in capsys.readouterr().err
    assert same(network, regression(tmp_path / "fresh", Recipe(lr=1e-3, steps=4, warmup=0))[0])


def test_another_number_of_threads_starts_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It would round otherwise: half of each is what neither gives."""
    recipe, before = Recipe(lr=1e-2, steps=4, warmup=0), torch.get_num_threads()
    regression(tmp_path, recipe)
    torch.set_num_threads(before + 1)
    try:
        regression(tmp_path, recipe)
    finally:
        torch.set_num_threads(before)
    assert "another number of threads" in capsys.readouterr().err


def test_a_damaged_checkpoint_starts_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = Recipe(lr=1e-2, steps=4, warmup=0)
    whole, _ = regression(tmp_path, recipe)
    path = tmp_path / "c.safetensors"
    cut = path.read_bytes()[:-10]
    for damage in (lambda: path.write_bytes(cut), lambda: write_tensors(path, {}, {"kind": "head"})):
        damage()
        again, _ = regression(tmp_path, recipe)
        assert "starting over" in capsys.readouterr().err
        assert same(whole, again)


def test_the_checkpoint_holds_no_pickle(tmp_path: Path) -> None:
    regression(tmp_path, Recipe(lr=1e-2, steps=4, warmup=0))
    tensors, header = read_tensors(tmp_path / "c.safetensors", "checkpoint")
    assert header["step"] == 4
    assert {"rng", "network.0.weight", "optimizer.0.exp_avg"} <= set(tensors)


def test_a_loss_that_is_not_finite(tmp_path: Path) -> None:
    said = r"^the loss of test is (nan|inf) at iteration \d+: lower the learning rate \(1e\+30\)"
    for precision, remedies in (
        ("fp32", r" or set 'clip'\."),
        ("bf16", r", set 'clip' or use precision fp32 \(now bf16\)\."),
    ):
        with pytest.raises(InputError, match=f"{said}{remedies}$"):
            regression(tmp_path, Recipe(lr=1e30, steps=50, warmup=0, precision=precision))


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


def test_signal_handlers_are_put_back(tmp_path: Path) -> None:
    before: Callable | int | None = signal.getsignal(signal.SIGTERM)
    regression(tmp_path, Recipe(lr=1e-2, steps=2, warmup=0))
    assert signal.getsignal(signal.SIGTERM) == before


HOLDS = """
import sys, time
from pathlib import Path
from prt.atomic import alone
with alone(Path(sys.argv[1]), "test"):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_training_that_another_process_is_at_is_refused(tmp_path: Path) -> None:
    """It may be a child that a killed Snakemake left: once it is gone, however it ended, the training goes on."""
    recipe = Recipe(lr=1e-2, steps=3, warmup=0)
    command = [sys.executable, "-c", HOLDS, str(tmp_path / "c.safetensors")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=rf"^test is under way in another process \(number {other.pid} on "):
            regression(tmp_path, recipe)
        other.kill()
    regression(tmp_path, recipe)
    assert [file.name for file in tmp_path.iterdir()] == ["c.safetensors"]
