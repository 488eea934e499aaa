"""Language models: fetched whole, from a server that answers as the hub does, or refused in one sentence."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from helpers.hub import COMMIT, Server, hub, server
from huggingface_hub import constants, hf_hub_download, snapshot_download
from safetensors.torch import load_file, save_file
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME

from prt.errors import InputError
from prt.language.models import fetch, folder_of, load
from prt.miniature.pretrain_text import pretrain
from prt.training import Recipe

__all__ = ["hub", "server"]  # fixtures
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("models") / "tiny"
    pretrain("s", "poor", Recipe(batch=2, steps=1, warmup=0), 0, out, out.parent / "checkpoint.safetensors")
    return out


def test_fetch(model: Path, hub: Server, tmp_path: Path) -> None:
    out = tmp_path / "downloads" / "tiny"
    files = {file.name: file.read_bytes() for file in model.iterdir()} | {"pytorch_model.bin": b"a pickle"}
    for name in ("owner/tiny", "gated/llama"):
        hub.repository(name, files, "models")
    hub.repository("owner/pickled", {"config.json": b"{}", "pytorch_model.bin": b"a pickle"}, "models")
    refused = {
        "gated/llama": "^the model gated/llama is gated: accept its licence at .*gated/llama, then log in",
        "owner/none": "^the Hugging Face hub has no model owner/none, or you may not see it; correct the name",
        "owner/pickled": r"^owner/pickled of the hub has no file \*.safetensors at main; take another",
    }
    for spec, sentence in refused.items():
        with pytest.raises(InputError, match=sentence):
            fetch(spec, tmp_path / spec)
        assert not (tmp_path / spec).exists()
    out.mkdir(parents=True)  # as Snakemake does
    fetch("owner/tiny", out)
    receipt = {"spec": "owner/tiny", "commit": COMMIT}
    assert json.loads((out / "fetched.json").read_text()) == receipt
    assert not (out / "pytorch_model.bin").exists()  # no pickle
    ours, theirs = (load(str(folder), torch.float32, CPU).model.state_dict() for folder in (out, model))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    hub.asked.clear()
    (out / "fetched.json").unlink()
    fetch("owner/tiny", out)
    assert json.loads((out / "fetched.json").read_text()) == receipt
    assert not hub.asked


def test_what_cannot_be_loaded(model: Path, tmp_path: Path) -> None:
    refused = {
        "owner/elsewhere": "owner/elsewhere is not on this machine, and the hub is out of reach .*`snakemake fetch`",
        "/nowhere/model": "there is no model in /nowhere/model",
        str(tmp_path): "there is no model in",
    }
    for spec, sentence in refused.items():
        with pytest.raises(InputError, match=sentence):
            load(spec, torch.float32, CPU)
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in model.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    (broken / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(InputError, match=r"the model of .*broken cannot be loaded"):
        load(str(broken), torch.float32, CPU)
    (broken / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match=r"the tokenizer of .*broken cannot be loaded"):
        load(str(broken), torch.float32, CPU)


def test_weights_that_are_no_numbers(model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "broken"))
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"][3] = float("nan")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"the weights of .*broken hold NaN or infinity \('model.norm.weight'\)"):
        load(str(folder), torch.float32, CPU)


def test_folders_of_another_kind(model: Path, tmp_path: Path) -> None:
    """What is there is said, and how it becomes a model."""
    folder = Path(shutil.copytree(model, tmp_path / "other"))
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"no weights in the format of safetensors: they are pickled .*save_p"):
        load(str(folder), torch.float32, CPU)
    (folder / "config.json").rename(folder / "adapter_config.json")
    with pytest.raises(InputError, match=r"other is an adapter .* no whole model, .*: name that, or merge"):
        load(str(folder), torch.float32, CPU)


def test_a_folder_of_the_hub_has_all_that_is_read_of_it(
    model: Path, hub: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not what a download that was cut short left, which huggingface_hub gives for all where there is no network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    load(str(model), torch.float32, CPU).model.save_pretrained(tmp_path / "sharded", max_shard_size="100KB")
    files = {file.name: file.read_bytes() for file in (tmp_path / "sharded").iterdir()}
    shards = sorted(name for name in files if name.endswith(".safetensors"))
    hub.repository("owner/sharded", files | {"consolidated.safetensors": b"again", "notes.bin": b"0"}, "models")
    assert len(shards) > 2
    hf_hub_download("owner/sharded", "config.json")
    for name in (SAFE_WEIGHTS_INDEX_NAME, *shards[:-1]):
        folder = Path(hf_hub_download("owner/sharded", name)).parent
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert snapshot_download("owner/sharded") == str(folder)
    with pytest.raises(
        InputError, match=r"^the model owner/sharded is not on this machine, and the hub is out of reac"
    ):
        folder_of("owner/sharded")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert folder_of("owner/sharded") == folder
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == files
    assert folder_of(str(model)) == model
    (tmp_path / "sharded" / shards[0]).unlink()
    with pytest.raises(InputError, match=f"the model of .*sharded cannot be loaded .*{shards[0]}"):
        folder_of(str(tmp_path / "sharded"))
