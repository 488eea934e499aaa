"""Commands that are killed while they write, and given again: then all is as if they had never been."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from helpers.hub import Server, hub, server
from helpers.killed import killed, tree
from helpers.pipeline import ROOT
from helpers.small import small

from prt.atomic import scratch
from prt.language import harness
from prt.sharing import push

__all__ = ["hub", "server"]  # fixtures
Prt = Callable[..., tuple[int, str, str]]
LANGUAGE = ("--reward", "llama-reward", "--target", "llama", "--device", "cpu", "--out", "made")
LINES = {
    "compose": ("compose", *LANGUAGE),
    "evaluate": ("evaluate", "gsm8k", *LANGUAGE, "--set", "limit=1", "--set", "data=problems",
                 "--set", "generation={max_gen_toks: 2}"),
    "import language": ("import", "language", "llama", "--base", "other-llama", "--out", "made"),
    "import vision": ("import", "vision", "local-dir:clip", "--base", "local-dir:other-clip",
                      "--classes", "classes.txt", "--out", "made"),
    "pull": ("pull", "me/reward", "made"),
    "pretrain": ("run", "pretrain", "vit-s-poor", "--config", "config.yaml"),
    "pretrain_language": ("run", "pretrain_language", "s-poor", "--config", "config.yaml"),
}  # fmt: skip
PLACES = (1, 5, 15, 40)  # changes to files after which a command is killed, where it makes so many


@pytest.fixture(scope="module")
def top(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = small(tmp_path_factory.mktemp("killed"))
    config = yaml.safe_load((ROOT / "config" / "demo.yaml").read_text())
    config["vision"]["backbones"]["vit-s-poor"]["recipe"] |= {"steps": 2, "warmup": 1, "batch": 4}
    config["language"]["models"]["s-poor"]["recipe"] |= {"steps": 2, "warmup": 1, "batch": 2}
    config["vision"]["ledger"]["published"] = str(ROOT / config["vision"]["ledger"]["published"])
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


@pytest.mark.parametrize("name", LINES)
def test_a_killed_command_leaves_nothing_once_it_is_given_again(
    name: str, top: Path, prt: Prt, hub: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(top)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("HF_TOKEN", "hf_" + "aB3" * 12)
    for variable in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.setenv(variable, os.environ.get(variable, "1"))  # it is set back afterwards
    if name == "pull":
        push(Path("clip-reward"), "me/reward")

    def given() -> None:
        harness._scratch.cache_clear()  # of a process of its own
        code, _, complaint = prt(*LINES[name])
        assert code == 0, complaint

    def cleared() -> None:
        for made in ("made", "results"):
            shutil.rmtree(top / made, ignore_errors=True)

    cleared()
    given()
    whole, done, count = tree(top), 1, 0
    for place in PLACES:
        cleared()
        if not killed(given, place):
            break
        count += 1
        if "run" in LINES[name] or name == "evaluate" or not Path("made").exists():  # a folder that is there is whole
            given()
            done += 1
        assert tree(top) == whole
    assert count > 1
    assert {path.name for path in top.rglob("*") if path.is_dir() and not any(path.iterdir())} <= {"checkpoints"}
    harness._scratch.cache_clear()
    with scratch("evaluate"):  # as the next one begins; each of this process has one until its end
        assert len(list(tmp_path.iterdir())) == 1 + (done if name == "evaluate" else 0)
