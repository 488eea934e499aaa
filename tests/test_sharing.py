"""Rewards pushed to a server that answers as the Hugging Face hub does, and pulled back: whole, and nothing private."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from helpers.damage import redone
from helpers.hub import Server, hub, server
from helpers.letters import letters
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig

from prt.atomic import file_hash
from prt.errors import InputError
from prt.language.composed import compose
from prt.language.decode import load_reward
from prt.language.models import Causal
from prt.language.reward import read_manifest, save_tuned, weights_hash
from prt.sharing import _name_of, pull, push
from prt.vision.predict import load_reward as load_vision

__all__ = ["hub", "server"]  # fixtures
Prt = Callable[..., tuple[int, str, str]]
TOKEN = "hf_" + "aB3" * 12
SIZE = dict(
    hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=64
)


@pytest.fixture(autouse=True)
def logged_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)


def causal(seed: int) -> Causal:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=32, initializer_range=0.4, eos_token_id=0, pad_token_id=1, bos_token_id=None, **SIZE
    )
    return Causal(f"model{seed}", AutoModelForCausalLM.from_config(config).eval(), letters())


@pytest.fixture
def spoken(tmp_path: Path) -> Path:
    """A language reward as tuning leaves it, with paths of this machine in it and more in its folder."""
    base, folder = tmp_path / "private" / "base", tmp_path / "private" / "reward"
    source, tuned = causal(0), causal(1)
    source.model.save_pretrained(base)
    source.tokenizer.save_pretrained(base)
    known = {"name": "small", "spec": str(base), "weights_sha256": weights_hash(str(base))}
    data = {"name": "jsonl--private--chats.jsonl", "fingerprint": "0", "tokens": {"train": {"conversations": 12}}}
    facts = {"method": "prt", "alpha": 0.0, "lora": None, "base": known, "dataset": data, "template": "tulu"}
    save_tuned(folder, tuned.model, tuned.tokenizer, facts | {"recipe": {"lr": 0.5}, "seed": 3})
    (folder / "curve.csv").touch()
    (folder / ".env").write_text(TOKEN)
    return folder


def pushed(hub: Server) -> dict[str, bytes]:
    """The files of the last commit."""
    return hub.commits[list(hub.commits)[-1]]


def test_a_language_reward_goes_there_and_comes_back(hub: Server, spoken: Path, tmp_path: Path) -> None:
    redone(spoken, "config.json", lambda c: c.update(_name_or_path=str(spoken)))
    assert push(spoken, "me/reward").startswith(f"{hub.url}/me/reward/commit/")
    files = pushed(hub)
    assert len(hub.commits) == 1
    assert set(files) == {*read_manifest(spoken)["files"], "manifest.json", "README.md"}
    everything = b"".join(files.values())
    assert (
        TOKEN.encode() not in everything and str(tmp_path).encode() not in everything and b"private" not in everything
    )
    manifest = pull("me/reward", tmp_path / "pulled")
    assert manifest == read_manifest(tmp_path / "pulled")
    assert manifest["base"] == read_manifest(spoken)["base"] | {"spec": "base"}
    base = str(tmp_path / "private" / "base")
    texts = [load_reward(f, base=base).on(base).generate("so", max_new_tokens=9) for f in (spoken, tmp_path / "pulled")]
    assert texts[0] == texts[1] != ""
    (tmp_path / "link").symlink_to("none")
    for there in ("pulled", "link"):
        with pytest.raises(InputError, match=f"{there} is there already"):
            pull("me/reward", tmp_path / there)


def test_a_vision_reward_goes_there_and_comes_back(hub: Server, reward: Path, backbone: Path, tmp_path: Path) -> None:
    table = {"dataset": "shapes", "shots": "4", "source": "tiny", "target": "large", "method": "prt", "alpha": 0.0}
    table |= {"strength": 1.0, "seed": 0, "metric": "top1", "value": 0.8125, "low": 0.75, "high": 0.875, "n": 60}
    own = json.loads((reward / "manifest.json").read_text())
    name, table["dataset"] = own["backbone"]["name"], own["dataset"]["name"]
    others = [table | {"source": name, "seed": 1, "value": 0.1}, table | {"source": "other", "value": 0.2}]
    others.append(table | {"source": name, "variant": "beside", "value": 0.3})
    others.append(table | {"source": name, "dataset": "mnist", "value": 0.4})
    pd.DataFrame([table | {"source": name}, *others]).to_csv(tmp_path / "transfer.csv", index=False)
    push(reward, "me/shapes", private=True, measured=[tmp_path / "transfer.csv"])
    assert set(pushed(hub)) == {"weights.safetensors", "manifest.json", "README.md"} and hub.private == {"me/shapes"}
    page = pushed(hub)["README.md"].decode()
    assert f"| {table['dataset']} | large | prt | 1 | top1 | 0.812 (0.750–0.875) | 60 |" in page and not any(
        value in page for value in ("0.100", "0.200", "0.300", "0.400")
    )
    assert "| 3 labels | circle, cross, square |" in page and "prt predict" in page
    assert str(backbone.parent) not in page + pushed(hub)["manifest.json"].decode()
    pull("me/shapes", tmp_path / "pulled")
    mine, theirs = (load_vision(f).classifier.state_dict() for f in (reward, tmp_path / "pulled"))
    assert all(torch.equal(mine[key], theirs[key]) for key in mine)
    with pytest.raises(InputError, match=r"transfer.csv has no measurement of what is pushed"):
        redone(reward, "manifest.json", lambda m: m.update(seed=7))
        push(reward, "me/shapes", measured=[tmp_path / "transfer.csv"])


def test_a_composed_model_is_loaded_from_there(hub: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    composed = compose(causal(0), [(causal(1), 0.5), (causal(2), -0.5)], "eft").model
    composed.save_pretrained(tmp_path / "composed")
    push(tmp_path / "composed", "me/composed")
    page = pushed(hub)["README.md"].decode()
    assert "log π = (log π of model0) +0.5 · (log π of tuned model1) -0.5 · (log π of model2)" in page
    ids = torch.tensor([[5, 6, 7]])
    # Where nothing else was loaded before, as whoever loads it would.
    code = "import sys; from transformers import AutoModelForCausalLM as A; import prt.language.composed, torch; "
    code += "m = A.from_pretrained('me/composed', cache_dir=sys.argv[1]); "
    code += "print(m(torch.tensor([[5, 6, 7]])).logits.tolist())"
    network = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-c", code, str(tmp_path / "cache")]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | network, timeout=300)
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        assert torch.tensor(json.loads(done.stdout)).equal(composed(ids).logits)
        pull("me/composed", tmp_path / "pulled")
        assert AutoModelForCausalLM.from_pretrained(tmp_path / "pulled")(ids).logits.equal(composed(ids).logits)


def test_the_page(hub: Server, spoken: Path) -> None:
    push(spoken, "me/reward")
    page = ModelCard(pushed(hub)["README.md"].decode())
    assert (page.data.pipeline_tag, page.data.base_model) == ("text-generation", None)
    manifest = read_manifest(spoken)
    for said in (
        "log π = log π_pretrained + s · r",
        f"| tuned from | small (SHA-256 of the weights {manifest['base']['weights_sha256']}) |",
        "| trained on | jsonl--chats.jsonl, 12 conversations |",
        f"| vocabulary | 32 tokens, SHA-256 {manifest['vocabulary']['sha256']} |",
        "| recipe | lr 0.5 |",
        "| seed | 3 |",
        "No measurements came with it.",
        "prt pull me/reward reward",
    ):
        assert said in page.text


def test_what_stands_for_a_place() -> None:
    said = {
        "huggingface--home--me--chats": "huggingface--chats",
        "huggingface--allenai--tulu": "huggingface--allenai--tulu",
        "jsonl--home--me--chats.jsonl": "jsonl--chats.jsonl",
        "/home/me/model": "model",
        "OWNER/NAME": "OWNER/NAME",
    }
    assert {text: _name_of(text) for text in said} == said


def test_a_base_of_the_hub_is_named_so(hub: Server, spoken: Path) -> None:
    (spoken.with_name("base") / ".fetched.json").write_text(json.dumps({"repository": "owner/small"}))
    push(spoken, "me/reward")
    assert json.loads(pushed(hub)["manifest.json"])["base"]["spec"] == "owner/small"
    assert ModelCard(pushed(hub)["README.md"].decode()).data.base_model == "owner/small"


def test_a_later_push_replaces_the_earlier(hub: Server, spoken: Path, tmp_path: Path) -> None:
    push(spoken, "me/reward")
    first = pushed(hub)
    first |= {"LICENSE": b"mine", "model-00001-of-00002.safetensors": b"of an earlier one"}
    hub.repository("me/reward", first, "models", list(hub.commits)[-1])
    weights = load_file(spoken / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in weights.items()}, spoken / "model.safetensors", {"format": "pt"})
    redone(spoken, "manifest.json", lambda m: m["files"].update(
        {"model.safetensors": file_hash(spoken / "model.safetensors")}))  # fmt: skip
    push(spoken, "me/reward")
    assert len(hub.commits) == 2 and set(pushed(hub)) == {*first} - {"model-00001-of-00002.safetensors"}
    assert pushed(hub)["model.safetensors"] == (spoken / "model.safetensors").read_bytes()


def test_what_is_interrupted_leaves_nothing_to_be_seen(hub: Server, spoken: Path, tmp_path: Path) -> None:
    large = f"/lfs/{file_hash(spoken / 'model.safetensors')}"
    hub.forbidden = {large}
    with pytest.raises(InputError, match=r"^me/reward could not be pushed to .*; (nothing of it|log in)"):
        push(spoken, "me/reward")
    assert f"PUT {large}" in hub.asked and not hub.commits
    with pytest.raises(InputError, match=r"me/reward of the hub has no file manifest\.json"):
        pull("me/reward", tmp_path / "pulled")
    hub.forbidden = set()
    push(spoken, "me/reward")
    assert len(hub.commits) == 1

    hub.cut = {path: 9 for path in hub.files if path.endswith("/model.safetensors")}
    with pytest.raises(InputError):
        pull("me/reward", tmp_path / "pulled")
    assert not (tmp_path / "pulled").exists()


def test_refusals(hub: Server, spoken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(sentence: str, folder: Path = spoken, name: str = "me/reward") -> None:
        with pytest.raises(InputError, match=sentence) as error:
            push(folder, name)
        assert TOKEN not in str(error.value) and not hub.commits

    whole = Path(shutil.copytree(spoken, tmp_path / "whole"))

    def restored() -> Path:
        shutil.rmtree(spoken)
        return Path(shutil.copytree(whole, spoken))

    (tmp_path / "empty").mkdir()
    refused("there is no reward in .*empty", tmp_path / "empty")
    (tmp_path / "empty" / "manifest.json").write_text('{"kind": "chats"}')
    refused(r"empty/manifest.json is of no reward \(kind chats\)", tmp_path / "empty")
    (spoken / "model.safetensors").unlink()
    refused(r"lacks its file model\.safetensors")
    (restored() / "config.json").write_text("{}")
    refused("config.json is not the one its manifest describes")
    redone(restored(), "tokenizer_config.json", lambda c: c.update(chat_template=f"{{# {TOKEN} #}}"))
    refused("reward/tokenizer_config.json holds what looks like a token of the hub, and is not pushed; take it out")
    redone(restored(), "generation_config.json", lambda c: c.update(note=f"see {spoken.parent}/x"))
    refused("reward/generation_config.json names a place on this machine")
    restored()
    hub.repository("me/else", {"README.md": b"# Mine", "pytorch_model.bin": b""}, "models")
    refused("me/else of the hub holds something else .no manifest.json.; push to another name", name="me/else")
    refused("could not be pushed to", name="no name/at all/")
    monkeypatch.setenv("HF_TOKEN", "none")
    refused("could not be pushed to .*: log in with `hf auth login` as one who may write there, or set HF_TOKEN")
    for repository, sentence in {"me/else": "has no file manifest.json", "me/none": "has no model me/none"}.items():
        with pytest.raises(InputError, match=sentence):
            pull(repository, tmp_path / "pulled")
    hub.repository("me/chats", {"manifest.json": b'{"kind": "chats"}'}, "models")
    with pytest.raises(InputError, match=r"me/chats/manifest.json is of no reward"):
        pull("me/chats", tmp_path / "pulled")
    forged = {f.name: f.read_bytes() for f in spoken.iterdir()} | {"model.safetensors": b"other"}
    hub.repository("me/forged", forged, "models")
    with pytest.raises(InputError, match=r"what me/forged of the hub holds is not what its manifest describes"):
        pull("me/forged", tmp_path / "pulled")
    assert not (tmp_path / "pulled").exists()


def test_the_commands(prt: Prt, hub: Server, reward: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.setenv(name, os.environ.get(name, "1"))  # it is set back afterwards
    code, out, complaint = prt("push", reward, "me/reward")
    assert (code, out) == (0, f"{hub.url}/me/reward/commit/{next(iter(hub.commits))}\n"), complaint
    assert prt("pull", "me/reward", tmp_path / "pulled")[:2] == (0, f"ready: {tmp_path / 'pulled'}\n")
    assert prt("pull", "me/reward", tmp_path / "\udcff")[1] == f"ready: {tmp_path}/\\udcff\n"  # it is no text
    code, _, complaint = prt("push", tmp_path, "me/reward")
    assert code == 1 and complaint.startswith("prt: error: there is no reward in ")
