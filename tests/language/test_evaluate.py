"""Benchmarks through lm-eval, on tiny models and local data in each benchmark's own columns."""

import copy
import hashlib
import json
import math
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import lm_eval.tasks
import pytest
import torch
import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from prt.errors import InputError
from prt.language import tasks as benchmarks
from prt.language.evaluate import evaluate
from prt.language.models import Causal
from prt.sandbox.programs import CodeEval, run

CELL = {
    "target": "tiny",
    "method": "pretrained",
    "source": None,
    "alpha": None,
    "lora": False,
    "strength": 1.0,
    "seed": 0,
}

PROBLEMS = [
    {"question": "Tom has 3 cakes. He bakes 4. How many?", "answer": "Tom has 3 + 4 = 7 cakes.\n#### 7"},
    {"question": "Ann has 9 pens. She loses 5. How many?", "answer": "Ann has 9 - 5 = 4 pens.\n#### 4"},
    {"question": "Bob has 2 cats. He gets 6. How many?", "answer": "Bob has 2 + 6 = 8 cats.\n#### 8"},
]
SAID = [" Tom has 7.\n#### 7", " Ann has 4 pens.", " Bob has 9.\n#### 9"]  # right; right for one filter; wrong

INSTRUCTIONS = [
    {
        "key": 1,
        "prompt": "Tell of rain. Use no commas, and two sentences at least.",
        "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_sentences"],
        "kwargs": [{}, {"relation": "at least", "num_sentences": 2}],
    },
    {
        "key": 2,
        "prompt": "Tell of Mr. Fox in lower case.",
        "instruction_id_list": ["change_case:english_lowercase"],
        "kwargs": [{}],
    },
    {
        "key": 3,
        "prompt": "Shout about the sun, with few words in capitals.",
        "instruction_id_list": ["change_case:capital_word_frequency", "punctuation:no_comma", "keywords:existence"],
        "kwargs": [{"capital_relation": "at least", "capital_frequency": 2}, {}, {"keywords": ["sun"]}],
    },
]
OBEYED = [
    "It rains. Mr. Fox is wet.",  # both: "Mr." ends no sentence
    "*A fox.\nthe fox is here.",  # loosely, without its first line
    "THE SUN IS HOT, so hot.",  # the first and, ignoring case, the third
]

PROGRAMS = [
    {
        "task_id": "Own/0",
        "prompt": "def add(a, b):\n",
        "canonical_solution": "    return a + b\n",
        "test": "def check(f):\n    assert f(2, 3) == 5\n",
        "entry_point": "add",
    },
    {
        "task_id": "Own/1",
        "prompt": "def twice(a):\n",
        "canonical_solution": "    return 2 * a\n",
        "test": "def check(f):\n    assert f(2) == 4\n    assert f(3) == 6\n",
        "entry_point": "twice",
    },
    {
        "task_id": "Own/2",
        "prompt": "def first(a):\n",
        "canonical_solution": "    return a[0]\n",
        "test": "def check(f):\n    assert f([7, 8]) == 7\n",
        "entry_point": "first",
    },
]
WRITTEN = ["    return a + b\n", "    return a * a\n", "    return a[0]\n"]
TASKS = [
    {
        "task_id": 11,
        "text": "Write a function to add one.",
        "code": "def inc(a):\n    return a + 1",
        "test_list": ["assert inc(1) == 2", "assert inc(2) == 3", "assert inc(0) == 1"],
    },
    {
        "task_id": 12,
        "text": "Write a function to halve.",
        "code": "def halve(a):\n    return a / 2",
        "test_list": ["assert halve(2) == 1", "assert halve(4) == 2", "assert halve(0) == 0"],
    },
]
SOLVED = ["def inc(a):\n    return a + 1\n[DONE]", "import os\nos._exit(0)\n[DONE]"]


def mbpp_prompt(task: dict[str, Any]) -> str:
    return (
        f"You are an expert Python programmer, and here is your task: {task['text']} Your code should pass these tests:"
        f"\n\n{task['test_list'][0]}\n{task['test_list'][1]}\n{task['test_list'][2]}\n[BEGIN]\n"
    )


def conversations() -> list[tuple[str, str]]:
    """(prompt, what the model is to say)."""
    gsm8k = [(f"Question: {p['question']}\nAnswer:", said) for p, said in zip(PROBLEMS, SAID, strict=True)]
    ifeval = [(p["prompt"], said) for p, said in zip(INSTRUCTIONS, OBEYED, strict=True)]
    humaneval = [(p["prompt"], said) for p, said in zip(PROGRAMS, WRITTEN, strict=True)]
    mbpp = [(mbpp_prompt(p), said) for p, said in zip(TASKS, SOLVED, strict=True)]
    return [*gsm8k, *ifeval, *humaneval, *mbpp]


def tokenizer_of(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=700, special_tokens=["<eos>"], initial_alphabet=alphabet)
    )
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<eos>", pad_token="<eos>")


@pytest.fixture(scope="module")
def tiny() -> Causal:
    """A small Llama that has learnt the conversations by heart, and gives its own answers."""
    torch.manual_seed(0)
    tokenizer = tokenizer_of([a + b for a, b in conversations()])
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=2048,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    prompts = [tokenizer.encode(prompt) for prompt, _ in conversations()]
    rows = [p + tokenizer.encode(said) + [0] for p, (_, said) in zip(prompts, conversations(), strict=True)]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    labels = torch.tensor(
        [[-100] * len(p) + row[len(p) :] + [-100] * (longest - len(row)) for p, row in zip(prompts, rows, strict=True)]
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(200):
        loss = model(input_ids=ids, labels=labels).loss
        if loss < 0.01:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.05
    assert model.generation_config is not None
    model.generation_config.max_new_tokens = 1  # as Qwen2.5 has one: the benchmark's own must win
    return Causal("tiny", model.eval(), tokenizer)


def lines(folder: Path, rows: Sequence[dict[str, Any]], name: str = "test.jsonl") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def read(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    return json.loads((folder / "result.json").read_text()), samples


def measure(causal: Causal, benchmark: str, out: Path, unsafe_code: bool = False, **settings: Any) -> dict[str, Any]:
    return evaluate(causal, benchmark, settings, cell=CELL, out=out, unsafe_code=unsafe_code)


def test_gsm8k(tiny: Causal, tmp_path: Path) -> None:
    data = lines(tmp_path / "data", PROBLEMS)
    own = {"task": "gsm8k", "data": str(data), "generation": {"max_gen_toks": 30}}
    measure(tiny, "problems", tmp_path / "out", **own)
    result, samples = read(tmp_path / "out")
    assert result["headline"] == "exact_match/strict-match"
    assert result["examples"] == {"exact_match/strict-match": [1, 0, 0], "exact_match/flexible-extract": [1, 1, 0]}
    assert result["metrics"] == {"exact_match/strict-match": 1 / 3, "exact_match/flexible-extract": 2 / 3}
    assert result["cell"] == CELL
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


CONTAINED = {
    "the network": "import socket; socket.create_connection(('127.0.0.1', PORT), 1)",
    "a file elsewhere": "open('FOLDER/made', 'w')",
    "reading elsewhere": "open('FOLDER/secret').read()",
    "the interpreter's files": "import sys; open(sys.prefix + '/made', 'w')",
    "forking": "import os; os.fork()",
    "threads": "import threading; threading.Thread(target=print).start()",
    "other processes": "import os; os.kill(PARENT, 0)",
    "the environment": "import os; assert 'PATH' in os.environ",
    "memory": "x = bytearray(4 << 30)",
    "a large file": "open('large', 'w').write('x' * (17 << 20))",
    "leaving early": "import sys; sys.exit(0)",
    "leaving at once": "import os; os._exit(0)",
    "ending itself": "import os, signal; os.kill(0, signal.SIGKILL); raise SystemExit",
    "a wrong answer": "assert 1 + 1 == 3",
}


@pytest.mark.parametrize("what", CONTAINED)
def test_programs_are_contained(what: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    with socket.create_server(("127.0.0.1", 0)) as server:
        program = CONTAINED[what].replace("PORT", str(server.getsockname()[1]))
        program = program.replace("FOLDER", str(tmp_path)).replace("PARENT", str(os.getpid()))
        assert run(program).startswith("failed")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["secret"]


def test_programs_that_never_end() -> None:
    start = time.monotonic()
    assert run("while True: pass", seconds=0.5) == "failed: TimeoutError: not done within 0.5 seconds"
    deaf = "while True:\n try:\n  while True: pass\n except BaseException: pass"
    assert run(deaf, seconds=0.5).startswith("failed")
    assert time.monotonic() - start < 15


def test_programs_that_work() -> None:
    good = "import os\nopen('note', 'w').write('x')\nassert open('note').read() == 'x' and os.getcwd() == '/sandbox'"
    assert run(good) == "passed"
    assert run("import os\nassert os.listdir() == []") == "passed"  # nothing is left by the one before
    programs = [["def f(): return 1", "def f(): return 2", "def f(): return 3"], ["def f(): return 2"] * 3]
    shares, said = CodeEval().compute(["assert f() > 1", "assert f() == 1"], programs, [1, 2, 5])
    assert shares == {"pass@1": pytest.approx(1 / 3), "pass@2": 0.5}  # of three programs, two are right: 1 − 0/3
    assert said[0] == ["failed: AssertionError: ", "passed", "passed"]


def test_no_sandbox(tiny: Causal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where the kernel says no (here: to a folder that cannot be its root), nothing is run."""
    monkeypatch.setattr("prt.sandbox.programs._folders", lambda: [str(tmp_path / "missing")])
    with pytest.raises(InputError, match=r"allows no sandbox .*No such file.*user.max_user_namespaces"):
        run("pass")
    own = {"data": str(lines(tmp_path / "data", PROGRAMS)), "generation": {"max_gen_toks": 4}}
    with pytest.raises(InputError, match=r"^this machine allows no sandbox"):
        measure(tiny, "humaneval", tmp_path / "out", unsafe_code=True, **own)
    assert not (tmp_path / "out").exists()


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


def hub(folder: Path, configs: dict[str, dict[str, list[dict[str, Any]]]]) -> Path:
    """Data in the layout of a repository of the hub: a README that names the files of each configuration and split."""
    said = []
    for config, splits in configs.items():
        for split, rows in splits.items():
            lines(folder / config, rows, f"{split}.jsonl")
        said.append(
            {"config_name": config, "data_files": [{"split": s, "path": f"{config}/{s}.jsonl"} for s in splits]}
        )
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': said})}---\n# Data\n")
    return folder


def question(text: str, answers: dict[str, str], key: str) -> dict[str, Any]:
    choices = {"text": list(answers.values()), "label": list(answers)}
    return {"id": text, "question": text, "choices": choices, "answerKey": key}


ARC = [
    question("What falls?", {"A": "rain", "B": "the sun"}, "A"),
    question("What barks?", {"1": "a cat", "2": "a dog"}, "2"),
    question("What swims?", {"A": "a very big stone", "B": "fish"}, "B"),
]


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


def test_gpqa_asks_in_the_same_order_always(tiny: Causal, tmp_path: Path) -> None:
    rows = [
        {"Question": f" Which is {i}?", "Correct Answer": str(i)}
        | {f"Incorrect Answer {j}": str(i + j) for j in (1, 2, 3)}
        for i in range(9)
    ]
    data = hub(tmp_path / "data", {"gpqa_diamond": {"train": rows}})
    prompts, documents = [], []
    for batch in (1, 2):  # with another batch, lm-eval's task is made anew
        random.seed(batch)
        result = measure(tiny, "gpqa_diamond", tmp_path / "out", data=str(data), batch=batch)
        _, samples = read(tmp_path / "out")
        prompts.append([sample["prompt"] for sample in samples])
        documents.append(result["documents"])
        for row, sample in zip(rows, samples, strict=True):  # what is judged is what was asked
            assert f"{sample['target']} {row['Correct Answer']}\n" in sample["prompt"]
    assert prompts[0] == prompts[1]
    assert documents[0] == documents[1]
    assert len({sample["target"] for sample in samples}) > 1


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


def test_worked_examples(tiny: Causal, tmp_path: Path) -> None:
    data = lines(lines(tmp_path / "data", PROBLEMS[:1]), PROBLEMS[1:], "train.jsonl")
    measure(tiny, "gsm8k", tmp_path / "out", data=str(data), shots=2, generation={"max_gen_toks": 4})
    result, samples = read(tmp_path / "out")
    shown = [f"Question: {p['question']}\nAnswer: {p['answer']}\n\n" for p in PROBLEMS[1:]]
    asked = f"Question: {PROBLEMS[0]['question']}\nAnswer:"
    assert samples[0]["prompt"] in (shown[0] + shown[1] + asked, shown[1] + shown[0] + asked)
    assert result["protocol"]["shots"] == 2


def test_chat_template(tiny: Causal, tmp_path: Path) -> None:
    own: dict[str, Any] = {"data": str(lines(tmp_path / "data", PROBLEMS)), "chat_template": True, "limit": 2}
    own |= {"generation": {"max_gen_toks": 4}}
    with pytest.raises(
        InputError, match="tiny has no chat template, and gsm8k is to be asked in one; set chat_template"
    ):
        measure(tiny, "gsm8k", tmp_path / "out", **own)
    tokenizer = copy.deepcopy(tiny.tokenizer)
    tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}<assistant>"
    measure(Causal("chatty", tiny.model, tokenizer), "gsm8k", tmp_path / "out", **own)
    result, samples = read(tmp_path / "out")
    assert samples[0]["prompt"] == f"<user>Question: {PROBLEMS[0]['question']}\nAnswer:\n<assistant>"
    assert len(result["examples"]["exact_match/strict-match"]) == result["protocol"]["limit"] == 2


def test_what_is_too_long_is_not_cut(tiny: Causal, tmp_path: Path) -> None:
    problems, questions = lines(tmp_path / "gsm8k", PROBLEMS), lines(tmp_path / "arc", ARC)
    prompt = max(len(tiny.tokenizer.encode(f"Question: {p['question']}\nAnswer:")) for p in PROBLEMS)
    room = tiny.model.config.max_position_embeddings - prompt
    measure(
        tiny, "gsm8k", tmp_path / "fits", data=str(problems), limit=1, generation={"max_gen_toks": room, "until": [" "]}
    )
    said = (
        rf"gsm8k: example \d of gsm8k has {prompt} tokens, its answer wants {room + 1} more, and the context of tiny is"
    )
    with pytest.raises(InputError, match=said):
        measure(tiny, "gsm8k", tmp_path / "out", data=str(problems), generation={"max_gen_toks": room + 1})
    config = copy.deepcopy(tiny.model.config)
    short = Causal("short", LlamaForCausalLM(config), tiny.tokenizer)
    whole = [
        len(tiny.tokenizer.encode(f"Question: {r['question']}\nAnswer: {t}")) for r in ARC for t in r["choices"]["text"]
    ]
    short.model.config.max_position_embeddings = max(whole) - 1  # the last token is predicted, not read
    measure(short, "arc_easy", tmp_path / "fits", data=str(questions))
    short.model.config.max_position_embeddings = max(whole) - 2
    with pytest.raises(InputError, match=r"arc_easy: example 2 of arc_easy has .* and the context of short is"):
        measure(short, "arc_easy", tmp_path / "out", data=str(questions))
    assert not (tmp_path / "out").exists()


def test_a_broken_model(tiny: Causal, tmp_path: Path) -> None:
    broken = LlamaForCausalLM(tiny.model.config)
    torch.nn.init.constant_(broken.model.norm.weight, torch.nan)
    with pytest.raises(InputError, match="broken gives NaN on arc_easy"):
        measure(Causal("broken", broken, tiny.tokenizer), "arc_easy", tmp_path / "out", data=str(lines(tmp_path, ARC)))


def test_a_task_file_of_ones_own(tiny: Causal, tmp_path: Path) -> None:
    lines(tmp_path / "data", [{"asked": p["question"], "told": p["answer"]} for p in PROBLEMS], "sums.jsonl")
    last = [{"function": "regex", "regex_pattern": "#### (.*)"}, {"function": "take_first"}]
    task = {
        "task": "sums",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "data" / "sums.jsonl")}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "Question: {{asked}}\nAnswer:",
        "doc_to_target": "{{told.split('#### ')[1]}}",
        "generation_kwargs": {"until": ["\n\n"], "max_gen_toks": 30, "do_sample": False},
        "filter_list": [{"name": "last", "filter": last}],
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }
    file = tmp_path / "tasks" / "sums.yaml"
    file.parent.mkdir()
    file.write_text(yaml.safe_dump(task))
    result = measure(tiny, "sums", tmp_path / "out", task=str(file))
    assert (result["headline"], result["examples"]) == ("exact_match", {"exact_match": [1, 0, 0]})
    with pytest.raises(InputError, match="sums has no metric 'f1'; its metrics are exact_match"):
        measure(tiny, "sums", tmp_path / "out", task=str(file), headline="f1")
    with pytest.raises(InputError, match=r"the task file .*sum.yaml of the benchmark sums does not exist"):
        measure(tiny, "sums", tmp_path / "out", task=str(file.with_name("sum.yaml")))
    (file.parent / "code.yaml").write_text(yaml.safe_dump(task | {"task": "code", "unsafe_code": True}))
    with pytest.raises(InputError, match="code runs programs that a model wrote"):
        measure(tiny, "code", tmp_path / "out", task=str(file.with_name("code.yaml")))
    perplexity = {"metric": "bleu", "aggregation": "bleu", "higher_is_better": True}
    (file.parent / "bleu.yaml").write_text(yaml.safe_dump(task | {"task": "bleu", "metric_list": [perplexity]}))
    with pytest.raises(InputError, match="the metric bleu of bleu is no mean over its examples"):
        measure(tiny, "bleu", tmp_path / "out", task=str(file.with_name("bleu.yaml")))


def test_bad_input(tiny: Causal, tmp_path: Path) -> None:
    data = str(lines(tmp_path / "data", PROBLEMS))
    out = tmp_path / "out"
    with pytest.raises(InputError, match="unknown benchmark 'gsm8': did you mean 'gsm8k'"):
        measure(tiny, "gsm8", out)
    with pytest.raises(InputError, match="unknown benchmark 'gsmk8': did you mean 'gsm8k'"):
        measure(tiny, "mine", out, task="gsmk8")
    with pytest.raises(InputError, match="unknown setting of the benchmark gsm8k, 'shot': did you mean 'shots'"):
        measure(tiny, "gsm8k", out, shot=5)
    with pytest.raises(InputError, match="the data of gsm8k are missing: fetch them"):
        measure(tiny, "gsm8k", out)
    with pytest.raises(InputError, match=r"the folder .*nowhere with the data of gsm8k does not exist"):
        measure(tiny, "gsm8k", out, data=str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match=r"the data of ifeval in .* cannot be read .*test.jsonl"):
        measure(tiny, "ifeval", out, data=data)  # other columns
    with pytest.raises(InputError, match=r"the data of gsm8k in .* cannot be read \(.*question"):
        measure(tiny, "gsm8k", out, data=str(lines(tmp_path / "columns", INSTRUCTIONS)))
    lines(tmp_path / "unknown", [INSTRUCTIONS[0] | {"instruction_id_list": ["punctuation:none"], "kwargs": [{}]}])
    with pytest.raises(InputError, match=r"the data of ifeval in .* cannot be read \(KeyError: 'punctuation:none'\)"):
        measure(tiny, "ifeval", out, data=str(tmp_path / "unknown"))
    with pytest.raises(InputError, match=r"the data of gsm8k in .* cannot be read"):
        measure(tiny, "gsm8k", out, data=str(lines(tmp_path / "unnamed", PROBLEMS, "train.jsonl")))
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "test.jsonl").write_text('{"question": "1", "answer"')
    with pytest.raises(InputError, match=r"the data of gsm8k in .* cannot be read"):
        measure(tiny, "gsm8k", out, data=str(tmp_path / "cut"))
    with pytest.raises(InputError, match="arc_easy writes no answers, it compares likelihoods; leave out its `gener"):
        measure(tiny, "arc_easy", out, data=str(lines(tmp_path / "arc", ARC)), generation={"max_gen_toks": 5})
    assert not out.exists()


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


def test_the_catalogue() -> None:
    """Every fact is there, and lm-eval has every task."""
    assert len(benchmarks.catalogue()) == 11
    for name, facts in benchmarks.catalogue().items():
        assert facts.keys() >= {"folder", "lm_eval", "headline", "hub"}, name
        assert facts["hub"].keys() == {"repository", "licence", "gated"}
        folder = Path(lm_eval.tasks.__file__).parent / facts["folder"]
        index = lm_eval.tasks.TaskManager(include_path=str(folder), include_defaults=False).task_index
        assert facts["lm_eval"] in index, name
        assert benchmarks.settings(name, {})["shots"] == (3 if name == "mbpp" else 0)
    place = benchmarks.folder("mine", {"task": "gpqa_diamond"}, Path("downloads"))
    assert place == Path("downloads/benchmarks/Idavidrein--gpqa")
    assert benchmarks.folder("gsm8k", {"data": "here"}, Path("downloads")) == Path("here")


class Hub(BaseHTTPRequestHandler):
    """Serves one data set repository as the Hugging Face hub does, and another that is gated."""

    COMMIT = "0123456789abcdef0123456789abcdef01234567"
    FILES: ClassVar[dict[str, bytes]] = {
        "README.md": b"---\nconfigs:\n- config_name: main\n  data_files: [{split: test, path: main/test.jsonl}]\n---\n",
        "main/test.jsonl": "".join(json.dumps(row) + "\n" for row in PROBLEMS).encode(),
        "data.tar": b"all of it again",
    }
    asked: ClassVar[list[str]] = []

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        self.asked.append(path)
        kind, code, content = "application/json", 200, b""
        if "Idavidrein" in path:
            code = 403
        elif path.startswith("/api/datasets/openai/gsm8k/tree/"):
            listed = [{"type": "file", "path": f, "size": len(c), "oid": "0"} for f, c in self.FILES.items()]
            content = json.dumps(listed).encode()
        elif path.startswith("/api/datasets/openai/gsm8k"):
            siblings = [{"rfilename": file} for file in self.FILES]
            content = json.dumps({"_id": "0", "id": "openai/gsm8k", "sha": self.COMMIT, "siblings": siblings}).encode()
        else:
            kind, content = "application/octet-stream", self.FILES[path.split(f"/resolve/{self.COMMIT}/")[1]]
        self.send_response(code)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Type", kind)
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", self.COMMIT)
        if code == 403:
            self.send_header("X-Error-Code", "GatedRepo")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


def test_fetching(tiny: Causal, tmp_path: Path) -> None:
    """A repository becomes a folder, once, and is measured on without a network; a gated one says how to get it."""
    program = """
import sys
from pathlib import Path
from prt.errors import InputError
from prt.language.tasks import fetch
for name in sys.argv[2:]:
    try:
        print(fetch(name, {}, Path(sys.argv[1])))
    except InputError as error:
        print(error)
"""

    def fetch(endpoint: str, *names: str) -> list[str]:
        settings = {"HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hub")}
        command = [sys.executable, "-c", program, str(tmp_path), *names]
        done = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    place = tmp_path / "benchmarks" / "openai--gsm8k"
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        said = fetch(f"http://127.0.0.1:{server.server_port}", "gsm8k", "gpqa_diamond")
        server.shutdown()
    assert said[0] == str(place)
    assert said[1].startswith(
        "the data of gpqa_diamond are gated: accept the terms at https://huggingface.co/datasets/Ida"
    )
    assert sorted(path.name for path in place.iterdir()) == [".fetched.json", "README.md", "main"]
    assert not any(path.endswith("data.tar") for path in Hub.asked)
    again = fetch(f"http://127.0.0.1:{server.server_port}", "gsm8k", "mmlu")  # nobody answers there any more
    assert again[0] == str(place)
    assert again[1].startswith("the data of mmlu (cais/mmlu on the Hugging Face hub) could not be downloaded (")
    result = measure(tiny, "gsm8k", tmp_path / "out", data=str(place), generation={"max_gen_toks": 30})
    assert result["examples"]["exact_match/strict-match"] == [1, 0, 0]
    assert result["protocol"]["data"] == {"repository": "openai/gsm8k", "revision": Hub.COMMIT}
