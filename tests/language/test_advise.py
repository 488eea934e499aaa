"""Advice with real rewards on a few chats."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.chats import chat, write
from helpers.small import clip as small_clip
from helpers.small import llama, tuned_clip
from helpers.sums import EXTRA, family, network
from helpers.tuning import bytes_tokenizer
from transformers import AutoModelForCausalLM

from prt.advice import STRENGTHS
from prt.errors import InputError
from prt.language.advise import examples, ways
from prt.language.chats import prepare
from prt.language.composed import compose
from prt.language.conversations import Messages
from prt.language.decode import load_reward
from prt.language.losses import Sum, losses, rows_of
from prt.language.merged import merged
from prt.language.models import Causal, load
from prt.miniature.text import tokenizer

Prt = Callable[..., tuple[int, str, str]]
CHATS = [
    chat(f"Tom has {a} pens. How many pens does Tom have?", *(f"Tom has {a} pens. " * (1 + a % 3), "The", f"The {a}"))
    for a in range(14)
]


@pytest.fixture(scope="module")
def top(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source with its reward and fine-tuned model, targets of its shapes and of others, and chats."""
    folder = family(tmp_path_factory.mktemp("family"))
    network(7, 96, 24, 3, len(tokenizer())).save_pretrained(folder / "twin")
    tokenizer().save_pretrained(folder / "twin")
    llama(folder / "bytes", 2, bytes_tokenizer())
    write(folder / "chats.jsonl", *CHATS)
    return folder


def at(folder: Path) -> Causal:
    return load(str(folder), torch.float32, "cpu")


@torch.no_grad()
def by_hand(causal: Causal, template: str, chats: list[Messages]) -> list[float]:
    """The mean of −log p of the assistant's tokens of each chat, each read alone and token by token; shortest first."""
    found = []
    for messages in chats:
        out = causal.tokenizer.apply_chat_template(
            [messages], chat_template=template, return_dict=True, return_assistant_tokens_mask=True
        )
        ids, said = out["input_ids"][0], out["assistant_masks"][0]
        logs = causal.model(torch.tensor([ids])).logits[0].log_softmax(-1)
        own = [-float(logs[place - 1, token]) for place, token in enumerate(ids) if said[place]]
        found.append((len(ids), sum(own) / len(own)))
    return [loss for _, loss in sorted(found, key=lambda each: each[0])]


def test_every_way_s_losses_are_those_of_the_model_that_using_it_makes(top: Path) -> None:
    """One chat and one token at a time, on a target of other shapes that has a token more than the source."""
    reward, finetuned = load_reward(top / "lora"), load_reward(top / "ft", method="poe")
    chats = examples(top / "chats.jsonl")
    found = ways(str(top / "target"), reward, finetuned, chats)
    assert [name.partition(" (")[0] for name in found] == [
        *("target alone", "source's PRT kept", "source's FT kept"),
        *(name + end for name in ("PRT", "PoE", "EFT") for end in ("", ", strength chosen")),
    ]
    target, source, template = at(top / "target"), at(top / "source"), str(reward.causal.tokenizer.chat_template)
    ft = finetuned.causal
    models = {
        "target alone": target,
        "source's PRT kept": compose(source, [(reward.causal, 1.0)], "prt"),
        "source's FT kept": ft,
        "PRT": compose(target, [(reward.causal, 1.0)], "prt"),
        "PoE": compose(target, [(ft, 1.0)], "poe"),
        "EFT": compose(target, [(ft, 1.0), (source, -1.0)], "eft"),
    }
    for name, model in models.items():
        assert found[name] == pytest.approx(by_hand(model, template, chats), rel=1e-5), name
    assert len({round(float(values.mean()), 6) for values in found.values()}) >= len(models)  # no two are one


def test_strengths_are_the_composed_model_s_and_chats_in_a_batch_are_as_alone(top: Path) -> None:
    reward, target = load_reward(top / "prt"), at(top / "target")
    chats, template = examples(top / "chats.jsonl"), str(reward.causal.tokenizer.chat_template)
    rows, cut = rows_of(chats, target.tokenizer, template, 1000)
    assert cut == 0
    (swept,) = losses([Sum(target, [(1, reward.causal)], STRENGTHS)], rows)
    for strength, values in zip(STRENGTHS, swept, strict=True):
        model = compose(target, [(reward.causal, strength)], "prt")
        assert values == pytest.approx(by_hand(model, template, chats), rel=1e-5)
        assert values == pytest.approx(losses([Sum(model)], rows)[0][0], rel=1e-5)
    assert losses([Sum(target)], rows[3:4])[0][0] == pytest.approx(losses([Sum(target)], rows)[0][0][3:4], rel=1e-5)
    short, cut = rows_of(chats, target.tokenizer, template, 40)
    assert cut == sum(len(row["labels"]) > 40 for row in rows) > 0
    assert max(len(row["labels"]) for row in short) == 40


def test_the_weight_difference(top: Path) -> None:
    """On another model of the source's shapes, and only there; on the source it would be its fine-tuned model."""
    reward, finetuned = load_reward(top / "prt"), load_reward(top / "ft", method="poe")
    chats, source = examples(top / "chats.jsonl"), at(top / "source")
    found = ways(str(top / "twin"), reward, finetuned, chats)
    made = merged(at(top / "twin"), [(finetuned.causal, 1.0), (source, -1.0)], "difference")
    template = str(reward.causal.tokenizer.chat_template)
    assert found["weight difference"] == pytest.approx(by_hand(made, template, chats), rel=1e-5)
    assert list(found)[-1].startswith("weight difference, strength chosen (")
    itself = ways(str(top / "source"), reward, finetuned, chats)
    assert "weight difference" not in itself
    assert itself["EFT"] == pytest.approx(itself["source's FT kept"], abs=1e-12)  # eq. 3; no rounding to be told apart
    assert np.array_equal(itself["PRT"], itself["source's PRT kept"])
    assert "weight difference" not in ways(str(top / "twin"), reward, None, chats)


def test_the_command(prt: Prt, top: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = ["advise", "--reward", top / "prt", "--target", top / "target", "--device", "cpu"]
    made, create = [], AutoModelForCausalLM.from_pretrained
    monkeypatch.setattr(
        AutoModelForCausalLM, "from_pretrained", lambda *args, **of: made.append(args) or create(*args, **of)
    )
    code, said, complaint = prt(*given, "--data", top / "chats.jsonl", "--finetuned", top / "ft")
    assert code == 0, complaint
    assert len(made) == 4  # the target, the source and both tuned from it, once each
    title, *lines, best, verdict = said.splitlines()
    assert title.startswith("loss in nats per token of the assistant")
    assert len(lines) == 9
    values = [float(re.search(r"  (\d+\.\d{3}) \(", line)[1]) for line in lines]  # type: ignore[index]
    assert values == sorted(values)
    assert best.startswith(f"best on 14 chats: {lines[0].partition('  ')[0]}; ")
    assert verdict.startswith(("these two are told apart", "not told apart: "))

    prepare(f"jsonl:{top / 'chats.jsonl'}", tmp_path / "data", downloads=tmp_path, validation=0.75)
    code, said, complaint = prt(*given, "--data", tmp_path / "data")
    assert code == 0, complaint
    assert "best on 10 chats: " in said
    assert len(said.splitlines()) == 7


def edited(folder: Path, out: Path, **facts: object) -> Path:
    """A copy of a run whose manifest says something else."""
    shutil.copytree(folder, out)
    manifest = json.loads((out / "manifest.json").read_text())
    (out / "manifest.json").write_text(json.dumps(manifest | facts))
    return out


def test_what_cannot_be_compared_is_refused(prt: Prt, top: Path, tmp_path: Path) -> None:
    given = ["advise", "--reward", top / "prt", "--target", top / "target", "--device", "cpu"]
    text = (top / "chats.jsonl").read_bytes()
    (tmp_path / "utf16").write_bytes(text.decode().encode("utf-16"))
    (tmp_path / "latin").write_bytes(text + '{"messages": "é"}'.encode("latin-1"))
    (tmp_path / "folder").mkdir()
    prepare(f"jsonl:{top / 'chats.jsonl'}", tmp_path / "data", downloads=tmp_path, validation=0.36)
    few, nobody = write(tmp_path / "few", *CHATS[:9]), write(tmp_path / "nobody", *(chat("Tom") for _ in range(12)))
    long = write(tmp_path / "long", *CHATS[:9], *(chat("Tom " * 2100, "Tom") for _ in range(5)))
    extra = write(tmp_path / "extra", *CHATS, chat("Tom", f"The {EXTRA} pens"))
    read = write(tmp_path / "read", *CHATS, chat(f"Tom {EXTRA}", "The pens"))
    base = json.loads((top / "ft" / "manifest.json").read_text())["base"]
    other = edited(top / "ft", tmp_path / "other", base=base | {"weights_sha256": "0"})
    backbone = small_clip(tmp_path / "clip", 0)
    images = tuned_clip(tmp_path / "images", backbone)
    chats = top / "chats.jsonl"
    refused: list[tuple[list[object], str]] = [
        (["--data", tmp_path / "data"], "data has 5 validation chats, which say nothing; give 10 or more."),
        (["--data", few], "few has 9 chats, which say nothing; give 10 or more."),
        (
            ["--data", nobody],
            "line 1 of .*nobody cannot be used: it has no turn of the assistant, so nothing to learn; ",
        ),
        (
            ["--data", long],
            "only 9 of 14 chats have a token of the assistant within the first 1024 tokens; give 10 or ",
        ),
        (["--data", tmp_path / "utf16"], "utf16 is in UTF-16; turn it into UTF-8"),
        (["--data", tmp_path / "latin"], "line 15 of .*latin cannot be used: it is no JSON in UTF-8"),
        (["--data", tmp_path / "none"], "there is no file of chats .*none; correct its name."),
        (["--data", tmp_path / "folder"], "folder holds no prepared chats .*name a file of chats, or a data set such"),
        (["--data", extra], r"the chats have the token '<\|extra\|>' .*which not all the models know; leave it out"),
        (["--data", read], r"the chats have the token '<\|extra\|>' .*which not all the models know; leave it out"),
        (["--data", chats, "--finetuned", other], "were tuned from different models; name a run of ft of the reward's"),
        (["--data", chats, "--finetuned", top / "prt"], "holds a reward: method poe does not take it"),
        (["--data", chats, "--finetuned", images], "holds a vision reward; use a language reward on a language model"),
        (["--data", chats, "--target", top / "bytes"], "has another tokenizer than .*take a target with the tokenizer"),
        (["--data", chats, "--base", top / "twin"], "was tuned from source, but the weights of .*twin are others"),
        (["--data", chats, "--precision", "fp8"], "unknown precision 'fp8'"),
        (["--data", chats, "--reward", top / "ft"], "holds a fine-tuned model .*, no reward: method prt does not take"),
        (["--data", chats, "--reward", tmp_path], "there is no reward in "),
        (
            ["--data", chats, "--reward", images, "--target", f"local-dir:{backbone}"],
            "the reward is of images, but .*a ",
        ),
        (
            ["--data", chats, "--reward", images, "--precision", "bf16"],
            "--precision is of language models, but the rew",
        ),
    ]
    for options, sentence in refused:
        code, said, complaint = prt(*given, *options)
        assert (code, said) == (1, ""), complaint
        assert re.search(sentence, complaint.splitlines()[-1]), (sentence, complaint)


def test_a_fine_tuned_model_of_another_template_is_refused(top: Path) -> None:
    reward, finetuned = load_reward(top / "prt"), load_reward(top / "ft", method="poe")
    finetuned.causal.tokenizer.chat_template = str(reward.causal.tokenizer.chat_template) + " "
    with pytest.raises(
        InputError, match="were tuned with different chat templates; name a run of ft with the reward's"
    ):
        ways(str(top / "target"), reward, finetuned, examples(top / "chats.jsonl"))
