"""A composed model as a folder: every way of transformers' to load it gives the same model back, or a sentence."""

import copy
import json
import os
import runpy
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.damage import redone
from helpers.letters import letters
from helpers.marks import leave
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    Qwen2Config,
    pipeline,
)

from prt.errors import InputError
from prt.language.composed import Composed, compose
from prt.language.decode import load_reward
from prt.language.models import Causal, load
from prt.language.reward import save_tuned, weights_hash

CPU = torch.device("cpu")
PROMPT = "the cat sat"
TEMPLATE = (
    "{% for m in messages %}{{ m.role[0] }}, {{ m.content }}.{% endfor %}{% if add_generation_prompt %}a, {% endif %}"
)
Prt = Callable[..., tuple[int, str, str]]


def causal(seed: int, config: type[PreTrainedConfig] = LlamaConfig, rows: int = 32, tokenizer: Any = None, **more: Any):
    """A random model whose next token really depends on those before it."""
    torch.manual_seed(seed)
    size = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
    more = size | {"max_position_embeddings": 64, "eos_token_id": 0, "pad_token_id": 1, "bos_token_id": None} | more
    model = AutoModelForCausalLM.from_config(config(vocab_size=rows, initializer_range=0.4, **more)).eval()
    return Causal(f"model{seed}", model, tokenizer or letters())


def spoken() -> Any:
    tokenizer = letters()
    tokenizer.chat_template = TEMPLATE
    return tokenizer


TARGET = causal(0)
REWARD = causal(1, hidden_size=16, num_hidden_layers=1, tokenizer=spoken())
OTHER = causal(2, MistralConfig, sliding_window=5)
SUMS = {
    "prt": compose(TARGET, [(REWARD, 1.0)], "prt"),
    "eft": compose(TARGET, [(REWARD, 0.7), (OTHER, -0.7)], "eft"),
    "padded": compose(
        causal(3, rows=48, tokenizer=letters("<image>")),
        [(causal(4, MistralConfig, rows=40, tie_word_embeddings=True), 1.5)],
        "prt",
    ),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    top = tmp_path_factory.mktemp("composed")
    for name, composed in SUMS.items():
        composed.model.save_pretrained(top / name)
    assert sorted(top.iterdir()) == sorted(top / name for name in SUMS)  # nothing beside them
    return {name: top / name for name in SUMS}


@pytest.fixture
def folder(folders: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of one, to be damaged."""
    return Path(shutil.copytree(folders["eft"], tmp_path / "composed"))


def greedy(model: Any, prompt: str = PROMPT, steps: int = 20) -> str:
    ids = letters()(prompt, return_tensors="pt")["input_ids"]
    out = model.generate(ids, max_new_tokens=steps, do_sample=False)
    return letters().decode(out[0, ids.shape[1] :], skip_special_tokens=True)


@pytest.mark.parametrize("name", SUMS)
def test_auto_classes_give_the_same_model_back(name: str, folders: dict[str, Path]) -> None:
    model, kept = SUMS[name].model, AutoModelForCausalLM.from_pretrained(folders[name])
    assert type(kept) is Composed
    ids = letters()(PROMPT, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        assert kept(ids).logits.equal(model(ids).logits)
    assert greedy(kept) == greedy(model) and len(set(greedy(model))) > 3
    assert kept.weights == model.weights and kept.unread == model.unread
    assert kept.generation_config.eos_token_id == model.generation_config.eos_token_id == 0
    for config in (kept.config, AutoConfig.from_pretrained(folders[name])):
        assert (config.model_type, config.vocab_size, config.max_position_embeddings) == (
            "prt", model.config.vocab_size, 64,
        )  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(folders[name])
    assert tokenizer.get_vocab() == SUMS[name].tokenizer.get_vocab()
    assert tokenizer.chat_template == (None if name == "padded" else TEMPLATE)
    assert not (TARGET.tokenizer.chat_template or kept.training)


def test_two_chat_templates_are_refused_but_not_that_of_what_a_model_was_tuned_from(tmp_path: Path, prt: Prt) -> None:
    other, base = spoken(), spoken()
    other.chat_template, base.chat_template = TEMPLATE + "?", TEMPLATE + "!"
    chatty, source = causal(1, hidden_size=16, num_hidden_layers=1, tokenizer=other), causal(2, tokenizer=base)
    with pytest.raises(InputError, match=r"model1 and model1 were tuned with different .*; take rewards that were tun"):
        compose(TARGET, [(REWARD, 1.0), (chatty, 1.0)], "prt").model.save_pretrained(tmp_path / "two")
    compose(TARGET, [(REWARD, 1.0), (source, -1.0)], "eft").model.save_pretrained(tmp_path / "one")
    assert AutoTokenizer.from_pretrained(tmp_path / "one").chat_template == TEMPLATE
    known = {"name": "source", "spec": "gone", "weights_sha256": "0"}
    facts = dict.fromkeys(("dataset", "template", "recipe", "seed", "lora")) | {"method": "prt", "base": known}
    for name, tuned in (("a", REWARD), ("b", chatty)):
        save_tuned(tmp_path / name, tuned.model, tuned.tokenizer, facts | {"alpha": 0.0})
    line = ["compose", "--reward", tmp_path / "a", "--reward", tmp_path / "b", "--target", "nowhere"]
    code, _, complaint = prt(*line, "--out", tmp_path / "two")  # before the target is looked for
    assert code == 1 and f"the rewards {tmp_path}/a and {tmp_path}/b were tuned with different chat temp" in complaint
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "one"]


def test_it_can_be_written_again_and_a_part_is_a_model_of_its_own(folders: dict[str, Path], tmp_path: Path) -> None:
    AutoModelForCausalLM.from_pretrained(folders["eft"]).save_pretrained(tmp_path / "again")
    files = [json.loads((f / "manifest.json").read_text())["files"] for f in (folders["eft"], tmp_path / "again")]
    changed = {name for name, sha256 in files[0].items() if files[1][name] != sha256}
    assert len(files[0]) == len(files[1]) and {Path(name).name for name in changed} <= {"tokenizer_config.json"}
    alone = load(str(folders["eft"] / "target"), torch.float32, CPU)
    assert greedy(alone.model) == greedy(TARGET.model) != greedy(SUMS["eft"].model)


def test_precision_device_and_attention_are_chosen_as_for_any_model(folders: dict[str, Path], tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(
        folders["eft"], dtype=torch.bfloat16, device_map="auto", attn_implementation="eager"
    )
    for part in model.models:
        assert (part.dtype, part.device, part.config._attn_implementation) == (torch.bfloat16, CPU, "eager")
    assert (
        AutoModelForCausalLM.from_pretrained(folders["eft"], torch_dtype="float32", device_map={"": "cpu"}).device
        == CPU
    )
    model.save_pretrained(tmp_path / "half")
    half = AutoModelForCausalLM.from_pretrained(tmp_path / "half", attn_implementation="eager")
    assert half.dtype == torch.bfloat16 and greedy(half) == greedy(model)


@pytest.mark.parametrize("name", ["prt", "eft"])
def test_pipelines_and_lm_eval(name: str, folders: dict[str, Path], tmp_path: Path) -> None:
    expected = greedy(SUMS[name].model)
    options = {"max_new_tokens": 20, "do_sample": False, "return_full_text": False}
    asked = pipeline("text-generation", model=str(folders[name]))
    assert asked(PROMPT, **options)[0]["generated_text"] == expected
    said = asked([{"role": "user", "content": "hi"}], **options)[0]["generated_text"]
    assert said == greedy(SUMS[name].model, "u, hi.a, ")
    lm = HFLM(pretrained=str(folders[name]), device="cpu", batch_size=2, max_length=64)  # as by --model hf
    wanted = {"until": ["<eos>"], "max_gen_toks": 20, "do_sample": False}
    assert lm.generate_until([Instance("generate_until", {}, (PROMPT, wanted), 0)]) == [expected]


def test_transformers_server(folders: dict[str, Path]) -> None:
    openai = pytest.importorskip("openai")
    pytest.importorskip("fastapi")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    line = f"-m prt.language transformers serve {folders['prt']} --port {port} --device cpu"
    server = subprocess.Popen([sys.executable, *line.split()], env=os.environ | {"TQDM_DISABLE": "1"})
    try:
        while True:
            assert server.poll() is None
            with socket.socket() as asked:
                if not asked.connect_ex(("localhost", port)):
                    break
            time.sleep(0.2)
        client = openai.OpenAI(base_url=f"http://localhost:{port}/v1", api_key="none", max_retries=0)
        asked = {"model": str(folders["prt"]), "max_tokens": 20, "temperature": 0}
        completion = client.completions.create(prompt=PROMPT, **asked)
        assert completion.choices[0].text == greedy(SUMS["prt"].model)
        chat = client.chat.completions.create(messages=[{"role": "user", "content": "hi"}], **asked)
        assert chat.choices[0].message.content == greedy(SUMS["prt"].model, "u, hi.a, ")
    finally:
        server.terminate()
        server.wait()


def test_other_packages_commands(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["prt.language", "lm_evl"])
    with pytest.raises(SystemExit) as end:
        runpy.run_module("prt.language")
    assert end.value.code == 1
    assert "unknown command 'lm_evl': did you mean 'lm" in capsys.readouterr().err


def refused(folder: Path, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence) as error:
        AutoModelForCausalLM.from_pretrained(folder)
    assert len(str(error.value).splitlines()) == 1 and "/prt-" not in str(error.value)


def test_parts_that_are_gone_or_changed(folder: Path, tmp_path: Path) -> None:
    whole = Path(shutil.copytree(folder, tmp_path / "whole"))

    def restored() -> Path:
        shutil.rmtree(folder)
        return Path(shutil.copytree(whole, folder))

    shutil.rmtree(folder / "added-2")
    refused(folder, r"composed lacks its file added-2/.*; copy it again from where it was made, or make it again\.$")
    for name in ("target/model.safetensors", "config.json", "added-1/config.json"):
        content = (restored() / name).read_bytes()
        (folder / name).write_bytes(content.replace(b"0.7", b"0.8")[:-1] + b" ")
        refused(folder, rf"the file .*composed/{name} is not the one its manifest describes")
    shutil.copytree(whole / "added-1", restored() / "target", dirs_exist_ok=True)
    refused(folder, "target/.* is not the one its manifest describes")
    (restored() / "manifest.json").unlink()
    refused(folder, "there is no composed model in .*composed .no manifest.json")
    redone(restored(), "manifest.json", lambda m: m["files"].update({"../elsewhere/config.json": "0"}))
    refused(folder, "manifest .*manifest.json has a damaged 'files")
    redone(restored(), "config.json", lambda c: c["models"][1].update(weight=70.0))
    refused(folder, "config.json says another sum than the manifest; compose it again")
    redone(restored(), "manifest.json", lambda m: m["models"][1].update(folder="../whole/target"))
    refused(folder, "manifest .*manifest.json has a damaged 'models.1.folder'")
    redone(restored(), "added-1/config.json", lambda c: c.update(hidden_size=24))
    refused(folder, "the weights of .*added-1 do not fit its config.json|the model of .*added-1 cannot be loaded")


def test_no_code_of_a_folder_is_run(folder: Path, tmp_path: Path) -> None:
    leave(folder / "added-1", tmp_path / "mark", "modeling_own")
    own = {"AutoModelForCausalLM": "modeling_own.Own", "AutoConfig": "modeling_own.Own"}
    redone(folder, "added-1/config.json", lambda c: c.update(auto_map=own))
    refused(folder, "added-1/config.json asks for code of its own by 'auto_map'")
    assert not (tmp_path / "mark").exists()


def test_what_would_be_loaded_or_saved_as_something_else_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    def no(sentence: str, call: Callable[[], Any]) -> None:
        with pytest.raises(InputError, match=sentence):
            call()

    there = folders["prt"]
    no("is not loaded with 'quantization_config'", lambda: AutoModelForCausalLM.from_pretrained(
        there, quantization_config={"quant_method": "bitsandbytes"}))  # fmt: skip
    no("has no device_map of modules", lambda: AutoModelForCausalLM.from_pretrained(there, device_map={"models.0": 0}))
    no(f"{there} is no single model, but has several in folders", lambda: load(str(there), torch.float32, CPU))
    no(f"{there} is there already", lambda: SUMS["prt"].model.save_pretrained(there))
    no("is not saved with 'push_to_hub'", lambda: SUMS["prt"].model.save_pretrained(tmp_path / "a", push_to_hub=True))
    odd = compose(TARGET, [(REWARD, 1.0)], "prt").model
    odd.generation_config = copy.deepcopy(odd.generation_config)
    odd.generation_config.update(do_sample=False, temperature=0.5)
    no("generation_config is not valid", lambda: odd.save_pretrained(tmp_path / "odd"))
    qwen = compose(causal(6, Qwen2Config), [(REWARD, 1.0)], "prt").model  # has a class of tokenizers of its own
    no("the tokenizer of model6 as another .Qwen2Tokenizer. beside its model", lambda: qwen.save_pretrained(
        tmp_path / "qwen"))  # fmt: skip
    (tmp_path / "file").touch()
    no("cannot write", lambda: SUMS["prt"].model.save_pretrained(tmp_path / "file" / "in"))
    no("^the model owner/none is not on this machine", lambda: Composed.from_pretrained("owner/none"))
    assert sorted(tmp_path.iterdir()) == [tmp_path / "file"]


def test_the_command(prt: Prt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, one in {"target": TARGET, "base": OTHER}.items():
        one.model.save_pretrained(tmp_path / name)
        one.tokenizer.save_pretrained(tmp_path / name)
    base = tmp_path / "base"
    known = {"name": "source", "spec": str(base), "weights_sha256": weights_hash(str(base))}
    facts = dict.fromkeys(("alpha", "dataset", "template", "recipe", "seed", "lora")) | {"method": "ft", "base": known}
    save_tuned(tmp_path / "tuned", REWARD.model, REWARD.tokenizer, facts)
    monkeypatch.chdir(tmp_path)
    line = ["compose", "--reward", "tuned", "--target", "target", "--out", "made", "--strength", "0.7"]
    assert prt(*line, "--method", "prt")[0] == 1
    assert not Path("made").exists()
    assert prt(*line, "--method", "eft") == (0, "ready: made\n", "")
    rewarded = load_reward("tuned", method="eft").on("target", 0.7)
    kept = AutoModelForCausalLM.from_pretrained("made")
    assert greedy(kept) == rewarded.generate(PROMPT, max_new_tokens=20) == greedy(SUMS["eft"].model)
    written = "".join(f.read_text() for f in Path("made").rglob("*.json"))
    assert str(tmp_path) not in written and [m["name"] for m in kept.config.models] == ["target", "source", "source"]
    code, _, complaint = prt(*line, "--method", "eft")
    assert code == 1 and "made is there already" in complaint

    other = causal(5, tokenizer=letters(text="ba" + "cdefghijklmnopqrstuvwxyz .,?"))
    other.model.save_pretrained("other")
    other.tokenizer.save_pretrained("other")
    line[4], line[6] = "other", "across"
    code, _, complaint = prt(*line, "--method", "eft")
    assert code == 1 and not Path("across").exists()
    assert "another tokenizer" in complaint or "tokens" in complaint
