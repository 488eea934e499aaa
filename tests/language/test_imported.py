"""What others tuned, imported: it gives the sums of the equations, and what is wrong is refused in one sentence."""

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.harness import ARC, lines, read
from helpers.hub import Server, hub, server
from helpers.letters import LETTERS, letters
from peft import LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from prt import combine
from prt.errors import InputError
from prt.language import decode
from prt.language.imported import import_model
from prt.language.reward import read_manifest

__all__ = ["hub", "server"]  # fixtures
Prt = Callable[..., tuple[int, str, str]]
PROMPT, STEPS = "the cat sat", 8


def llama(seed: int, **sizes: Any) -> LlamaForCausalLM:
    """A random model whose next token depends on those before it."""
    torch.manual_seed(seed)
    given = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2} | sizes
    config = LlamaConfig(
        vocab_size=32,
        max_position_embeddings=64,
        initializer_range=0.4,
        eos_token_id=0,
        bos_token_id=None,
        **given,
    )
    return LlamaForCausalLM(config).eval()


def saved(model: Any, folder: Path, tokenizer: PreTrainedTokenizerFast | None) -> Path:
    model.save_pretrained(folder)
    if tokenizer:
        tokenizer.save_pretrained(folder)
    return folder


def adapter(base: Path, folder: Path, **options: Any) -> Path:
    """A LoRA as somebody would save it, with weights that do something."""
    torch.manual_seed(5)
    config = LoraConfig(task_type="CAUSAL_LM", **({"r": 2, "target_modules": ["q_proj", "v_proj"]} | options))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model: Any = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "lora_" in name:
                    weight.normal_(0, 0.5)
        model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A target, a model ``tuned`` from a ``base`` (with a control token more), and a LoRA of that base."""
    top = tmp_path_factory.mktemp("models")
    chatty = letters()
    chatty.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}."
    made = {
        "target": saved(llama(1, hidden_size=32), top / "target", letters()),
        "base": saved(llama(2), top / "base", letters()),
        "tuned": saved(llama(3), top / "tuned", chatty),
    }
    return made | {"lora": adapter(made["base"], top / "lora")}


@torch.no_grad()
def by_hand(target: Path, networks: list[Any], weights: list[float]) -> str:
    """The greedy answer of target + Σ weight · network, without a cache."""
    first = AutoModelForCausalLM.from_pretrained(target)
    ids = letters()(PROMPT)["input_ids"]
    start = len(ids)
    while len(ids) < start + STEPS and (len(ids) == start or ids[-1] != 0):
        logs = [combine.log_probs(m(torch.tensor([ids])).logits[0, -1]) for m in (first, *networks)]
        ids = [*ids, int(combine.prt(logs[0], logs[1:], weights).argmax())]
    return str(letters().decode(ids[start:], skip_special_tokens=True))


def network(places: dict[str, Path], name: str) -> Any:
    if name != "lora":
        return AutoModelForCausalLM.from_pretrained(places[name])
    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(places["base"]), places["lora"]).eval()


@pytest.mark.parametrize("kind", ["tuned", "lora"])
def test_an_imported_pair_gives_the_sum_of_the_equation(
    prt: Prt, places: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    out = tmp_path / "made"
    assert prt("import", "language", places[kind], "--base", places["base"], "--out", out)[:2] == (0, f"ready: {out}\n")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["made"]
    manifest = read_manifest(out)
    unknown = {key for key, value in manifest.items() if value is None}
    assert unknown == {"alpha", "dataset", "recipe", "seed", "template"} | ({"lora"} if kind == "tuned" else set())
    assert manifest["method"] == "ft" and manifest["base"]["spec"] == str(places["base"])
    assert manifest["imported"] == {"from": str(places[kind]), "revision": None}

    tuned, base = network(places, kind), network(places, "base")
    given = ["generate", "--reward", out, "--target", places["target"], "--device", "cpu", "--max-new-tokens", STEPS]
    answers = set()
    for method, networks, signs in (("eft", [tuned, base], [1, -1]), ("poe", [tuned], [1])):
        for strength in (1.0, 0.5):
            expected = by_hand(places["target"], networks, [strength * sign for sign in signs])
            said = prt(*given, "--method", method, "--strength", strength, PROMPT)
            assert said[:2] == (0, expected + "\n")
            answers.add(expected)
    assert len(answers) > 2
    expected = by_hand(places["target"], [tuned, base], [1, -1])
    assert prt(*given, "--method", "eft", "--draft", places["base"], PROMPT)[:2] == (0, expected + "\n")
    code, _, complaint = prt(*given, PROMPT)
    assert code == 1
    assert "holds a fine-tuned model (method ft), no reward: method prt does not take it" in complaint
    assert complaint.endswith("use it with method eft or poe.\n")


def test_every_logit_and_the_tokens_shown(places: dict[str, Path], tmp_path: Path) -> None:
    import_model(str(places["tuned"]), str(places["base"]), tmp_path / "made", method="ft", downloads=tmp_path)
    model = decode.load_reward(tmp_path / "made", method="eft").on(str(places["target"]), strength=0.7)
    ids = torch.tensor([letters()(PROMPT)["input_ids"]])
    with torch.no_grad():
        parts = [network(places, name)(ids).logits for name in ("target", "tuned", "base")]
        found: Tensor = model.composed.model(ids).logits
    torch.testing.assert_close(combine.log_probs(found), combine.eft(*parts, strength=0.7), atol=1e-5, rtol=1e-4)
    shown = decode.next_tokens(model, PROMPT, max_new_tokens=1, positions=None)["positions"][0]
    best = combine.eft(*(p[0, -1] for p in parts), strength=0.7).exp().topk(5)
    assert [p for _, p in shown["with"]] == pytest.approx(best.values.tolist(), abs=1e-5)
    # Its own template, since the target has none.
    assert model.encode("ab", 1, chat=True).tolist() == [letters()("ab.")["input_ids"]]


@torch.no_grad()
def test_a_benchmark_of_an_imported_pair(prt: Prt, places: dict[str, Path], tmp_path: Path) -> None:
    """The log-likelihood of every answer is that of EFT's equation; the result says what was measured."""
    import_model(str(places["lora"]), str(places["base"]), tmp_path / "made", method="ft", downloads=tmp_path)
    data, out = lines(tmp_path / "data", ARC), tmp_path / "out"
    (tmp_path / "data.json").write_text("the user's own")
    given = ["evaluate", "arc_easy", "--reward", tmp_path / "made", "--target", places["target"], "--out", out]
    given += ["--method", "eft", "--strength", 0.5, "--device", "cpu"]
    code, said, complaint = prt(*given, "--set", f"data={data}", "--set", "batch=2")
    assert code == 0, complaint
    result, samples = read(out)
    assert f"acc {result['metrics']['acc']:.4f}\n" in said
    cell = {"method": "eft", "strength": 0.5, "lora": True, "alpha": None, "seed": None}
    assert cell.items() <= result["cell"].items()
    networks = [network(places, name) for name in ("target", "lora", "base")]
    for sample in samples:
        for continuation, response in zip(sample["continuations"], sample["response"], strict=True):
            start = len(letters()(sample["prompt"])["input_ids"])
            ids = letters()(sample["prompt"] + continuation)["input_ids"]
            logs = combine.eft(*(m(torch.tensor([ids])).logits[0, :-1] for m in networks), strength=0.5)
            expected = sum(float(logs[i - 1, ids[i]]) for i in range(start, len(ids)))
            assert response == pytest.approx(expected, abs=1e-3)
    # Twice the same at strengths of that sum is the same; the result says of each what it was.
    halves = ["--reward", tmp_path / "made", "--strength", 0.2]
    halves = [*given[:-4], "--method", "eft", "--device", "cpu", "--strength", 0.3, *halves]
    code, _, complaint = prt(*halves, "--set", f"data={data}", "--set", "batch=2", "--out", tmp_path / "halves")
    assert code == 0, complaint
    both, again = read(tmp_path / "halves")
    assert [each["strength"] for each in both["cell"]] == [0.3, 0.2]
    for sample, other in zip(samples, again, strict=True):
        assert other["response"] == pytest.approx(sample["response"], abs=1e-4)
    for line, complaint in {
        ("--set", "data"): "--set takes KEY=VALUE",
        ("--set", "batch=[2"): "--set takes KEY=VALUE",
        ("--set", "shots=2024-99-99"): "--set takes KEY=VALUE",
        ("--set", "generation={a: .nan}"): "the setting 'generation' of the benchmark arc_easy is wrong (ValueError: ",
        ("--out", data / "test.jsonl" / "no"): "test.jsonl is a file; remove it or choose another folder",
        ("--set", "shot=5"): "unknown setting of the benchmark arc_easy, 'shot'",
        ("--method", "prt"): "use it with method eft or poe",
        ("--base", places["target"]): "has other weights; name that model",
        ("--strength", "nan"): "the strength is nan, but must be a finite number",
    }.items():
        code, _, said = prt(*given, "--set", f"data={data}", "--out", tmp_path / "no", *line)
        assert code == 1
        assert complaint in said.splitlines()[-1]
    assert not (tmp_path / "no").exists()
    assert (tmp_path / "data.json").read_text() == "the user's own"


def test_what_is_really_a_reward_is_one(places: dict[str, Path], tmp_path: Path) -> None:
    import_model(str(places["tuned"]), str(places["base"]), tmp_path / "made", method="prt", downloads=tmp_path)
    model = decode.load_reward(tmp_path / "made").on(str(places["target"]))
    assert model.generate(PROMPT, max_new_tokens=STEPS) == by_hand(places["target"], [network(places, "tuned")], [1.0])
    with pytest.raises(InputError, match="holds a reward: method eft does not take it; use it with method prt"):
        decode.load_reward(tmp_path / "made", method="eft")
    with pytest.raises(InputError, match=r"unknown method that puts a folder on a target, 'ensemble'"):
        decode.load_reward(tmp_path / "made", method="ensemble")


def test_an_adapter_with_a_tokenizer_of_its_own(places: dict[str, Path], tmp_path: Path) -> None:
    """As trainers save one, often with a control token more."""
    lora = Path(shutil.copytree(places["lora"], tmp_path / "lora"))
    chatty = letters("[PAD]")
    chatty.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}?"
    chatty.save_pretrained(lora)
    facts = json.loads((lora / "adapter_config.json").read_text())
    facts |= {"lora_alpha": 8.0, "lora_dropout": 0.1, "auto_mapping": {"parent_library": "no.such.module"}}
    (lora / "adapter_config.json").write_text(json.dumps(facts))
    import_model(str(lora), str(places["base"]), tmp_path / "made", method="ft", downloads=tmp_path)
    model = decode.load_reward(tmp_path / "made", method="poe").on(str(places["target"]))
    assert model.generate(PROMPT, max_new_tokens=STEPS) == by_hand(places["target"], [network(places, "lora")], [1.0])
    assert model.encode("ab", 1, chat=True).tolist() == [letters()("ab?")["input_ids"]]
    assert read_manifest(tmp_path / "made")["lora"] == {"rank": 2, "alpha": 8, "targets": ["q_proj", "v_proj"]}


def test_the_base_may_move_but_not_change(places: dict[str, Path], tmp_path: Path) -> None:
    base = Path(shutil.copytree(places["base"], tmp_path / "base"))
    import_model(str(places["tuned"]), str(base), tmp_path / "made", method="ft", downloads=tmp_path)
    moved = base.rename(tmp_path / "moved")
    with pytest.raises(
        InputError, match=r"was tuned from .*base, which is not to be had .* name its folder as the base"
    ):
        decode.load_reward(tmp_path / "made", method="eft")
    assert decode.load_reward(tmp_path / "made", method="eft", base=str(moved)).pretrained
    assert decode.load_reward(tmp_path / "made", method="poe").pretrained is None  # it needs none
    with pytest.raises(InputError, match=r"was tuned from .*base, but the weights of .*target are others"):
        decode.load_reward(tmp_path / "made", method="eft", base=str(places["target"]))


def test_from_the_hub(hub: Server, places: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lora = Path(shutil.copytree(places["lora"], tmp_path / "copy"))
    facts = json.loads((lora / "adapter_config.json").read_text())
    (lora / "adapter_config.json").write_text(json.dumps(facts | {"base_model_name_or_path": "them/base"}))
    for name, folder in (("them/base", places["base"]), ("me/lora", lora), ("us/other", places["target"])):
        hub.repository(name, {file.name: file.read_bytes() for file in folder.iterdir()}, "models")
    import_model("me/lora", None, Path("made"), method="ft", downloads=Path("downloads"))
    manifest = read_manifest(Path("made"))
    assert manifest["base"]["name"] == "them/base"
    assert manifest["base"]["spec"] == str(tmp_path / "downloads" / "models" / "them--base")
    assert len(manifest["imported"]["revision"]) == 40
    model = decode.load_reward("made", method="poe").on(str(places["target"]))
    assert model.generate(PROMPT, max_new_tokens=STEPS) == by_hand(places["target"], [network(places, "lora")], [1.0])
    with pytest.raises(InputError, match="is an adapter of them/base, not of us/other"):
        import_model("me/lora", "us/other", Path("more"), method="ft", downloads=Path("downloads"))
    with pytest.raises(InputError, match="the Hugging Face hub has no model me/none"):
        import_model("me/none", "them/base", Path("more"), method="ft", downloads=Path("downloads"))
    assert not Path("more").exists()


def test_what_is_wrong_ends_with_one_sentence(places: dict[str, Path], tmp_path: Path) -> None:
    inputs, out = tmp_path / "inputs", tmp_path / "out"
    out.mkdir()

    def refused(complaint: str, spec: Path | str, base: Path | str | None = places["base"], method: str = "ft") -> None:
        with pytest.raises(InputError, match=complaint) as caught:
            import_model(str(spec), base and str(base), out / "made", method=method, downloads=tmp_path / "downloads")
        assert "\n" not in str(caught.value) and str(caught.value)[-1] in ".?"
        assert not list(out.iterdir())

    def changed(name: str, file: str, **facts: Any) -> Path:
        """A copy with some facts in a JSON file changed."""
        folder = Path(shutil.copytree(places[name], inputs / f"{name}{len(list(inputs.glob('*')))}"))
        (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()) | facts))
        return folder

    refused("there is no folder /nowhere", "/nowhere")
    refused("neither a model .* nor an adapter", out)
    refused("it is not known what .* was tuned from", places["tuned"], None)
    refused("cannot be its own base", places["tuned"], places["tuned"])
    refused("there is no model in", places["tuned"], places["lora"])
    refused("unknown method of a model that is imported, 'eft'", places["tuned"], method="eft")
    odd = changed("tuned", "config.json", time_step_limit=[0.0, float("inf")])  # as state-space models have it
    import_model(str(odd), str(places["base"]), out / "odd", method="ft", downloads=tmp_path / "downloads")
    shutil.rmtree(out / "odd")
    refused("quantised", changed("tuned", "config.json", quantization_config={"bits": 4}))
    refused("has no tokenizer that can be loaded", saved(llama(3), inputs / "bare", None))
    swapped = saved(llama(3), inputs / "swapped", letters(text="ba" + LETTERS[2:]))
    refused("swapped was not tuned from .*base, whose tokenizer is another", swapped)
    refused("hidden_size is 32 here and 16 there", places["target"])
    (inputs / "cut").mkdir()
    cut = changed("tuned", "config.json")
    content = (cut / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(content[: len(content) // 2])
    refused("cannot be loaded", cut)
    shutil.copy(places["lora"] / "adapter_config.json", cut / "manifest.json")
    refused("has a manifest.json already", cut)
    (cut / "manifest.json").write_text('{"kind": "composed"}')
    refused("holds no language model that others tuned, but is of kind composed; name a folder in", cut)

    # An adapter whose base is missing, or another.
    gone = changed("lora", "adapter_config.json", base_model_name_or_path="/home/them/base")
    refused("is an adapter of /home/them/base, which is not to be had", gone, None)
    for sizes, complaint in (
        ({"hidden_size": 32}, "does not fit .*size mismatch|does not fit .*RuntimeError"),
        ({"num_hidden_layers": 1}, r"there is no place for .*layers\.1"),
        ({"num_hidden_layers": 3}, r"it lacks .*layers\.2"),
    ):
        refused(complaint, places["lora"], saved(llama(7, **sizes), inputs / f"{sizes}", letters()))
    damaged = changed("lora", "adapter_config.json")
    (damaged / "adapter_model.safetensors").write_bytes(b"no tensors")
    refused("the adapter .* does not fit", damaged)
    half = changed("lora", "adapter_config.json")
    tensors = load_file(half / "adapter_model.safetensors")
    save_file(dict(list(tensors.items())[1:]), half / "adapter_model.safetensors")
    refused("it lacks", half)
    for option in ({"use_rslora": True}, {"use_dora": True}, {"rank_pattern": {"q_proj": 1}}, {"bias": "all"}):
        refused(f"has '{next(iter(option))}' ", changed("lora", "adapter_config.json", **option))
    refused("has 'init_lora_weights' 'pissa'", changed("lora", "adapter_config.json", init_lora_weights="pissa"))
    refused("'rank' of an adapter is None", changed("lora", "adapter_config.json", r=None))
    (half / "adapter_model.safetensors").rename(half / "adapter_model.bin")
    refused("has no adapter_model.safetensors", half)
    swapped.joinpath("model.safetensors").write_bytes(places["base"].joinpath("model.safetensors").read_bytes())
    own = changed("lora", "adapter_config.json")
    letters().save_pretrained(own)
    refused("whose tokenizer is another", own, swapped)
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prompt: Any = get_peft_model(llama(2), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))
        prompt.save_pretrained(inputs / "prompt")
    refused("an adapter of kind PROMPT_TUNING, not LoRA", inputs / "prompt")
    tied = saved(llama(2, tie_word_embeddings=True), inputs / "tied", letters())
    on_embeddings = adapter(tied, inputs / "embeddings", target_modules=["embed_tokens"])
    refused("has more than LoRA's weights .*embed_tokens", on_embeddings, tied)
    tensors = load_file(on_embeddings / "adapter_model.safetensors")
    plain = {name: tensor for name, tensor in tensors.items() if "lora_" in name}
    save_file(plain, on_embeddings / "adapter_model.safetensors")
    refused("cannot be merged into .*tied", on_embeddings, tied)

    # What is there stays.
    (out / "made").mkdir()
    (out / "made" / "mine.txt").touch()
    with pytest.raises(InputError, match="is there already"):
        import_model(str(places["tuned"]), str(places["base"]), out / "made", method="ft", downloads=tmp_path)
    assert [p.name for p in (out / "made").iterdir()] == ["mine.txt"]
