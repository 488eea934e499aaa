"""What all tests share: small real things to work on, and the command line in this process."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is looked up on the network
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import yaml
from helpers.pipeline import ROOT, snakemake
from hypothesis import settings
from PIL import Image

# The first example pays for imports and kernels that are made on demand; speed is measured in benchmarks. The tests try
# the same examples each time; "long" looks for others.
settings.register_profile("project", deadline=None, max_examples=60, derandomize=True)
settings.register_profile("long", deadline=None, max_examples=6000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "project"))

CLASSES = ["circle", "square", "cross"]


@pytest.fixture
def prt(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the command line; its exit code, what it printed, and its complaints."""

    def run(*arguments: object) -> tuple[int, str, str]:
        from prt.cli import main

        monkeypatch.setattr("sys.argv", ["prt", *map(str, arguments)])
        code: Any = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def draw(kind: str, seed: int) -> Image.Image:
    """A 40 × 30 grey picture of one of the classes, with noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:30, :40]
    y, x = y - 15 + rng.integers(-3, 4), x - 20 + rng.integers(-3, 4)
    shape = {"circle": x**2 + y**2 < 90, "square": (abs(x) < 9) & (abs(y) < 9), "cross": (abs(x) < 3) | (abs(y) < 3)}
    return Image.fromarray((200 * shape[kind] + rng.integers(0, 55, (30, 40))).astype(np.uint8))


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image folder of a user's own: three class folders of twenty pictures."""
    top = tmp_path_factory.mktemp("pictures")
    for label, kind in enumerate(CLASSES):
        (top / kind).mkdir()
        for i in range(20):
            draw(kind, 100 * label + i).save(top / kind / f"{i:02}.png")
    return top


@pytest.fixture(scope="session")
def dataset(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prepared image folder."""
    from prt.vision.prepare import prepare

    out = tmp_path_factory.mktemp("data") / "shapes"
    prepare(f"folder:{pictures}", out, root=out.parent, validation=0.25, test=0.2)
    return out


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hardly trained CLIP of the miniature family."""
    from prt.miniature.pretrain import pretrain
    from prt.training import Recipe

    out = tmp_path_factory.mktemp("backbones") / "tiny"
    recipe = Recipe(optimizer="adamw", lr=1e-3, batch=8, steps=3, warmup=1)
    pretrain("rn12", "poor", recipe, 0, out, out.parent / "checkpoint.safetensors")
    return out


@pytest.fixture(scope="session")
def head(backbone: Path, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The zero-shot head of the backbone for the data set."""
    from prt.vision.backbones import load_backbone
    from prt.vision.head import make_head
    from prt.vision.prepared import read_manifest

    out = tmp_path_factory.mktemp("heads") / "tiny.safetensors"
    manifest = read_manifest(dataset)
    make_head(load_backbone(f"local-dir:{backbone}"), manifest.classes, manifest.templates, out)
    return out


@pytest.fixture(scope="session")
def tuned(backbone: Path, dataset: Path, head: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run of ft and one of prt, as ``METHOD/4/0``; read only."""
    import torch
    from helpers.vision import tuning

    from prt.vision.prepared import read_manifest
    from prt.vision.tune import tune

    top = tmp_path_factory.mktemp("tuned")
    runs = [
        tuning(top / method / "4" / "0", method, every=3, lr=1e-3, batch=6, steps=6, warmup=2)
        for method in ("ft", "prt")
    ]
    manifest = read_manifest(dataset)
    tune(f"local-dir:{backbone}", runs, data=manifest, head=head, device=torch.device("cpu"), workers=0)
    return top


@pytest.fixture
def reward(tuned: Path, tmp_path: Path) -> Path:
    """A copy of a tuned reward, to be damaged."""
    return Path(shutil.copytree(tuned / "prt" / "4" / "0", tmp_path / "reward"))


@pytest.fixture(scope="session")
def small() -> dict[str, Any]:
    """the demo's vision half with fewer backbones, runs and iterations."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "config" / "demo.yaml").read_text())
    del config["language"]
    vision = config["vision"]
    source, target = vision["panels"][0]["source"], "rn12-rich"
    vision["backbones"] = {name: vision["backbones"][name] for name in (source, target)}
    for backbone in vision["backbones"].values():
        backbone["recipe"]["steps"] = 6
    for dataset, shots in (("digits", 16), ("mnist", "full")):
        vision["datasets"][dataset]["shots"] = {shots: {"lr": 3e-4, "batch": 32, "steps": 4, "warmup": 1}}
    vision["seeds"] = [0, 1]
    vision["panels"] = [{"source": source, "targets": [source, target]}]
    vision["strengths"] = [0, 1]
    vision["figure6"] |= {"source": source, "targets": [source, target], "alphas": [0, 0.1], "every": 2, "shots": 16}
    del vision["together"]  # no number of shots in both
    vision["table7"] |= {"source": source, "targets": [source, target], "shots": 16}
    vision["table5"] |= {"source": source, "targets": [source, target], "recipe": {"steps": 2}}
    vision["costs"] |= {"training": [source], "inference": [[source, target]], "batch": 16, "repeats": 2}
    vision["figure12"] = ["mnist"]
    # These backbones are hardly trained, so they are far from the demo's accuracies.
    vision["ledger"]["published"] = str(ROOT / vision["ledger"]["published"])
    return config


@pytest.fixture(scope="session")
def spoken() -> dict[str, Any]:
    """the demo's language half with fewer models, runs, iterations and examples."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "config" / "demo.yaml").read_text())
    del config["vision"]
    language = config["language"]
    source, target = "s-poor", "m-rich"
    language["models"] = {name: language["models"][name] for name in (source, target)}
    for model in language["models"].values():
        model["recipe"] |= {"steps": 6, "warmup": 2}
    language["recipe"]["epochs"] = 1
    language["seeds"] = [0]
    panels = [{"source": source, "targets": [target]}]
    for item in [*language["bars"].values(), *(language[name] for name in ("figure7", "table4", "table6"))]:
        item["panels"] = panels
    language["table6"]["panels"] = [{"source": source, "targets": [source]}]
    language["figure7"]["alphas"] = [0, 0.1]
    language["table3"] |= {"pairs": [[source, target]], "new_tokens": 16, "repeats": 2}
    for benchmark in language["benchmarks"].values():
        benchmark |= {"limit": 6, "generation": {"max_gen_toks": 8}}
    return config


@pytest.fixture(scope="session")
def write(tmp_path_factory: pytest.TempPathFactory) -> Callable[[dict[str, Any]], Path]:
    """Put a configuration into a new folder."""

    def written(config: dict[str, Any]) -> Path:
        folder = tmp_path_factory.mktemp("run")
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        return folder

    return written


def _run(folder: Path) -> Path:
    done = snakemake(folder, "--show-failed-logs")
    assert done.returncode == 0, done.stdout[-5000:]
    return folder


@pytest.fixture(scope="session")
def finished(small: dict[str, Any], write: Callable[[dict[str, Any]], Path]) -> Path:
    """A folder in which the whole DAG has run."""
    return _run(write(small))


@pytest.fixture(scope="session")
def finished_language(spoken: dict[str, Any], write: Callable[[dict[str, Any]], Path]) -> Path:
    """A folder in which the language half has run."""
    return _run(write(spoken))
