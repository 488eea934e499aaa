"""The benchmarks: the paper's, which are data (``tasks.yaml``), and a user's own; and their downloads.

This module needs no lm-eval, so that asking for a name or a folder costs nothing.
"""

import shutil
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

from prt.atomic import read_json, write_json
from prt.errors import InputError, first_line, known

CATALOGUE = Path(__file__).with_name("tasks.yaml")
ORIGIN = ".fetched.json"  # what a folder of data was made from
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
            max_gen_toks) and ``headline`` (of a task file; default: its first metric). Python that a task file names is
            the user's own, and runs as it is.

    Returns:
        every one of these, and the catalogue's facts.

    Raises:
        InputError: if a name is unknown, or the task file does not exist.
    """
    for key, value in own.items():
        known(key, TYPES, f"setting of the benchmark {benchmark},")
        for wrong in Draft202012Validator(TYPES[key]).iter_errors(value):
            raise InputError(f"the setting '{key}' of the benchmark {benchmark} is wrong: {wrong.message}.")
    task = own.get("task", benchmark)
    if not is_file(task):
        known(task, catalogue(), "benchmark")
        return DEFAULTS | {"task": task} | catalogue()[task] | own
    if not Path(task).is_file():
        raise InputError(f"the task file {task} of the benchmark {benchmark} does not exist; correct the path.")
    return DEFAULTS | own


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
    return downloads / "benchmarks" / facts["hub"]["repository"].replace("/", "--")


def fetch(benchmark: str, own: dict[str, Any], downloads: Path) -> Path | None:
    """Download a benchmark's data set from the hub, unless it is there; its folder, as ``folder`` says.

    The folder mirrors the repository, and its file ``.fetched.json`` names the revision. It appears whole or not at
    all; a killed fetch is gone on with by the next.

    Raises:
        InputError: if it cannot be downloaded, or is gated and no access was given.
    """
    place = folder(benchmark, own, downloads)
    if place is None or own.get("data") or place.is_dir():
        return place
    # The hub reads whether it may use the network when it is imported.
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import GatedRepoError

    repository = settings(benchmark, own)["hub"]["repository"]
    aside = place.with_name(f".{place.name}.part")
    try:
        revision = HfApi().dataset_info(repository).sha
        # MMLU's repository keeps all it has a second time, in archives that nobody reads.
        snapshot_download(
            repository, repo_type="dataset", revision=revision, local_dir=aside, ignore_patterns=["*.tar", "*.zip"]
        )
        shutil.rmtree(aside / ".cache")
        write_json(aside / ORIGIN, {"repository": repository, "revision": revision})
        aside.rename(place)
    except GatedRepoError as error:
        raise InputError(
            f"the data of {benchmark} are gated: accept the terms at https://huggingface.co/datasets/{repository}, "
            "then log in with `hf auth login` or set HF_TOKEN, and fetch again."
        ) from error
    except Exception as error:  # no network, no space, no such repository: many kinds
        raise InputError(
            f"the data of {benchmark} ({repository} on the Hugging Face hub) could not be downloaded "
            f"({first_line(error)}); mend that, or go where there is a network, and fetch again."
        ) from error
    return place


def origin(place: Path) -> dict[str, Any]:
    """What a folder of data was made from; nothing is known of one that was put there by hand."""
    return read_json(place / ORIGIN, "receipt") if (place / ORIGIN).is_file() else {}
