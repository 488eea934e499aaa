"""The models of cells: every method's sum of networks, from the folders that the cells say."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.letters import LETTERS, letters
from tokenizers import Tokenizer, decoders
from tokenizers.models import WordPiece
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from prt import methods
from prt.cell import Cell
from prt.errors import InputError
from prt.language import parts
from prt.language.merged import merged
from prt.language.models import Causal
from prt.language.parts import Models
from prt.language.reward import save_tuned, weights_hash
from prt.language.text_decode import TextRewarded
from prt.methods import METHODS, Method, Network

CPU = torch.device("cpu")
TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"
IDS = torch.tensor([[5, 9, 3, 20]])
CELL = Cell(dataset="sums", source="s", target="t", method="prt", alpha=0.0, strength=0.5, seed=0)


@pytest.fixture(scope="module")
def top(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders OWNER/MODEL of a source and a target; one of the published models has a chat template."""
    top = tmp_path_factory.mktemp("models")
    for seed, (owner, model) in enumerate((o, m) for o in "st" for m in ("pretrained", "instruct", "ft", "prt")):
        torch.manual_seed(seed)
        sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        network = AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=32, initializer_range=0.4, **sizes))
        folder, tokenizer = top / owner / model, letters()
        if model == "instruct":
            tokenizer.chat_template = TEMPLATE
        if model in ("pretrained", "instruct"):
            network.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            continue
        base = {"name": owner, "spec": "gone", "weights_sha256": weights_hash(str(top / owner / "pretrained"))}
        facts = {"method": model, "alpha": 0.0 if model == "prt" else None, "lora": None, "base": base}
        tokenizer.chat_template = f"{owner} {model} {TEMPLATE}"
        more = {"dataset": {"name": "chats"}, "template": "tulu", "recipe": {}, "seed": 0}
        save_tuned(folder, network, tokenizer, facts | more)
    return top


def models_in(top: Path, template: str = "own") -> Models:
    def folder(cell: Cell, network: Network) -> str:
        owner = cell.source if network.owner == "source" and cell.source else cell.target
        return str(top / owner / network.model)

    return Models(folder, torch.float32, CPU, template)


@torch.no_grad()
def said(causal: Causal) -> torch.Tensor:
    return causal.model(IDS).logits


def cell(method: str, **facts: Any) -> Cell:
    return CELL.model_copy(update={"method": method, **facts}).clean()


WHOLE = [name for name, of in METHODS.items() if name != "adapted" and not (of.merged or of.at or of.of_texts)]


@pytest.mark.parametrize("name", WHOLE)
def test_every_method_is_its_sum(top: Path, name: str) -> None:
    """Against the networks by hand, at strength 1/2; what was tuned gives its chat template."""
    sums = {
        "pretrained": {"t/pretrained": 1.0},
        "prt": {"t/pretrained": 1.0, "s/prt": 0.5},
        "eft": {"t/pretrained": 1.0, "s/ft": 0.5, "s/pretrained": -0.5},
        "poe": {"t/pretrained": 1.0, "s/ft": 0.5},
        "ensemble": {"t/ft": 1.0, "s/ft": 0.5},
        "ft": {"t/ft": 1.0},
        "source_ft": {"s/ft": 1.0},
        "instruct": {"t/instruct": 1.0},
        "reward": {"s/prt": 1.0},
    }
    made = models_in(top).of(cell(name))
    with torch.no_grad():
        expected = sum(
            weight * AutoModelForCausalLM.from_pretrained(top / folder)(IDS).logits
            for folder, weight in sums[name].items()
        )
    torch.testing.assert_close(said(made), expected)
    tuned = [folder for folder in sums[name] if folder.endswith(("/ft", "/prt"))]
    template = f"{tuned[0].replace('/', ' ')} {TEMPLATE}" if tuned else TEMPLATE if name == "instruct" else None
    assert made.tokenizer.chat_template == template
    if name == "reward":  # as it is measured, it is nobody's source
        assert torch.equal(said(models_in(top).of(cell(name).measured())), said(made))


def test_several_rewards(top: Path) -> None:
    """Each adds its own; one alone is as without the others."""
    models = models_in(top)
    half, quarter = (cell("prt", strength=strength) for strength in (0.5, 0.25))
    made = models.together([half, quarter])
    torch.testing.assert_close(said(made), said(models.of(cell("prt", strength=0.75))))
    assert made.tokenizer.chat_template == f"s prt {TEMPLATE}"
    assert torch.equal(said(models.together([half])), said(models.of(half)))
    assert torch.equal(said(models.together([cell("pretrained")])), said(models.of(cell("pretrained"))))


def test_a_difference_of_weights(top: Path) -> None:
    """One network: the target's weights and half of what fine-tuning changed in the source; the others stay."""
    models = models_in(top)
    alone = said(models.of(cell("pretrained")))
    made = models.of(cell("difference"))
    networks = [AutoModelForCausalLM.from_pretrained(top / name) for name in ("t/pretrained", "s/ft", "s/pretrained")]
    own, tuned, before = (dict(network.named_parameters()) for network in networks)
    with torch.no_grad():
        for name, value in own.items():
            value += 0.5 * (tuned[name] - before[name])
        torch.testing.assert_close(said(made), networks[0](IDS).logits)
    assert made.tokenizer.chat_template == f"s ft {TEMPLATE}"
    assert torch.equal(said(models.of(cell("pretrained"))), alone)


def test_a_difference_of_other_shapes(top: Path) -> None:
    target, part = (Causal(name, AutoModelForCausalLM.from_config(LlamaConfig(
        vocab_size=32, hidden_size=8, intermediate_size=16 + 8 * (name == "b"), num_hidden_layers=1,
        num_attention_heads=2,
    )), letters()) for name in "ab")  # fmt: skip
    with pytest.raises(
        InputError, match=r"'model.layers.0.mlp.down_proj.weight' of a has shape \(8, 16\), and of b \("
    ):
        merged(target, [(part, 1.0)], "difference")
    with pytest.raises(InputError, match="the strength is inf"):
        merged(target, [(part, float("inf"))], "difference")


def test_a_new_method_is_an_entry(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    added = ((1, Network("source", "instruct")), (-1, Network("source", "pretrained")))
    monkeypatch.setitem(methods.METHODS, "proxy", Method("Proxy", "#000000", methods.PRETRAINED, added))
    made = models_in(top).of(cell("proxy"))
    assert made.name == "t (proxy: +0.5 s (instruct), -0.5 s)"
    alone = {name: models_in(top).of(cell(name, target="s")) for name in ("instruct", "pretrained")}
    expected = said(models_in(top).of(cell("pretrained"))) + 0.5 * (said(alone["instruct"]) - said(alone["pretrained"]))
    torch.testing.assert_close(said(made), expected)


def test_each_network_is_loaded_once(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: Counter[str] = Counter()
    for name in ("load", "load_tuned"):
        before = getattr(parts, name)

        def counted(spec: Any, *arguments: Any, before: Any = before) -> Causal:
            loaded[Path(spec).relative_to(top).as_posix()] += 1
            return before(spec, *arguments)

        monkeypatch.setattr(parts, name, counted)
    models = models_in(top, "tulu")
    for name in ("pretrained", "eft", "poe", "prt", "reward", "source_ft"):
        made = models.of(cell(name))
    assert loaded == dict.fromkeys(("t/pretrained", "s/ft", "s/pretrained", "s/prt"), 1)
    assert made.tokenizer.chat_template == f"s ft {TEMPLATE}"
    # Only a model without a template of its own is given one.
    assert "<|assistant|>" in models.of(cell("pretrained")).tokenizer.chat_template
    assert models.of(cell("instruct")).tokenizer.chat_template == TEMPLATE


def test_refusals(top: Path, tmp_path: Path) -> None:
    models = models_in(top)
    for wrong, complaint in (
        (cell("prt", alpha=0.1), r"the cell 'prt' of 's' on 't' \(alpha 0\.1, .*\) says alpha 0\.1 of .*s/prt, whose"),
        (cell("eft", seed=1), r"says seed 1 of .*s/ft, whose manifest says 0; correct the cell, or name another"),
        (cell("ft", lora=True), r"says lora True of .*t/ft, whose manifest says False"),
        (cell("prt", strength=None), r"has no strength, which its method needs; give it"),
        (CELL.model_copy(update={"method": "prd"}), "unknown method 'prd': did you mean 'prt'"),
    ):
        with pytest.raises(InputError, match=complaint):
            models.of(wrong)
    with pytest.raises(InputError, match="unknown chat template 'tulip': did you mean 'tulu'"):
        models_in(top, "tulip")
    other = shutil.copytree(top, tmp_path / "other")
    shutil.copy(other / "t" / "pretrained" / "model.safetensors", other / "s" / "pretrained" / "model.safetensors")
    with pytest.raises(InputError, match=r"EFT needs the model that .*s/ft was tuned from, s, but .* other weights"):
        models_in(other).of(cell("eft"))
    (other / "s" / "pretrained").rename(other / "moved")
    with pytest.raises(InputError, match=r"EFT needs the model that .*s/ft was tuned from, s, which is not to be had"):
        models_in(other).of(cell("eft"))
    assert models_in(other).of(cell("poe"))
    manifest = other / "s" / "prt" / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"method": "ft", "alpha": None}))
    with pytest.raises(InputError, match=r"says method prt of .*s/prt, whose manifest says ft"):
        models_in(other).of(cell("prt"))


def test_a_target_of_another_tokenizer_gets_what_was_tuned_as_text(
    top: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = shutil.copytree(top, tmp_path / "other")
    tokenizer = letters(text="".join(reversed(LETTERS)))
    tokenizer.save_pretrained(other / "t" / "pretrained")
    models = models_in(other)
    for name, text in (("prt", "prt-text"), ("eft", "eft-text")):
        assert models_in(top).fitting(cell(name)) == cell(name)
        fitting = models.fitting(cell(name))
        assert fitting == cell(text)
        with pytest.raises(InputError, match=rf"t and s have different tokenizers, .* \({text}\): give them different"):
            models.of(cell(name))
        with pytest.raises(InputError, match=r"t and s have one tokenizer, so .* as text is .*: give them one"):
            models_in(top).of(cell(text))
        made = models.of(fitting)
        assert isinstance(made, TextRewarded)
        assert (made.method, made.strength, made.pretrained.name) == (name, 0.5, "s")
        assert f"as text ({text}), with a third network, {other / 's' / 'pretrained'}" in capsys.readouterr().err
    assert models.fitting(cell("poe")) == cell("poe")
    with pytest.raises(InputError, match="t and s ft have different tokenizers"):
        models.of(cell("poe"))
    (other / "s" / "pretrained").rename(other / "moved")
    with pytest.raises(InputError, match=r"PRT as text needs the model that .*s/prt was tuned from, s, which is not"):
        models_in(other).of(cell("prt-text"))
    words = Tokenizer(WordPiece({"[UNK]": 0, "a": 1, "##b": 2}, unk_token="[UNK]"))
    words.decoder = decoders.WordPiece()
    PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(other / "t" / "pretrained")
    shutil.copytree(top / "s" / "pretrained", other / "s" / "pretrained")
    with pytest.raises(InputError, match=r"the tokens of t cannot be turned into bytes \(its decoder is WordPiece\)"):
        models_in(other).of(cell("prt-text"))
