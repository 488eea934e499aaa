"""Benchmarks of a target with a tuning on it as text: at strength 0 they are those of the target alone."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.cutting import random_model, sentencepiece
from helpers.harness import ARC, CELL, PROBLEMS, lines, measure, read, tiny

from prt.errors import InputError
from prt.language.models import Causal
from prt.language.text_decode import TextRewarded

__all__ = ["tiny"]  # a fixture
LLAMA2 = sentencepiece()
REWARD, PRETRAINED = (random_model(seed, LLAMA2) for seed in (1, 2))
LINES = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
OPENED = LINES + "{% if add_generation_prompt %}assistant:\n{% endif %}"


def templated(causal: Causal, template: str) -> Causal:
    tokenizer = copy.deepcopy(causal.tokenizer)
    tokenizer.chat_template = template
    return replace(causal, tokenizer=tokenizer)


def problems(folder: Path, **more: Any) -> dict[str, Any]:
    return {"task": "gsm8k", "data": str(lines(folder, PROBLEMS)), "generation": {"max_gen_toks": 30} | more}


def test_answers_are_judged_as_those_of_one_network(tiny: Causal, tmp_path: Path) -> None:
    own = problems(tmp_path / "data")
    alone = measure(tiny, "problems", tmp_path / "alone", **own)
    text = measure(TextRewarded(tiny, REWARD, PRETRAINED, 0.0), "problems", tmp_path / "text", **own)
    assert text["examples"] == alone["examples"] and sum(alone["metrics"].values()) > 0
    said = [[sample["response"] for sample in read(tmp_path / out)[1]] for out in ("alone", "text")]
    assert said[0] == said[1]
    assert {**text["protocol"], "dtype": ""} == {**alone["protocol"], "dtype": ""}
    changed = measure(TextRewarded(tiny, REWARD, PRETRAINED), "problems", tmp_path / "text", **own)
    assert changed["headline"] == alone["headline"]
    assert [sample["response"] for sample in read(tmp_path / "text")[1]] != said[0]


def test_likelihoods_are_judged_as_those_of_one_network(tiny: Causal, tmp_path: Path) -> None:
    data = str(lines(tmp_path / "data", ARC))
    alone = measure(tiny, "arc_easy", tmp_path / "alone", data=data)
    text = measure(TextRewarded(tiny, REWARD, PRETRAINED, 0.0), "arc_easy", tmp_path / "text", data=data)
    assert text["examples"] == alone["examples"]
    for one, other in zip(*(read(tmp_path / out)[1] for out in ("alone", "text")), strict=True):
        assert other["response"] == pytest.approx(one["response"], rel=5e-3)
        assert other["continuations"] == one["continuations"]


def test_a_conversation_is_read_by_each_in_its_own_template(tiny: Causal, tmp_path: Path) -> None:
    own = problems(tmp_path / "data") | {"chat_template": True, "limit": 1}
    with pytest.raises(
        InputError, match=r"tiny \(prt-text: \+1 model1\) has no chat template, and problems is to be asked in one"
    ):
        measure(TextRewarded(templated(tiny, OPENED), REWARD, PRETRAINED), "problems", tmp_path / "out", **own)
    # The target is asked as without a template, and so knows the answer; the sample has what the source reads.
    asked = "{% for m in messages %}{{ m.content }}{% endfor %}"
    rewarded = TextRewarded(templated(tiny, asked), templated(REWARD, OPENED), PRETRAINED, 0.0)
    measure(rewarded, "problems", tmp_path / "out", **own)
    first = read(tmp_path / "out")[1][0]
    assert first["prompt"] == f"user: Question: {PROBLEMS[0]['question']}\nAnswer:\nassistant:\n"
    assert first["response"] == " Tom has 7.\n#### 7"


def test_what_cannot_be_asked_is_refused_with_its_place(tiny: Causal, tmp_path: Path) -> None:
    rewarded = TextRewarded(tiny, REWARD, PRETRAINED)
    with pytest.raises(InputError, match="problems is to be answered with 'top_k', which a target of another"):
        measure(rewarded, "problems", tmp_path / "out", **problems(tmp_path / "data", top_k=5))
    long = problems(tmp_path / "data", max_gen_toks=500)  # the source's context is of 128
    with pytest.raises(InputError, match=r"^problems: example 0 of gsm8k cannot be asked of tiny \(prt-text: .*128"):
        measure(rewarded, "problems", tmp_path / "out", **long)
    assert not (tmp_path / "out" / "result.json").exists()
    assert CELL.method == "pretrained"
