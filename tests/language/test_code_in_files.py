"""A folder with a model or a reward is data: no code in it runs, and nothing is read that was not named."""

import io
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from helpers.marks import edit, leave
from helpers.tuning import CPU, Run, bases, data, imported, run

from prt.atomic import file_hash
from prt.errors import InputError
from prt.language.models import load, load_config
from prt.language.recipe import Lora
from prt.language.reward import load_tuned

__all__ = ["bases", "data", "imported", "run"]  # fixtures


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What must not appear, though someone answers yes to every question."""
    monkeypatch.setattr("sys.stdin", io.StringIO("yes\n" * 99))
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    return tmp_path / "mark"


def signed(folder: Path, *files: str) -> None:
    """Put files as they are now into a reward's manifest."""
    names = json.loads((folder / "manifest.json").read_text())["files"]
    edit(folder / "manifest.json", files=names | {name: file_hash(folder / name) for name in files})


TOKENIZER = {"auto_map": {"AutoTokenizer": ["marking.Marking", "marking.Marking"]}}
MODEL = {"auto_map": {"AutoConfig": "marking.Marking", "AutoModelForCausalLM": "marking.Marking"}}


def test_a_target_s_own_code(bases: dict[str, Path], tmp_path: Path, mark: Path) -> None:
    wanted = {
        "tokenizer_config.json": [TOKENIZER],
        "config.json": [
            MODEL,
            MODEL | {"model_type": "x"},
            {"attn_implementation": "owner/kernels"},
            {"text_config": {"_attn_implementation": "owner/kernels"}},
        ],
    }
    for file, all_changes in wanted.items():
        for number, changes in enumerate(all_changes):
            folder = shutil.copytree(bases["qwen"], tmp_path / f"{file}-{number}")
            leave(folder, mark)
            edit(folder / file, **changes)
            for loader in (lambda f: load(f, torch.float32, CPU), load_config):
                with pytest.raises(InputError, match=rf"/{file} asks for code of its own by '(auto_map|.*attn_.*)'"):
                    loader(str(folder))
    assert not mark.exists()


def test_a_target_that_names_another(bases: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(bases["qwen"], tmp_path / "adapter")
    described = {"peft_type": "LORA", "base_model_name_or_path": str(bases["llama"])}
    (folder / "adapter_config.json").write_text(json.dumps(described))
    with pytest.raises(InputError, match=r"is an adapter .*and would load another model unasked"):
        load(str(folder), torch.float32, CPU)


def test_a_reward_s_own_code(run: Run, mark: Path) -> None:
    folder = run("coded", "prt") / "0"
    leave(folder, mark)
    edit(folder / "tokenizer_config.json", **TOKENIZER)
    signed(folder, "tokenizer_config.json", "marking.py")
    with pytest.raises(InputError, match=rf"{folder}/tokenizer_config.json asks for code of its own by 'auto_map'"):
        load_tuned(folder, torch.float32, CPU)
    assert not mark.exists()


def test_an_adapter_s_options(run: Run, mark: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PEFT's own description of an adapter may name a module to import; the manifest's is taken."""
    folder = run("optional", "prt", "qwen", lora=Lora(rank=2, alpha=4)) / "0"
    before = load_tuned(folder, torch.float32, CPU).model.state_dict()
    leave(folder, mark)
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    edit(folder / "adapter_config.json", megatron_config={}, megatron_core="marking", r=1, lora_alpha=9)
    signed(folder, "adapter_config.json")
    after = load_tuned(folder, torch.float32, CPU).model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not mark.exists()


def test_only_files_of_the_manifest_are_read(run: Run, tmp_path: Path) -> None:
    folder = run("listed", "ft") / "0"

    def refused(complaint: str, **files: str) -> None:
        edit(folder / "manifest.json", files=files)
        with pytest.raises(InputError, match=complaint):
            load_tuned(folder, torch.float32, CPU)

    whole = json.loads((folder / "manifest.json").read_text())["files"]
    for left_out, complaint in {
        "model.safetensors": r"names no file model\*.safetensors, without which",
        "config.json": "names no file config.json, without which",
        "tokenizer.json": rf"the tokenizer (of|in) {folder} ",
    }.items():
        refused(complaint, **{name: sha256 for name, sha256 in whole.items() if name != left_out})
    (tmp_path / "elsewhere").write_text("x")
    for name in ("../elsewhere", str(tmp_path / "elsewhere"), "..", ".", "", "sub/file", "a\\b", "a\n"):
        refused("has a damaged 'files", **whole, **{name: file_hash(tmp_path / "elsewhere")})
    (folder / "sub").mkdir()
    refused("lacks its file sub", **whole, sub="0")

    edit(folder / "manifest.json", files={k: v for k, v in whole.items() if k != "chat_template.jinja"})
    (folder / "chat_template.jinja").write_text("another")
    (folder / "generation_config.json.bak").write_text("not read")
    assert load_tuned(folder, torch.float32, CPU).tokenizer.chat_template != "another"
