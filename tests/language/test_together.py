"""Two rewards on a target at once: each tuned on chats of its own, measured over the strengths of both, and drawn."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from helpers.sums import network

from prt.errors import InputError
from prt.figures import together as picture
from prt.language.together import HELD_OUT, measured, read_losses, write_losses
from prt.miniature import tasks
from prt.miniature.text import tokenizer
from prt.results import Measure, Result

Prt = Callable[..., tuple[int, str, str]]
TOP = Path("results", "two", "language")
CONFIG: dict[str, Any] = {
    "experiment": "two",
    "jobs": "few",
    "device": "cpu",
    "language": {
        "models": {name: {"spec": f"./{name}", "parameters": 0.001} for name in "st"},
        "data": {"source": "jsonl:problems.jsonl", "validation": 0.2},
        "recipe": {
            "lr": 1e-2, "batch": 8, "epochs": 1, "max_length": 96, "precision": "fp32", "per_device_batch": 8,
            "gradient_checkpointing": False, "packing": False,
        },
        "seeds": [0],
        "methods": [],
        "benchmarks": {
            name: {"task": task, "data": name, "chat_template": True, "limit": 3, "generation": {"max_gen_toks": 4}}
            for name, task in (("problems", "gsm8k"), ("instructions", "ifeval"))
        },
        "together": {
            "chats": {"first": "jsonl:problems.jsonl", "second": "jsonl:instructions.jsonl"},
            "source": "s", "targets": ["t"], "benchmarks": ["problems", "instructions"], "strengths": [0, 1],
        },
    },
}  # fmt: skip


def made(folder: Path) -> None:
    """The models, the chats, the benchmarks and the configuration."""
    words = tokenizer()
    for seed, name in enumerate("st"):
        network(seed, 32, 32, 1, len(words)).save_pretrained(folder / name)
        if name == "t":  # a template that the target came with, and that says nothing of whose the tokens are
            words.chat_template = "{% for m in messages %}{{ m.content }}\n{% endfor %}"
        words.save_pretrained(folder / name)
    for kind in ("problems", "instructions"):
        lines = map(json.dumps, tasks.chats(kind)[:20])
        (folder / f"{kind}.jsonl").write_text("\n".join(lines))
    tasks.write_problems(folder / "problems")
    tasks.write_instructions(folder / "instructions")
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))


def found(place: str) -> dict[str, Any]:
    """A result, without what says which it is."""
    result: dict[str, Any] = json.loads(Path(place, "result.json").read_text())
    return {key: result[key] for key in ("examples", "metrics", "documents", "protocol")}


def test_from_chats_to_the_picture(prt: Prt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At (1, 0) it is the one reward, by the command that puts any rewards on any target; at (1, 1) it is both."""
    made(tmp_path)
    monkeypatch.chdir(tmp_path)
    jobs = [("prepare_chats", "data-first"), ("prepare_chats", "data-second")]
    jobs += [("tune_language", "s@first"), ("tune_language", "s@second"), ("evaluate", "t@both")]
    for rule, job in (*jobs, ("draw", "together_language")):
        device = ["--device", "cpu"] if rule in ("tune_language", "evaluate") else []
        code, _, said = prt("run", rule, job, "--config", "config.yaml", *device)
        assert code == 0, said
    folders = {name: TOP / "tuned" / f"s@{name}" / f"prt_0-{name}" / "0" for name in ("first", "second")}
    for name, folder in folders.items():
        manifest = json.loads((folder / "manifest.json").read_text())
        prepared = json.loads((TOP / f"data-{name}" / "manifest.json").read_text())
        assert manifest["variant"] == name
        assert manifest["dataset"]["fingerprint"] == prepared["fingerprint"]
    rewards = [word for folder in folders.values() for word in ("--reward", str(folder))]
    samples, losses = set(), set()
    for benchmark, strengths, name in (
        ("problems", "10", "first-1"),
        ("problems", "11", "first-1-second-1"),
        ("instructions", "01", "second-1"),
    ):
        own = CONFIG["language"]["benchmarks"][benchmark]
        options = [word for key, value in own.items() for word in ("--set", f"{key}={json.dumps(value)}")]
        options += [word for strength in strengths for word in ("--strength", strength)]
        code, _, said = prt(
            "evaluate", benchmark, *rewards, "--target", "t", *options, "--out", name, "--device", "cpu"
        )
        assert code == 0, said
        place = f"{TOP}/evaluated/t@both/{benchmark}/prt-of-s-{name}-seed0"
        assert found(place) == found(name)
        assert Path(place, "samples.jsonl").read_text() == Path(name, "samples.jsonl").read_text()
        samples.add(Path(name, "samples.jsonl").read_text())
        losses.add(read_losses(Path(place, HELD_OUT)))
    assert len(samples) == len(losses) == 3
    cells = json.loads(Path(f"{TOP}/evaluated/t@both/problems/prt-of-s-first-1-second-1-seed0/result.json").read_text())
    assert [(cell["variant"], cell["strength"]) for cell in cells["cell"]] == [("first", 1.0), ("second", 1.0)]
    # The target alone is asked in the template of the rewards, too, which alone says where an answer begins.
    alone = Path(f"{TOP}/evaluated/t@both/problems/pretrained")
    assert np.isfinite(read_losses(alone / HELD_OUT))
    rows = pd.read_csv("results/two/figures/together_language.csv")
    assert len(rows) == 3 * 4 and set(rows["dataset"]) == {"problems", "instructions", "both"}
    assert rows.groupby("dataset")["chosen"].sum().eq(1).all()


def results(benchmark: str, pair: tuple[float, float], seed: int) -> Result:
    values = np.random.default_rng([len(benchmark), int(2 * pair[0]), int(2 * pair[1]), seed]).integers(0, 2, 20)
    return Result("right", {"right": Measure.plain(values.astype(float)), "other": Measure.plain(np.zeros(20))})


def test_headlines_over_the_strengths() -> None:
    """Means over seeds and questions; one pair is chosen for all, the one of the least loss over the seeds."""

    def loss(pair: tuple[float, float], seed: int) -> float:
        return {(0.5, 1.0): 1.0 + seed, (1.0, 0.0): 0.5 + 3 * seed}.get(pair, np.inf)

    rows = measured(results, loss, ["sums", "words"], [0, 1], [0.0, 0.5, 1.0])
    assert len(rows) == 3 * 9
    for row in rows.itertuples():
        shown = ["sums", "words"] if row.dataset == "both" else [row.dataset]
        pair = (row.first, row.second)
        means = [results(b, pair, s).measures["right"].values.mean() for b in shown for s in (0, 1)]
        assert row.value == pytest.approx(np.mean(means))
        assert row.chosen == (pair == (0.5, 1.0))
        assert (row.seeds, row.n) == (2, 20 * len(shown))
    drawn = picture.figure(rows.assign(source="s", target="t"), ["one", "other"], "{}", "held-out chats")
    said = [axis.get_ylabel() for axis in drawn.axes]
    assert said == ["sums (%)", "words (%)", "mean of both (%)"]
    assert drawn.get_supxlabel() == "strength of the reward tuned on one"


def test_losses_are_kept(tmp_path: Path) -> None:
    file = tmp_path / "x" / HELD_OUT
    write_losses(file, {"a": 1.0, "b": 2.0})
    assert read_losses(file) == 1.5
    write_losses(file, {"a": 1.0, "b": float("nan")})
    assert read_losses(file) == np.inf
    file.write_text('{"a": -1}')
    with pytest.raises(InputError, match=r"losses on held-out chats in .* are damaged; delete it and make it again"):
        read_losses(file)
