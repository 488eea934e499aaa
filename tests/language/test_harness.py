"""What is changed of lm-eval: data from folders, refusals, and no imports that a benchmark does not need."""

import copy
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import lm_eval.tasks
import pytest
import yaml
from helpers.harness import ARC, INSTRUCTIONS, PROBLEMS, hub, lines, measure, read, tiny
from transformers import LlamaForCausalLM

from prt.errors import InputError
from prt.language import tasks
from prt.language.models import Causal

__all__ = ["tiny"]  # a fixture


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
        rf"gsm8k: example \d of gsm8k has {prompt} tokens, its answer needs {room + 1} more, and the context of tiny is"
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


def test_where_the_data_come_from(tiny: Causal, tmp_path: Path) -> None:
    """The receipt of what was fetched stands in the result."""
    data = lines(tmp_path / "data", PROBLEMS)
    receipt = {"repository": "openai/gsm8k", "revision": "0123"}
    (data / ".fetched.json").write_text(json.dumps(receipt))
    result = measure(tiny, "gsm8k", tmp_path / "out", data=str(data), generation={"max_gen_toks": 30})
    assert result["examples"]["exact_match/strict-match"] == [1, 0, 0]
    assert result["protocol"]["data"] == receipt


def test_imports_that_a_benchmark_does_not_need(tmp_path: Path) -> None:
    """NLTK and the library evaluate take seconds; GSM8K does without."""
    code = """
import sys
from pathlib import Path
from prt.language.evaluate import question
print(question("gsm8k", {"data": sys.argv[1]}, 1)[0])
sys.exit(bool({"nltk", "evaluate", "sklearn"} & sys.modules.keys()))
"""
    command = [sys.executable, "-c", code, str(lines(tmp_path, PROBLEMS))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    assert (done.returncode, done.stdout) == (0, f"Question: {PROBLEMS[1]['question']}\nAnswer:\n")


def test_the_catalogue() -> None:
    """Every fact is there, and lm-eval has every task."""
    assert len(tasks.catalogue()) == 11
    for name, facts in tasks.catalogue().items():
        assert facts.keys() >= {"folder", "lm_eval", "headline", "hub"}, name
        assert facts["hub"].keys() == {"repository", "licence", "gated"}
        folder = Path(lm_eval.tasks.__file__).parent / facts["folder"]
        index = lm_eval.tasks.TaskManager(include_path=str(folder), include_defaults=False).task_index
        assert facts["lm_eval"] in index, name
        text = "".join(file.read_text() for file in sorted(folder.glob("*.yaml")))
        assert facts.get("code", False) == ("unsafe_code: true" in text), name
        assert tasks.settings(name, {})["shots"] == (3 if name == "mbpp" else 0)
    place = tasks.folder("mine", {"task": "gpqa_diamond"}, Path("downloads"))
    assert place == Path("downloads/benchmarks/Idavidrein--gpqa")
    assert tasks.folder("gsm8k", {"data": "here"}, Path("downloads")) == Path("here")
