"""Tuned language models on disk: they come back as they were trained, and damage is refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from helpers.tuning import CPU, TOKENS, Run, bases, data, imported, run

from prt.errors import InputError
from prt.language.chats import Manifest
from prt.language.models import load
from prt.language.network import backbone, causal, head
from prt.language.recipe import Lora
from prt.language.reward import load_tuned, save_tuned
from prt.language.reward import read_manifest as read_reward

__all__ = ["bases", "data", "imported", "run"]  # fixtures


def test_portable(run: Run, bases: dict[str, Path], data: Manifest, tmp_path: Path) -> None:
    """A whole model and an adapter come back as they were trained; the manifest says where from."""
    folder = run("whole", "prt", "qwen", alpha=0.1) / "0"
    loaded = load_tuned(folder, torch.bfloat16, CPU)
    assert (loaded.model.dtype, loaded.model.training, loaded.name) == (torch.bfloat16, False, "qwen prt")
    manifest = read_reward(folder)
    assert (manifest["method"], manifest["alpha"], manifest["lora"], manifest["seed"]) == ("prt", 0.1, None, 0)
    assert manifest["base"]["spec"] == str(bases["qwen"])
    assert manifest["dataset"]["fingerprint"] == data.fingerprint
    assert manifest["dataset"]["tokens"]["train"] == {"conversations": 20, "truncated": 0, "dropped": 0}
    prompt = [{"role": "user", "content": "1+1"}]
    text = loaded.tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
    assert text == "<|user|>\n1+1\n<|assistant|>\n"
    assert read_reward(run("plain", "ft") / "0")["alpha"] is None

    folder = run("adapter", "prt", "qwen", lora=Lora(rank=2, alpha=4)) / "0"
    assert read_reward(folder)["lora"] == {"rank": 2, "alpha": 4, "targets": "all-linear"}
    assert not (folder / "model.safetensors").exists()
    from peft import PeftModel

    apart = PeftModel.from_pretrained(load(str(bases["qwen"]), torch.float32, CPU).model, folder).eval()
    ids = torch.arange(1, 20)[None]
    with torch.no_grad():
        expected, base = apart(ids).logits, load(str(bases["qwen"]), torch.float32, CPU).model(ids).logits
        torch.testing.assert_close(load_tuned(folder, torch.float32, CPU).model(ids).logits, expected)
    assert not torch.allclose(expected, base, atol=1e-3)
    assert causal(apart) is apart.get_base_model()
    assert head(apart) is apart.get_base_model().lm_head.weight
    assert backbone(apart) is apart.get_base_model().model

    moved = shutil.copytree(bases["qwen"], tmp_path / "moved")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["base"]["spec"] = str(tmp_path / "gone")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(
        InputError, match=r"is an adapter of qwen, which is not to be had .* name its folder as the base"
    ):
        load_tuned(folder, torch.float32, CPU)
    assert load_tuned(folder, torch.float32, CPU, base=str(moved))
    with pytest.raises(InputError, match=r"is an adapter of qwen, but the weights of .*llama are others"):
        load_tuned(folder, torch.float32, CPU, base=str(bases["llama"]))


def test_what_a_killed_writer_left_goes_with_the_next(run: Run) -> None:
    folder = run("again", "ft") / "0"
    before = sorted(path.name for path in folder.iterdir())
    (folder / ".part").mkdir()
    (folder / ".part" / ".tmpXyz").write_bytes(b"half a model")
    loaded, manifest = load_tuned(folder, torch.float32, CPU), read_reward(folder)
    save_tuned(folder, loaded.model, loaded.tokenizer, manifest)
    assert sorted(path.name for path in folder.iterdir()) == before
    assert load_tuned(folder, torch.float32, CPU)


def test_damage_is_refused(run: Run) -> None:
    folder = run("run", "ft") / "0"

    def refused(complaint: str) -> None:
        with pytest.raises(InputError, match=complaint):
            load_tuned(folder, torch.float32, CPU)

    facts = json.loads((folder / "manifest.json").read_text())
    weights_file = folder / "model.safetensors"
    whole = weights_file.read_bytes()
    weights_file.write_bytes(whole[:-4])
    refused(r"model\.safetensors is not the one its manifest describes")
    weights_file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    refused(r"model\.safetensors is not the one its manifest describes")
    weights_file.unlink()
    refused(r"lacks its file model\.safetensors")
    weights_file.write_bytes(whole)
    for key, value, complaint in (
        (
            "vocabulary",
            {"size": TOKENS, "sha256": "0"},
            "the tokenizer in .* is not the one that its manifest describes",
        ),
        ("vocabulary", 5, "has a damaged 'vocabulary'"),
        ("base", {"name": "llama"}, "lacks 'base.spec'"),
        ("files", {}, "has a damaged 'files'"),
        ("lora", 5, "has a damaged 'lora'"),
        ("alpha", "0", "has a damaged 'alpha'"),
        ("method", "dpo", "has a damaged 'method'"),
        ("seed", "0", "has a damaged 'seed'"),
        ("kind", "vision", "holds a vision reward; use a language reward on a language model"),
    ):
        (folder / "manifest.json").write_text(json.dumps(facts | {key: value}))
        refused(complaint)
    (folder / "manifest.json").write_text(json.dumps({k: v for k, v in facts.items() if k != "base"}))
    refused("lacks 'base'")
    (folder / "manifest.json").unlink()
    refused("there is no reward in")


def test_a_language_reward_is_refused_by_vision(run: Run) -> None:
    from prt.vision.predict import load_reward

    with pytest.raises(InputError, match="holds a language reward; use a vision reward on a vision model"):
        load_reward(run("run") / "0")
