"""Task files of one's own: what is wrong in one is named, and no code in it runs without leave."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.harness import PROBLEMS, TASK, lines

from prt.errors import InputError
from prt.language import task_files
from prt.language.evaluate import question
from prt.language.tasks import allow, check_across


def write(folder: Path, changes: dict[str, Any] | str = "", name: str = "sums.yaml") -> str:
    """A task file with its data beside it; changes are values for its keys (None takes one out), or its last lines."""
    lines(folder, PROBLEMS, "sums.jsonl")
    content = TASK | (changes if isinstance(changes, dict) else {})
    content = {key: value for key, value in content.items() if value is not None}
    (folder / name).write_text(yaml.safe_dump(content) + (changes if isinstance(changes, str) else ""))
    return str(folder / name)


def asked(task: str, unsafe_code: bool = False, example: int = 0, **settings: Any) -> str:
    return question("mine", {"task": task} | settings, example, unsafe_code)[0]


FIRST = f"Question: {PROBLEMS[0]['question']}\nAnswer:"
HERE = r"the task sums of .*/sums\.yaml"
FILES = {"data_files": {"test": "nowhere.jsonl"}}
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no split": ({"test_split": None}, f"^{HERE} does not say which split is judged: add test_split"),
    "other split": (
        {"dataset_kwargs": {"data_files": "sums.jsonl"}},
        f"^{HERE} says test_split: test, but its data have train; correct it, or .*{{test: FILE}}",
    ),
    "other examples to show": (
        {"fewshot_config": {"split": "shown"}},
        f"^{HERE} says fewshot_split: shown, but its data have test;",
    ),
    "one split": (
        {"dataset_kwargs": {"data_files": {"test": "sums.jsonl"}, "split": "test"}},
        f"^the data of {HERE} are one split alone; take 'split' out",
    ),
    "field": (
        {"doc_to_text": "{{qestion}}"},
        f"^doc_to_text of {HERE} fails \\('qestion' is undefined\\); an example has question, answer",
    ),
    "column": (
        {"doc_to_target": "anwser"},
        f"^{HERE} says doc_to_target: anwser, but an example has question, answer; correct it",
    ),
    "template that fails on one example": (
        {"doc_to_text": "{{question.split('Ann')[1]}}"},
        f"^doc_to_text of {HERE} fails \\(.*has no element 1\\)",
    ),
    "no template": ({"doc_to_text": "{{question"}, f"^doc_to_text of {HERE} is no template of Jinja"),
    "a program in a template": (
        {"doc_to_text": "{{question.__class__.__mro__[1].__subclasses__()}}"},
        f"^doc_to_text of {HERE} fails \\(.*unsafe",
    ),
    "no text": ({"doc_to_text": None}, f"^{HERE} has no doc_to_text: add it"),
    "path": (
        {"dataset_kwargs": FILES},
        f"^{HERE} says data_files: nowhere.jsonl, which is not there: a relative path .* to its folder, ",
    ),
    "folder": ({"dataset_path": "./data"}, f"^{HERE} says dataset_path: ./data, which is not there"),
    "no data": ({"dataset_path": None}, f"^{HERE} names no data: add its dataset_path"),
    "of the hub": (
        {"dataset_path": "owner/name"},
        f"^{HERE} says dataset_path: owner/name, which is no format .*hf download",
    ),
    "damaged": (
        {"dataset_kwargs": {"data_files": {"test": "sums.yaml"}}},
        f"^the data of {HERE} cannot be read .*; correct its dataset_path \\('json'\\) and dataset_kwargs",
    ),
    "metric": (
        {"metric_list": [{"metric": "exact_mach", "aggregation": "mean"}]},
        f"^unknown metric of {HERE}, 'exact_mach': did you mean 'exact_match'",
    ),
    "no metric": ({"metric_list": [{"aggregation": "mean"}]}, f"^metric_list of {HERE} must be a list .* 'metric'"),
    "aggregation": (
        {"metric_list": [{"metric": "exact_match", "aggregation": "mien"}]},
        f"^unknown aggregation of {HERE}, 'mien': did you mean",
    ),
    "filter": (
        {"filter_list": [{"name": "n", "filter": [{"function": "take_frist"}]}]},
        f"^unknown filter of {HERE}, 'take_frist': did you mean 'take_first'",
    ),
    "a filter without a name": ({"filter_list": [{"filter": []}]}, f"^filter_list of {HERE} must be a list .* 'name'"),
    "output": (
        {"output_type": "generate"},
        f"^unknown output_type of {HERE}, 'generate': did you mean 'generate_",
    ),
    "key": ({"test_splt": "test"}, f"^unknown key of {HERE}, 'test_splt': did you mean 'test_split'"),
    "regex": (
        {"filter_list": [{"name": "n", "filter": [{"function": "regex", "regex_patern": "x"}]}]},
        f"^filter_list of {HERE} fails \\(TypeError: .*regex_patern",
    ),
}


@pytest.mark.parametrize(("changes", "said"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_named(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        asked(write(tmp_path, changes))


def test_relative_paths_are_relative_to_the_task_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "tasks")
    (tmp_path / "elsewhere").mkdir()
    for folder in (tmp_path, tmp_path / "tasks", tmp_path / "elsewhere"):
        monkeypatch.chdir(folder)
        assert asked(os.path.relpath(file)) == FIRST
    for said in ("./sums.jsonl", "sum*.jsonl", str(tmp_path / "tasks" / "sums.jsonl"), ["../tasks/sums.jsonl"]):
        assert asked(write(tmp_path / "tasks", {"dataset_kwargs": {"data_files": {"test": said}}})) == FIRST
    assert asked(write(tmp_path / "tasks [new]")) == FIRST
    lines(tmp_path / "tasks" / "data", PROBLEMS, "test.jsonl")
    for path in ("data", "./data"):
        assert asked(write(tmp_path / "tasks", {"dataset_path": path, "dataset_kwargs": None})) == FIRST


def test_an_empty_split(tmp_path: Path) -> None:
    (tmp_path / "none.jsonl").write_text("")
    files = {"test": "sums.jsonl", "shown": "none.jsonl"}
    file = write(tmp_path, {"dataset_kwargs": {"data_files": files}, "validation_split": "shown"})
    with pytest.raises(InputError, match=r"the task sums of .*validation_split: shown, which is empty|cannot be read"):
        asked(file)


def test_includes(tmp_path: Path) -> None:
    """A file may include others, whose paths are relative to its folder too; what is wrong with one is named."""
    write(tmp_path / "common", name="base")
    file = tmp_path / "sums.yaml"
    lines(tmp_path, PROBLEMS, "sums.jsonl")
    file.write_text("include: common/base\ntask: included\n")
    assert asked(str(file)) == FIRST
    assert task_files.files(file) == [file, tmp_path / "common" / "base"]
    file.write_text("include: common/bas\ntask: included\n")
    with pytest.raises(InputError, match=r"sums.yaml includes common/bas, which is not there: .* to its folder"):
        asked(str(file))
    for text, said in (
        ("task: [", r"^the task file .*sums.yaml is no YAML \(.*line 1"),
        ("task: x\nwhen: 2024-99-99", r"^the task file .*sums.yaml is no YAML \(month must be"),
        ("task: x\nall: &all [*all]", r"^the task file .*sums.yaml is no YAML \(maximum recursion"),
        ("- task", r"^the task file .*sums.yaml is no YAML with keys"),
        ("name: sums", r"^.*sums.yaml is no task file of lm-eval: it has no key 'task' or 'group'"),
        ("task: 3", r"^the task file .*sums.yaml has no name in 'task'"),
    ):
        file.write_text(text)
        with pytest.raises(InputError, match=said):
            asked(str(file), batch=2)  # what was asked before is remembered


def test_code_runs_only_with_leave(tmp_path: Path) -> None:
    """Named by the file or by what it includes; with leave, its faults are named too."""
    python = tmp_path / "more.py"
    python.write_text("raise SystemExit('it ran')\n")
    plain = write(tmp_path)
    file = write(tmp_path, "process_docs: !function more.docs\n", "coded.yaml")
    (tmp_path / "over.yaml").write_text("include: coded.yaml\ntask: over\nprocess_docs: null\n")
    said = r"^mine runs the Python 'more.docs' of .*coded.yaml, with your rights and in no sandbox; allow that with"
    for task in (file, str(tmp_path / "over.yaml")):
        for call in (lambda task=task: asked(task), lambda task=task: allow("mine", {"task": task}, False)):
            with pytest.raises(InputError, match=said):
                call()
    assert asked(plain) == FIRST  # others in the folder are not looked at
    python.write_text("def docs(data):\n    return data.rename_column('question', 'asked')\n")
    with pytest.raises(InputError, match=r"^doc_to_text of the task sums .*'question' is undefined.*has asked, answer"):
        asked(file, unsafe_code=True)
    python.write_text("def docs(data):\n    return data.select([1])\n")
    assert asked(file, unsafe_code=True) == FIRST.replace(PROBLEMS[0]["question"], PROBLEMS[1]["question"])
    assert task_files.files(Path(file)) == [Path(file), python]
    for body, wrong in (
        ("data['asked']", r"^process_docs of the task sums of .*coded.yaml fails \(.*'asked'.*have question, answer"),
        ("list(data)", r"^process_docs of the task sums .* gives a list; it must give a Dataset"),
        ("data.select([])", r"^process_docs of the task sums .* gives no example"),
    ):
        python.write_text(f"def docs(data):\n    return {body}\n# {body}\n")
        with pytest.raises(InputError, match=wrong):
            asked(file, unsafe_code=True, batch=len(body))
    lost = write(tmp_path, "process_docs: !function lost.docs\n", "lost.yaml")
    with pytest.raises(InputError, match=r"^the task file .*lost.yaml cannot be used \(ImportError: .*module 'lost'"):
        asked(lost, unsafe_code=True)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"metric_list": [{"metric": "./bad", "hf_evaluate": True}]}, "runs the program of the metric './bad' of"),
        ({"dataset_path": "pandas"}, "runs pickled data of .*, which can hold any program"),
        ({"unsafe_code": True}, "mine runs programs that a model wrote; allow that with"),
    ],
)
def test_other_code(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        asked(write(tmp_path, changes))


def test_groups_and_names_that_come_twice(tmp_path: Path) -> None:
    """A member's faults are told with its file; a file with another's name, or called .yml, is still itself."""
    first = write(tmp_path)
    other = write(tmp_path, {"doc_to_text": "{{answer}}"}, "also.yml")
    assert (asked(first), asked(other)) == (FIRST, PROBLEMS[0]["answer"])
    group = tmp_path / "group.yaml"
    group.write_text("group: all\ntask: [sums]\naggregate_metric_list: [{metric: exact_match}]\n")
    assert asked(str(group)) == FIRST
    assert task_files.files(group) == [group, Path(first)]
    write(tmp_path, {"test_split": "tset"})
    with pytest.raises(InputError, match=r"^the task sums of .*/sums.yaml says test_split: tset, but its data have"):
        asked(str(group), batch=2)
    group.write_text("group: all\ntask: [gsm8k]\n")
    with pytest.raises(InputError, match=r"^the task all::gsm8k of .*group.yaml names no data: .* a group needs"):
        asked(str(group), batch=3)


def test_how_answers_are_drawn_from_a_target_of_another_tokenizer(tmp_path: Path) -> None:
    """What cannot be is told by the file alone, before its data or a model are read."""
    file = write(tmp_path, {"generation_kwargs": {"until": ["\n"], "max_gen_toks": 9, "top_p": 0.9}})
    said = (
        r"^mine is to be answered with 'top_p' \(.*/sums.yaml\), which a target of another tokenizer is not; leave it"
    )
    with pytest.raises(InputError, match=said):
        check_across("mine", {"task": file})
    includes = tmp_path / "includes.yaml"
    includes.write_text("include: sums.yaml\ntask: more\n")
    with pytest.raises(InputError, match=said):
        check_across("mine", {"task": str(includes)})
    with pytest.raises(InputError, match=r"^unknown key of the generation of mine for a target of .* 'top_k'"):
        check_across("mine", {"task": file, "generation": {"top_k": 1, "top_p": 0.9}})
    includes.write_text("include: sums.yaml\ntask: more\ngeneration_kwargs: {max_new_tokens: 3}\n")  # in its place
    check_across("mine", {"task": str(includes), "generation": {"temperature": 0.5}})
    group = tmp_path / "group.yaml"
    group.write_text("group: all\ntask: [sums]\n")
    with pytest.raises(InputError, match=said):
        check_across("mine", {"task": str(group)})


def test_examples_to_show(tmp_path: Path) -> None:
    file = write(tmp_path)
    with pytest.raises(
        InputError, match=r"mine is to show 2 solved examples, but .*sums.yaml has none .*fewshot_split"
    ):
        asked(file, shots=2)
    shown = {"data_files": {"test": "sums.jsonl", "train": "shown.jsonl"}}
    (tmp_path / "shown.jsonl").write_text(json.dumps({"question": "1?", "answer": "#### 1"}) + "\n")
    file = write(tmp_path, {"dataset_kwargs": shown, "training_split": "train"}, "shown.yaml")
    assert asked(file, shots=1) == f"Question: 1?\nAnswer: 1\n\n{FIRST}"
