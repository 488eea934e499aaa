"""Language models: fetched whole, from a server that answers as the hub does, or refused in one sentence."""

import json
import threading
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from test_language_data import COMMIT, Hub

from prt.errors import InputError
from prt.language.models import fetch, load
from prt.miniature.pretrain_text import pretrain
from prt.training import Recipe

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("models") / "tiny"
    pretrain("s", "poor", Recipe(batch=2, steps=1, warmup=0), 0, out, out.parent / "checkpoint.safetensors")
    return out


def test_fetch(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served, out = tmp_path / "served", tmp_path / "downloads" / "tiny"
    files = {file.name: file.read_bytes() for file in model.iterdir()} | {"pytorch_model.bin": b"a pickle"}
    info = {"_id": "0", "id": "owner/tiny", "sha": COMMIT, "siblings": [{"rfilename": f} for f in files], "tags": []}
    tree = [{"type": "file", "path": name, "size": len(content), "oid": "tag"} for name, content in files.items()]
    answers = {"revision/main": info, f"revision/{COMMIT}": info, f"tree/{COMMIT}": tree}
    for asked, answer in answers.items():
        api = served / "api" / "models" / "owner" / "tiny" / asked
        api.parent.mkdir(parents=True, exist_ok=True)
        api.write_text(json.dumps(answer))
    place = served / "owner" / "tiny" / "resolve" / COMMIT
    place.mkdir(parents=True)
    for name, content in files.items():
        (place / name).write_bytes(content)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, directory=str(served))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
        with pytest.raises(
            InputError, match=r"^gated/llama is gated: accept its licence at .*gated/llama, then log in"
        ):
            fetch("gated/llama", tmp_path / "gated")
        with pytest.raises(InputError, match=r"^the model of owner/none cannot be loaded|has no model owner/none"):
            fetch("owner/none", tmp_path / "none")
        fetch("owner/tiny", out)
        server.shutdown()
    assert not list(tmp_path.glob("[gn]o*/fetched.json"))
    assert json.loads((out / "fetched.json").read_text()) == {"spec": "owner/tiny", "commit": COMMIT}
    assert not (out / "pytorch_model.bin").exists()  # no pickle
    ours, theirs = (load(str(folder), torch.float32, CPU).model.state_dict() for folder in (out, model))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_what_cannot_be_loaded(model: Path, tmp_path: Path) -> None:
    refused = {
        "owner/elsewhere": "is not on this machine and the network is not used here: fetch it first",
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
