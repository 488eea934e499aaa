"""The benchmarks: the paper's, which are data (``tasks.yaml``), and a user's own; and their downloads.

This module needs no lm-eval, so that asking for a name or a folder costs nothing.
"""

import json
from functools import cache
from os.path import isfile
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.validators import extend

from prt import hub
from prt.atomic import remove, write_json
from prt.errors import InputError, first_line, known
from prt.language import task_files

CATALOGUE = Path(__file__).with_name("tasks.yaml")
DEFAULTS: dict[str, Any] = {
    "shots": 0,
    "chat_template": False,
    "limit": None,
    "batch": 16,
    "generation": {},
    "headline": None,
    "data": None,
    "code": False,
    "mean": [],
    "minutes": 60,
}
TYPES: dict[str, Any] = {
    "task": {"type": "string"},
    "data": {"type": "string"},
    "shots": {"type": "integer", "minimum": 0},
    "chat_template": {"type": "boolean"},
    "limit": {"type": ["integer", "null"], "minimum": 1},
    "batch": {"type": "integer", "minimum": 1},
    "generation": {"type": "object"},
    "headline": {"type": "string"},
}
# How answers can be drawn from a target of another tokenizer than the reward's.
ACROSS = {"until", "do_sample", "temperature", "max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens"}
# JSON's 2.0 is a whole number, Python's is not.
WHOLE = Draft202012Validator.TYPE_CHECKER.redefine("integer", lambda _, value: type(value) is int)
Strict = extend(Draft202012Validator, type_checker=WHOLE)


@cache
def catalogue() -> dict[str, dict[str, Any]]:
    """The paper's benchmarks: name → facts, as ``tasks.yaml`` explains them."""
    return yaml.safe_load(CATALOGUE.read_text(encoding="utf-8"))


def is_file(task: str) -> bool:
    """Whether a task is a user's own, a file of lm-eval, and no name of the catalogue."""
    return task.endswith((".yaml", ".yml"))


def settings(benchmark: str, own: dict[str, Any]) -> dict[str, Any]:
    """All settings of a benchmark: the catalogue's, and on top of them the user's ``own``.

    Args:
        benchmark: a name of the catalogue, or any name where ``own`` has a ``task``.
        own: ``task`` (a name of the catalogue, or a task file of lm-eval), ``data`` (the folder of a local copy),
            ``shots``, ``chat_template``, ``limit`` (examples of each of its tasks), ``batch`` (prompts decoded, or
            continuations scored, at once), ``generation`` (on top of the task's generation_kwargs, such as
            max_gen_toks) and ``headline`` (of a task file; default: its first metric).

    Returns:
        every one of these, and the catalogue's facts.

    Raises:
        InputError: if a name is unknown, a value is of the wrong type, or the task file does not exist.
    """
    for key, value in own.items():
        known(key, TYPES, f"setting of the benchmark {benchmark},")
        for wrong in Strict(TYPES[key]).iter_errors(value):
            raise InputError(f"the setting '{key}' of the benchmark {benchmark} is wrong: {wrong.message}.")
        try:
            if key == "generation":  # the one with values of any kind
                json.dumps(value, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:  # dates; NaN and infinity; what holds itself
            raise InputError(
                f"the setting '{key}' of the benchmark {benchmark} is wrong ({first_line(error)}); give texts and "
                "finite numbers."
            ) from None
    task = own.get("task", benchmark)
    if not is_file(task):
        known(task, catalogue(), "benchmark")
        return DEFAULTS | {"task": task} | catalogue()[task] | own
    if not isfile(task):
        raise InputError(f"the task file {task} of the benchmark {benchmark} does not exist; correct the path.")
    return DEFAULTS | own


def runs_answers(benchmark: str, own: dict[str, Any]) -> bool:
    """Whether judging an answer of a benchmark runs it.

    Raises:
        InputError: as for ``settings``.
    """
    facts = settings(benchmark, own)
    return bool(task_files.runs_answers(Path(facts["task"])) if is_file(facts["task"]) else facts["code"])


def allow(benchmark: str, own: dict[str, Any], unsafe_code: bool) -> None:
    """Refuse a benchmark that runs code, unless that is wanted.

    Raises:
        InputError: if it does, and ``unsafe_code`` is not set; as for ``settings``; for a task file that is no YAML.
    """
    facts = settings(benchmark, own)
    file = Path(facts["task"]) if is_file(facts["task"]) else None
    found = task_files.code(file) if file else None
    if unsafe_code:
        return
    if runs_answers(benchmark, own):
        raise InputError(
            f"{benchmark} runs programs that a model wrote; allow that with `unsafe_code: true` in the "
            "configuration's 'language' or by --unsafe-code, or leave the benchmark out. They run in a sandbox."
        )
    if found is not None:
        raise InputError(
            f"{benchmark} runs {found}, with your rights and in no sandbox; allow that with `unsafe_code: true` in the "
            "configuration's 'language' or by --unsafe-code if you know it, or take it out of the file."
        )


def check_across(benchmark: str, own: dict[str, Any]) -> None:
    """Refuse a benchmark whose answers cannot be drawn as it says from a target of another tokenizer.

    Raises:
        InputError: naming the key of its ``generation``, or of its task file; as for ``settings``.
    """
    facts = settings(benchmark, own)
    drawn = task_files.drawn(Path(facts["task"])) if is_file(facts["task"]) else {}
    for key, file in drawn.items():
        if key not in ACROSS and key not in facts["generation"]:
            raise InputError(
                f"{benchmark} is to be answered with '{key}' ({file}), which a target of another tokenizer is not; "
                "leave it out."
            )
    for key in facts["generation"]:
        known(key, ACROSS, f"key of the generation of {benchmark} for a target of another tokenizer,")


def folder(benchmark: str, own: dict[str, Any], downloads: Path) -> Path | None:
    """Where a benchmark's data lie: its own folder, or the one that ``fetch`` makes; None if a task file says.

    Raises:
        InputError: as for ``settings``.
    """
    facts = settings(benchmark, own)
    if facts["data"]:
        return Path(facts["data"])
    if is_file(facts["task"]):
        return None
    return downloads / "benchmarks" / hub.folder_name(facts["hub"]["repository"])


def fetch(benchmark: str, own: dict[str, Any], downloads: Path, out: Path) -> None:
    """Download a benchmark's data set from the hub, unless it is there; then write a receipt (JSON) to ``out``.

    Its folder, as :func:`folder` says, mirrors the repository. The receipt has the repository and the revision; nothing
    where the user has the data, or a task file names them.

    Raises:
        InputError: if it cannot be downloaded, or is gated and no access was given.
    """
    place = folder(benchmark, own, downloads)
    remove(out)
    receipt: dict[str, Any] = {}
    if place is not None and not own.get("data"):
        repository = settings(benchmark, own)["hub"]["repository"]
        # MMLU's repository keeps all it has a second time, in archives that nobody reads.
        receipt = hub.download(repository, "dataset", place, ignore=["*.tar", "*.zip"])
    write_json(out, receipt)
