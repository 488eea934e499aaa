"""Benchmarks through lm-eval: the values of each are those of a count by hand."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lm_eval.tasks
import pytest
import torch
import yaml
from helpers.damage import redone
from helpers.harness import (
    ARC,
    CELL,
    INSTRUCTIONS,
    OBEYED,
    PROBLEMS,
    PROGRAMS,
    SAID,
    TASKS,
    WRITTEN,
    hub,
    lines,
    mbpp_prompt,
    measure,
    read,
    tiny,
)
from helpers.small import llama, tuned_llama
from transformers import LlamaForCausalLM

from prt.errors import InputError
from prt.language.models import Causal

__all__ = ["tiny"]  # a fixture


def test_gsm8k(tiny: Causal, tmp_path: Path) -> None:
    data = lines(tmp_path / "data", PROBLEMS)
    own = {"task": "gsm8k", "data": str(data), "generation": {"max_gen_toks": 30}}
    measure(tiny, "problems", tmp_path / "out", **own)
    result, samples = read(tmp_path / "out")
    assert result["headline"] == "exact_match/strict-match"
    assert result["examples"] == {"exact_match/strict-match": [1, 0, 0], "exact_match/flexible-extract": [1, 1, 0]}
    assert result["metrics"] == {"exact_match/strict-match": 1 / 3, "exact_match/flexible-extract": 2 / 3}
    assert result["cell"] == CELL.model_dump()
    assert result["benchmark"] == "problems"
    assert (result["protocol"]["shots"], result["protocol"]["chat_template"]) == (0, False)
    strict = [sample for sample in samples if sample["filter"] == "strict-match"]
    assert strict[0]["prompt"] == f"Question: {PROBLEMS[0]['question']}\nAnswer:"
    assert [sample["response"] for sample in strict] == SAID
    assert [sample["filtered"] for sample in strict] == ["7", "[invalid]", "9"]


def test_ifeval(tiny: Causal, tmp_path: Path) -> None:
    """Against a count by hand: what is followed of 2, 1 and 3 instructions, strictly and loosely."""
    data = lines(tmp_path / "data", INSTRUCTIONS)
    measure(tiny, "instructions", tmp_path, task="ifeval", data=str(data), generation={"max_gen_toks": 30})
    result, samples = read(tmp_path)
    data = lines(tmp_path / "hub", INSTRUCTIONS, "ifeval_input_data.jsonl")
    (data / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    same = measure(tiny, "ifeval", tmp_path / "out", data=str(data), generation={"max_gen_toks": 30})
    assert same["examples"] == result["examples"]
    assert [sample["response"] for sample in samples] == OBEYED
    strict, loose = [[True, True], [False], [True, False, True]], [[True, True], [True], [True, False, True]]
    assert [sample["metrics"]["inst_level_strict_acc"] for sample in samples] == strict
    assert [sample["metrics"]["inst_level_loose_acc"] for sample in samples] == loose
    four = {
        "prompt_level_strict_acc": 1 / 3,
        "inst_level_strict_acc": 4 / 6,
        "prompt_level_loose_acc": 2 / 3,
        "inst_level_loose_acc": 5 / 6,
    }
    assert result["metrics"] == pytest.approx(four | {"mean": sum(four.values()) / 4})
    assert result["headline"] == "mean"
    # 4 of 6 instructions: 2/3 and, for each example, half of what it is above or below 2/3 of its own.
    assert result["examples"]["inst_level_strict_acc"] == pytest.approx([1, 1 / 3, 2 / 3])
    assert result["examples"]["mean"][1] == pytest.approx((0 + 1 / 3 + 1 + 11 / 12) / 4)


def test_humaneval(tiny: Causal, tmp_path: Path) -> None:
    data = str(lines(tmp_path / "data", PROGRAMS))
    with pytest.raises(InputError, match="humaneval runs programs that a model wrote; allow that with `unsafe_code"):
        measure(tiny, "humaneval", tmp_path, data=data)
    assert not (tmp_path / "result.json").exists()
    measure(tiny, "humaneval", tmp_path, data=data, unsafe_code=True, generation={"max_gen_toks": 30})
    result, samples = read(tmp_path)
    assert [sample["filtered"] for sample in samples] == [
        [program["prompt"] + said] for program, said in zip(PROGRAMS, WRITTEN, strict=True)
    ]
    assert result["examples"] == {"pass@1": [1, 0, 1]}  # 2 · 2 = 2², but not 2 · 3
    assert result["metrics"] == {"pass@1": 2 / 3}


def test_mbpp(tiny: Causal, tmp_path: Path) -> None:
    data = str(lines(tmp_path / "data", TASKS))
    own = {"data": data, "generation": {"max_gen_toks": 40}}
    measure(tiny, "mbpp", tmp_path, unsafe_code=True, shots=0, **own)
    result, samples = read(tmp_path)
    assert [sample["prompt"] for sample in samples] == [mbpp_prompt(task) for task in TASKS]
    assert result["examples"] == {"pass_at_1": [1, 0]}  # leaving early is no success
    measure(tiny, "mbpp", tmp_path, unsafe_code=True, limit=1, **own)
    result, samples = read(tmp_path)
    assert result["protocol"]["shots"] == 3
    assert samples[0]["prompt"].count("[DONE]") == 3
    assert samples[0]["prompt"].endswith(mbpp_prompt(TASKS[0]))


def likelihoods(causal: Causal, prompt: str, continuations: Sequence[str]) -> list[float]:
    """One at a time, without lm-eval."""
    found = []
    for continuation in continuations:
        start, whole = (causal.tokenizer.encode(text) for text in (prompt, prompt + continuation))
        with torch.no_grad():
            logs = causal.model(torch.tensor([whole])).logits[0].log_softmax(-1)
        found.append(sum(float(logs[i - 1, whole[i]]) for i in range(len(start), len(whole))))
    return found


def chosen(values: Sequence[float]) -> int:
    return max(range(len(values)), key=lambda i: values[i])


def test_arc(tiny: Causal, tmp_path: Path) -> None:
    """acc and acc_norm against log-likelihoods without lm-eval; from the hub's layout and from a plain folder alike."""
    splits = {"train": ARC[:1], "validation": ARC[:1], "test": ARC}
    data = hub(tmp_path / "hub", {"ARC-Easy": splits, "ARC-Challenge": splits})
    plain = lines(tmp_path / "plain", ARC)
    for benchmark, folder in (("arc_easy", data), ("arc_challenge", data), ("arc_easy", plain)):
        measure(tiny, benchmark, tmp_path / "out", data=str(folder), batch=4)
        result, samples = read(tmp_path / "out")
        right, long = [], []
        for row, sample in zip(ARC, samples, strict=True):
            choices: Any = row["choices"]
            values = likelihoods(
                tiny, f"Question: {row['question']}\nAnswer:", [" " + text for text in choices["text"]]
            )
            assert sample["response"] == pytest.approx(values, abs=1e-4)
            gold = choices["label"].index(row["answerKey"])
            right.append(float(chosen(values) == gold))
            long.append(float(chosen([v / len(t) for v, t in zip(values, choices["text"], strict=True)]) == gold))
        assert result["examples"] == {"acc": right, "acc_norm": long}
        assert result["headline"] == "acc_norm"


def test_hellaswag_and_truthfulqa(tiny: Causal, tmp_path: Path) -> None:
    row = {"ind": 1, "activity_label": "Rain", "ctx_a": "It rains.", "ctx_b": "the fox", "ctx": "It rains. the fox"}
    row |= {
        "endings": ["is [title] wet.", "flies.", "is hot.", "barks."],
        "source_id": "x",
        "split": "val",
        "label": "0",
    }
    row |= {"split_type": "indomain"}
    data = hub(tmp_path / "h", {"default": {"train": [row], "validation": [row, row | {"label": "1"}], "test": [row]}})
    result = measure(tiny, "hellaswag", tmp_path / "out", data=str(data))
    _, samples = read(tmp_path / "out")
    assert samples[0]["prompt"] == "Rain: It rains. The fox"
    assert samples[0]["continuations"][0] == " is. wet."
    assert sum(result["examples"]["acc"]) <= 1  # one question with two different answers

    asked = {"question": "Do cats bark?", "mc1_targets": {"choices": ["No.", "Yes."], "labels": [1, 0]}}
    asked |= {"mc2_targets": {"choices": ["No.", "Never.", "Yes."], "labels": [1, 1, 0]}}
    data = hub(tmp_path / "t", {"multiple_choice": {"validation": [asked]}})
    result = measure(tiny, "truthfulqa", tmp_path / "out", data=str(data))
    _, samples = read(tmp_path / "out")
    assert samples[0]["prompt"].endswith("Q: Do cats bark?\nA:")
    values = likelihoods(tiny, samples[0]["prompt"], [" No.", " Never.", " Yes."])
    weights = [math.exp(value) for value in values]
    assert result["metrics"] == pytest.approx({"acc": (weights[0] + weights[1]) / sum(weights)}, rel=1e-3)


def subjects(folder: str) -> list[str]:
    """The configurations, or categories, of the tasks of lm-eval in a folder."""
    files = sorted((Path(lm_eval.tasks.__file__).parent / folder).glob("mmlu_*.yaml"))
    return [yaml.safe_load(file.read_text().replace("!function", ""))["dataset_name"] for file in files]


def test_mmlu(tiny: Causal, tmp_path: Path) -> None:
    """Subjects of unequal size: the metric is lm-eval's own, weighted by size."""
    row = {"subject": "", "choices": ["1", "2", "3", "4"]}
    configs = {}
    for i, subject in enumerate(subjects("mmlu/default")):
        rows = [row | {"question": f"{subject} {j}?", "answer": (i + j) % 4} for j in range(1 + i % 2)]
        configs[subject] = {"test": rows, "dev": rows[:1]}
    data = hub(tmp_path / "data", configs)
    result = measure(tiny, "mmlu", tmp_path / "out", data=str(data))
    assert len(result["examples"]["acc"]) == 57 + 28
    _, samples = read(tmp_path / "out")
    first = next(sample for sample in samples if sample["task"] == "mmlu_anatomy")
    assert first["prompt"] == (
        "The following are multiple choice questions (with answers) about anatomy.\n\n"
        "anatomy 0?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer:"
    )
    assert result["metrics"]["acc"] == sum(sample["metrics"]["acc"] for sample in samples) / 85
    with pytest.raises(
        InputError, match=r"mmlu has several tasks, each with data of its own: .* the layout of its hub"
    ):
        measure(tiny, "mmlu", tmp_path / "out", data=str(lines(tmp_path / "plain", configs["anatomy"]["test"])))


def test_mmlu_pro(tiny: Causal, tmp_path: Path) -> None:
    """All categories lie in one table; an answer with its reasoning is written."""
    folder = Path(lm_eval.tasks.__file__).parent / "mmlu_pro"
    tasks = [
        yaml.safe_load(file.read_text().replace("!function", "")) for file in sorted(folder.glob("mmlu_pro_*.yaml"))
    ]
    categories = [task["task_alias"].replace("_", " ") for task in tasks]
    row = {"question_id": 1, "options": ["1", "2"], "answer": "B", "answer_index": 1, "cot_content": "A: Let's think."}
    rows = [row | {"question": f"{name}?", "category": name, "src": ""} for name in categories]
    data = hub(tmp_path / "data", {"default": {"test": rows, "validation": rows}})
    own = {"data": str(data), "generation": {"max_gen_toks": 4}}
    result = measure(tiny, "mmlu_pro", tmp_path / "out", **own)
    _, samples = read(tmp_path / "out")
    assert len(samples) == len(result["examples"]["exact_match"]) == 14
    assert samples[0]["prompt"].endswith("Question:\nbiology?\nOptions:\nA. 1\nB. 2\nAnswer: Let's think step by step.")


def test_no_sandbox(tiny: Causal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Then nothing is run, and nothing written."""
    monkeypatch.setattr("prt.sandbox.programs._folders", lambda: [str(tmp_path / "missing")])
    own = {"data": str(lines(tmp_path / "data", PROGRAMS)), "generation": {"max_gen_toks": 4}}
    with pytest.raises(InputError, match=r"^this machine allows no sandbox"):
        measure(tiny, "humaneval", tmp_path / "out", unsafe_code=True, **own)
    assert not (tmp_path / "out").exists()


def test_a_broken_model(tiny: Causal, tmp_path: Path) -> None:
    broken = LlamaForCausalLM(tiny.model.config)
    torch.nn.init.constant_(broken.model.norm.weight, torch.nan)
    with pytest.raises(InputError, match="broken gives NaN on arc_easy"):
        measure(Causal("broken", broken, tiny.tokenizer), "arc_easy", tmp_path / "out", data=str(lines(tmp_path, ARC)))


def test_a_variant_of_a_reward_is_measured_as_such(prt: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    target, data = llama(tmp_path / "llama", 0), lines(tmp_path / "data", ARC)
    reward = tuned_llama(tmp_path / "reward", llama(tmp_path / "base", 1))
    given = ["evaluate", "arc_easy", "--reward", reward, "--target", target, "--device", "cpu", "--set", f"data={data}"]
    found = {}
    for variant in (None, "beside"):
        redone(reward, "manifest.json", lambda m: m.update({"variant": variant} if variant else {}))  # noqa: B023
        code, _, complaint = prt(*given, "--out", tmp_path / "out")
        assert code == 0, complaint
        found[variant] = read(tmp_path / "out")[0]
        assert found[variant]["cell"]["variant"] == variant
    assert found[None]["metrics"] == found["beside"]["metrics"]


def test_the_same_again(tiny: Causal, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Two runs write the same bytes; the log has lines, and no bars."""
    data = str(lines(tmp_path / "data", PROBLEMS))
    for name in ("one", "two"):
        measure(tiny, "gsm8k", tmp_path / name, data=data, generation={"max_gen_toks": 5})
    for file in ("result.json", "samples.jsonl"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    printed = capfd.readouterr()
    assert printed.out == ""
    assert all(line.startswith("gsm8k tiny") for line in printed.err.splitlines())
    less = measure(tiny, "gsm8k", tmp_path / "two", data=data, generation={"max_gen_toks": 5}, limit=2)
    assert less["documents"] != json.loads((tmp_path / "one" / "result.json").read_text())["documents"]
