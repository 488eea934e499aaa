"""Speed and memory of the vision part, measured: ``python benchmarks/vision.py --out docs/benchmarks.md``.

Everything it needs it makes itself, in a temporary folder. Two things keep the ratios honest on a shared machine:
variants that are compared take turns, one training step each, so that other load hits both alike; and each variant
trains in a fresh process, so that its peak memory is its own. On a CPU the clock is the process's own CPU time.
"""

import argparse
import contextlib
import io
import multiprocessing
import os
import platform
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import product
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from prt import combine
from prt.cell import Cell, Run
from prt.methods import METHODS
from prt.miniature.pretrain import pretrain
from prt.profiling import forget_peak, memory
from prt.recipe import Recipe
from prt.scores import Scores
from prt.tables import tables as tables_of
from prt.vision.backbones import load_backbone
from prt.vision.head import make_head
from prt.vision.prepare import prepare
from prt.vision.prepared import read_manifest
from prt.vision.results import Scored
from prt.vision.score import BATCH
from prt.vision.speed import WARM_UP, inference, training
from prt.vision.tune import Batch, Tuner, Tuning, accuracy

SOURCES = ["vit-s-poor", "rn12-poor"]
TARGETS = [*SOURCES, "rn12-rich", "rn24-rich"]
SMALL = [*SOURCES, "rn24-rich"]
STRENGTHS = [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 2]
GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")
LARGE = {"RN50": "RN50-quickgelu", "ViT-B-16": "ViT-B-16"}
LARGE_BATCH, LARGE_REPEATS = (128, 50) if GPU else (4, 5)
GRID_REPEATS, ROUNDS, REPEATS, TRAINING_BATCH = 3, 20, 3, 128


def cells(pairs: list[tuple[str, str]], strengths: list[float]) -> list[Cell]:
    """What a grid of pairs is compared by: six methods; EFT and PRT at every strength."""
    return [
        Cell(dataset="digits", source=source, target=target, method=method, alpha=0.0, strength=strength, seed=0)
        for source, target in pairs
        for method in METHODS
        if method not in ("adapted", "instruct", "reward")
        for strength in (strengths if method in ("eft", "prt") else [1.0])
    ]


def say(what: str) -> None:
    """Print progress."""
    print(f"{time.strftime('%H:%M:%S')} {what}", flush=True)


def clock() -> np.ndarray:
    """Seconds of the clock that ratios are made of (CPU time; on a GPU wall time), and of the wall's."""
    if GPU:
        torch.cuda.synchronize()
    wall = time.perf_counter()
    return np.array([wall if GPU else time.process_time(), wall])


def load(home: Path, name: str, kind: type[Tuner] = Tuner) -> Tuner:
    """What ``prt run tune`` works with; images are read in this process."""
    head = home / f"{name}.safetensors"
    return kind(f"local-dir:{home / name}", head, read_manifest(home / "digits"), DEVICE, workers=0)


def tuning(folder: Path, name: str, method: Any, recipe: Recipe) -> Tuning:
    """A run on all the digits, with its checkpoint in ``folder``."""
    run = Run(dataset="digits", model=name, method=method, alpha=None if method == "ft" else 0.0)
    return Tuning(run, recipe, folder / f"{name}-{method}", folder / f"{name}-{method}.safetensors")


def add_head(home: Path, name: str) -> None:
    """Make the zero-shot head of the backbone ``home/name``."""
    manifest = read_manifest(home / "digits")
    backbone = load_backbone(f"local-dir:{home / name}")
    make_head(backbone, manifest.classes, manifest.templates, home / f"{name}.safetensors")


def make_small(home: Path) -> None:
    """The miniature family, hardly trained, and the miniature digits."""
    prepare("miniature:digits", home / "digits", root=home)
    for name in TARGETS:
        recipe = Recipe(steps=2, batch=TRAINING_BATCH, warmup=0)
        architecture, corpus = name.rsplit("-", 1)
        pretrain(architecture, corpus, recipe, 0, home / name, home / "checkpoint")
        add_head(home, name)


def grid(home: Path) -> dict[str, Any]:
    """All cells of sources × targets: from scores made once, and by live forward passes for every cell."""
    recipe = Recipe(steps=3, lr=1e-3, warmup=0)
    tuners = {name: load(home, name) for name in TARGETS}
    models = {(name, "pretrained"): tuner.pretrained for name, tuner in tuners.items()}
    for name, method in [*product(TARGETS, ["ft"]), *product(SOURCES, ["prt"])]:
        models[name, method] = tuners[name].run(tuning(home / "tuned", name, method, recipe))[0]
    data, pairs = read_manifest(home / "digits"), list(product(SOURCES, TARGETS))
    labels = tuners[TARGETS[0]].splits["test"].labels
    passes = 0

    def values(name: str, method: str) -> Tensor:
        nonlocal passes
        passes += 1
        logits = tuners[name].splits["test"].logits(models[name, method], recipe.precision)
        return (logits if method == "prt" else combine.log_probs(logits)).double()

    def score(name: str, method: str) -> Path:
        path = home / "scores" / f"{name}-{method}.safetensors"
        known = {"dataset": "digits", "fingerprint": data.fingerprint, "split": "test", "classes": data.classes}
        tuned = {"seed": None if method == "pretrained" else 0, "alpha": 0.0 if method == "prt" else None}
        kind: Any = "reward" if method == "prt" else "log_probs"
        Scores(values(name, method).float(), labels, kind, name, method, **known, **tuned).save(path)  # type: ignore[arg-type]
        return path

    def live(s: str, t: str) -> dict[tuple[str, str, str], float]:
        outputs = {
            "pretrained": values(t, "pretrained"),
            "ft": values(t, "ft"),
            "source_ft": values(s, "ft"),
            "poe": combine.poe(values(t, "pretrained"), values(s, "ft")),
            "eft": combine.eft(values(t, "pretrained"), values(s, "ft"), values(s, "pretrained")),
            "prt": combine.prt(values(t, "pretrained"), values(s, "prt")),
        }
        return {(s, t, method): accuracy(predicted, labels) for method, predicted in outputs.items()}

    times = []
    for repeat in range(GRID_REPEATS):
        say(f"grid {repeat + 1}/{GRID_REPEATS}")
        passes, marks = 0, [clock()]
        files = [score(*model) for model in models]
        marks.append(clock())
        table = tables_of(cells(pairs, [1.0]), Scored(files).result).transfer
        marks.append(clock())
        tables_of(cells(pairs, STRENGTHS), Scored(files).result)
        marks.append(clock())
        by_hand = {key: value for pair in pairs for key, value in live(*pair).items()}
        marks.append(clock())
        rows = table[table.metric == "top1"]
        cached = {(r.source, r.target, r.method): r.value for r in rows.itertuples()}
        if cached.keys() != by_hand.keys() or any(abs(cached[k] - by_hand[k]) > 1e-12 for k in cached):
            raise SystemExit("cached and live accuracies differ")
        scored, one, many, alive = np.diff(marks, axis=0)
        times.append([alive, scored + one, one, many])
    counts = {"images": len(labels), "cells": len(cached), "models": len(models), "passes": passes - len(models)}
    return {"times": np.array(times)} | counts


class Enough(Exception):
    """Ends a training run between two steps."""


def train(turns: Connection, home: Path, name: str, method: str, recipe: Recipe) -> None:
    """A process that trains one step whenever it is told to, and says how long reading and the step took."""

    class InTurns(Tuner):
        """Prt's own, but its batches wait for their turn."""

        def batches(self, *arguments: Any) -> Callable[[int], Iterable[Batch]]:
            plain = super().batches(*arguments)

            def waiting(start: int) -> Iterator[Batch]:
                took, source = None, iter(plain(start))
                while True:
                    turns.send(took)
                    if not turns.recv():
                        raise Enough
                    marks = [clock()]
                    batch = next(source)
                    marks.append(clock())
                    yield batch
                    marks.append(clock())
                    took = np.diff(marks, axis=0)

            return waiting

    torch.set_num_threads(1)
    with contextlib.redirect_stderr(io.StringIO()), tempfile.TemporaryDirectory() as folder:
        tuner, once = load(home, name, InTurns), {}
        images = tuner.splits["train"]
        if not recipe.augment:
            images.pixels()
        before = memory(DEVICE, peak=False)
        forget_peak(DEVICE)
        if method == "prt" and not recipe.augment:
            marks = [clock()]
            for _ in range(REPEATS):
                images.logits(tuner.pretrained, recipe.precision)
                marks.append(clock())
            seconds = np.diff(marks, axis=0)[:, 0]
            once = {
                "images": len(images),
                "seconds": seconds,
                "peak": memory(DEVICE, peak=True) - before,
            }
            tuner.reference("train", recipe.precision)
            forget_peak(DEVICE)
        with contextlib.suppress(Enough):
            tuner.run(tuning(Path(folder), name, method, recipe))
        turns.send((memory(DEVICE, peak=True) - before, once))


def steps(home: Path, name: str, augment: bool) -> dict[str, Any]:
    """FT and PRT in turns: times (round, FT or PRT, reading or step, clock), peak memory, the cost paid once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["prt.vision.tune", "prt.miniature.pretrain", "prt.tables"])
    pipes = []
    for method in ("ft", "prt"):
        here, there = context.Pipe()
        recipe = Recipe(batch=TRAINING_BATCH, augment=augment)
        context.Process(target=train, args=(there, home, name, method, recipe)).start()
        there.close()
        here.recv()  # it is ready: only now start the next
        pipes.append(here)

    def turn(pipe: Connection, go: bool) -> Any:
        pipe.send(go)
        return pipe.recv()

    times = np.array([[turn(pipe, True) for pipe in pipes] for _ in range(ROUNDS + 1)])
    peaks, once = zip(*[turn(pipe, False) for pipe in pipes], strict=True)
    # The first step also makes the optimiser's state.
    return {"times": times[1:], "peaks": peaks, "once": once[1]}


def spread(values: np.ndarray, digits: int) -> str:
    """Median (first–third quartile)."""
    low, middle, high = (f"{v:.{digits}f}" for v in np.percentile(values, [25, 50, 75]))
    return middle if len(values) == 1 else f"{middle} ({low}–{high})"


def markdown(header: str, rows: list[list[Any]]) -> str:
    """A table; ``header`` has | between its columns."""
    columns = header.split("|")
    lines = [columns, ["---"] + ["---:"] * (len(columns) - 1), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def tables(cells: dict[str, Any], trained: dict[tuple[str, bool], dict[str, Any]]) -> dict[str, Any]:
    """The four tables of the page and the numbers of its summary."""
    names = ["each cell live", "each model scored once, then the tables"]
    names += ["the tables alone, scores on disk", f"the same for {len(STRENGTHS)} strengths"]
    passes = [cells["passes"], cells["models"], 0, 0]
    shares = (cells["times"] / cells["times"][:, :1])[:, :, 0]  # repeat, way
    made = [
        [name, passes[i], *(spread(cells["times"][:, i, c], 2) for c in (0, 1)), spread(shares[:, i], 3)]
        for i, name in enumerate(names)
    ]
    speed, peaks, once = [], [], []
    ratios: dict[bool, list[str]] = {False: [], True: []}
    for (network, augment), result in trained.items():
        t = result["times"]
        step, whole = t[:, :, 1], t.sum(2)  # round, FT or PRT, clock
        ratio = (step[:, 1] / step[:, 0]).T  # clock, round
        ratios[augment].append(f"{np.median(ratio[0]):.2f}")
        row = [network, TRAINING_BATCH, "augmented" if augment else "fixed"]
        both = [spread(step[:, i, 0] * 1000, 0) for i in (0, 1)]
        with_reading = whole[:, 1, 0] / whole[:, 0, 0]
        speed.append([*row, *both, *(spread(x, 2) for x in (*ratio, with_reading))])
        ft, prt = (1000 * gigabytes for gigabytes in result["peaks"])
        peaks.append([*row, f"{ft:.0f}", f"{prt:.0f}", f"{prt - ft:+.0f}", f"{prt / ft:.2f}"])
        if result["once"]:
            n, seconds = result["once"]["images"], result["once"]["seconds"]
            worth = seconds / np.median(step[:, 1, 0])
            epochs = f"{np.median(worth) * TRAINING_BATCH / n:.2f}"
            costs = [spread(seconds, 2), spread(worth, 1), epochs, f"{1000 * result['once']['peak']:.0f}"]
            once.append([network, n, min(n, BATCH), *costs])
    return {
        "grid_table": markdown("way|passes|seconds|seconds, wall|share of live", made),
        "speed_table": markdown("network|batch|input|FT, ms|PRT, ms|ratio|ratio, wall|ratio with reading", speed),
        "memory_table": markdown("network|batch|input|FT|PRT|difference|ratio", peaks),
        "once_table": markdown("network|images|at a time|seconds|steps|epochs|peak", once),
        "cached_share": f"{np.median(shares[:, 1]):.2f}",
        "disk_share": f"{np.median(shares[:, 2]):.3f}",
        "fixed": f"{min(ratios[False])}–{max(ratios[False])}",
        "live": f"{min(ratios[True])}–{max(ratios[True])}",
    }


def of_the_paper() -> dict[str, Any]:
    """Tables 1 and 2 for one pair of the paper's networks, and what each measure brought."""
    iterations = training(LARGE, LARGE_BATCH, DEVICE, "bf16" if GPU else "fp32", LARGE_REPEATS)
    batches = inference(LARGE, [("RN50", "ViT-B-16")], LARGE_BATCH, DEVICE, LARGE_REPEATS, compiled=True)

    def cell(rows: pd.DataFrame, method: str, quantity: str) -> str:
        here = rows[(rows["method"] == method) & (rows["quantity"] == quantity)]
        if here.empty:
            return "–"
        row = here.iloc[0]
        times = not quantity.endswith("memory") and row["repeats"] > 1
        if times:
            return f"{row['median']:.0f} ({row['low']:.0f}–{row['high']:.0f})"
        return format(float(format(row["value"], ".3g")), "g")  # three digits, no exponent

    steps, brought = [], []
    for network, rows in iterations.groupby("source", sort=False):
        numbers = [cell(rows, m, q) for q in ("time_per_batch", "peak_memory") for m in ("ft", "prt", "prt_cached")]
        steps.append([network, *numbers, cell(rows, "prt", "flop_bound")])
    above = None
    for variant in batches.loc[batches["method"] == "prt", "variant"].unique():
        rows = batches[batches["variant"] == variant]
        numbers = [cell(rows, m, q) for q in ("time_per_batch", "peak_memory") for m in ("ft", "eft", "prt")]
        numbers += [cell(rows, "prt", q) for q in ("launch_time_per_batch", "flop_bound")]
        here = rows[(rows["method"] == "prt") & (rows["quantity"] == "time_per_batch")].iloc[0]["median"]
        brought.append([variant, *numbers, f"{here / above:.2f}" if above else "–"])
        above = here
    ends = "|PRT's bound, ms"
    return {
        "step_table": markdown("network|FT, ms|PRT, ms|PRT cached, ms|FT, GB|PRT, GB|PRT cached, GB" + ends, steps),
        "measure_table": markdown(
            f"|FT, ms|EFT, ms|PRT, ms|FT, GB|EFT, GB|PRT, GB|PRT, ms to launch{ends}|PRT, of the line above", brought
        ),
        "large_batch": LARGE_BATCH,
        "large_repeats": LARGE_REPEATS,
        "warm_up": WARM_UP[DEVICE.type],
    }


def conditions(before: float, began: float) -> dict[str, Any]:
    """On what, and with what, it was measured."""
    here, info = Path(__file__).parent, Path("/proc/cpuinfo")
    cpu = re.findall(r"model name\s*: (.+)", info.read_text()) if info.exists() else []
    git = [["git", "rev-parse", "--short", "HEAD"], ["git", "status", "--porcelain", "../src"]]
    commit, changed = (subprocess.run(c, cwd=here, capture_output=True, text=True).stdout.strip() for c in git)
    return {
        "date": time.strftime("%Y-%m-%d"),
        "minutes": f"{(time.monotonic() - began) / 60:.0f}",
        "cpu": cpu[0] if cpu else platform.processor(),
        "cores": os.cpu_count(),
        "device": torch.cuda.get_device_name() if GPU else "the CPU",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "load_before": f"{before:.1f}",
        "load_after": f"{os.getloadavg()[1]:.1f}",
        "clock": "wall time, the GPU synchronised" if GPU else "CPU time of the process, unless a column says wall",
        "commit": (commit or "unknown") + (" with changes to src that were not committed" if changed else ""),
        "memory": "tensors on the GPU"
        if GPU
        else "its resident set, which\nvaried by up to 15 % between runs of one "
        "variant, so that smaller differences mean little",
    }


def main() -> None:
    """Measure everything and write the page."""
    parser = argparse.ArgumentParser(description="Measure speed and memory of the vision part.")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks.md"), help="the page to write")
    out: Path = parser.parse_args().out
    torch.set_num_threads(1)
    before, began, trained = os.getloadavg()[0], time.monotonic(), {}
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        say("make backbones and data")
        make_small(Path(folder))
        cells = grid(Path(folder))
        for network, augment in product(SMALL, [False, True]):
            say(f"steps of {network}, {'augmented' if augment else 'fixed'} input")
            trained[network, augment] = steps(Path(folder), network, augment)
        say("the paper's networks")
        costs = of_the_paper()
    facts = tables(cells, trained) | costs | conditions(before, began)
    facts |= {"sources": len(SOURCES), "targets": len(TARGETS), "images": cells["images"], "cells": cells["cells"]}
    facts |= {"grid_repeats": GRID_REPEATS, "rounds": ROUNDS, "repeats": REPEATS, "at_a_time": BATCH}
    page = (Path(__file__).parent / "page.md").read_text(encoding="utf-8")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page.format(**facts), encoding="utf-8")
    say(f"wrote {out}")


if __name__ == "__main__":
    main()
