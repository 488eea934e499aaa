"""A tiny model that knows the answers to a few questions in several benchmarks' own columns, and measuring it."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from prt.cell import Cell
from prt.language.evaluate import evaluate
from prt.language.models import Causal

CELL = Cell(dataset="own", target="tiny", method="pretrained")
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
# A task file of one's own, of PROBLEMS.
TASK = {
    "task": "sums",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "sums.jsonl"}},
    "test_split": "test",
    "output_type": "generate_until",
    "doc_to_text": "Question: {{question}}\nAnswer:",
    "doc_to_target": "{{answer.split('#### ')[1]}}",
    "generation_kwargs": {"until": ["\n\n"], "max_gen_toks": 30, "do_sample": False},
    "filter_list": [{"name": "first", "filter": [{"function": "take_first"}]}],
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}
SOLVED = ["def inc(a):\n    return a + 1\n[DONE]", "import os\nos._exit(0)\n[DONE]"]


def question(text: str, answers: dict[str, str], key: str) -> dict[str, Any]:
    choices = {"text": list(answers.values()), "label": list(answers)}
    return {"id": text, "question": text, "choices": choices, "answerKey": key}


ARC = [
    question("What falls?", {"A": "rain", "B": "the sun"}, "A"),
    question("What barks?", {"1": "a cat", "2": "a dog"}, "2"),
    question("What swims?", {"A": "a very big stone", "B": "fish"}, "B"),
]


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
    """:func:`learnt`, once for all tests."""
    return learnt()


@cache
def learnt() -> Causal:
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
