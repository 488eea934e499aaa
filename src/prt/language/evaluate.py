"""Measuring a language model on a benchmark, by lm-evaluation-harness: its tasks, prompts, filters and metrics.

What is added here: data from local folders, a refusal where lm-eval would cut a prompt, values per example for
intervals, the same numbers on every run, and a sandbox for code.
"""

import json
import math
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lm_eval.evaluator import evaluate as lm_evaluate

from prt.atomic import fingerprint, remove, replacing, write_json
from prt.cell import Cell
from prt.errors import InputError
from prt.hub import origin
from prt.language.harness import SEED, load, quiet, seed
from prt.language.harness_model import Asked, InTransformers
from prt.language.harness_text import AsText
from prt.language.models import Causal
from prt.language.tasks import allow, runs_answers
from prt.language.tasks import settings as all_settings
from prt.language.text_decode import TextRewarded
from prt.reward import PACKAGE
from prt.sandbox import programs

RESULT, SAMPLES = "result.json", "samples.jsonl"
PACKAGES = (PACKAGE, "lm_eval", "datasets", "torch", "transformers")


def ready(benchmark: str, settings: dict[str, Any], unsafe_code: bool) -> None:
    """Refuse what :func:`evaluate` would refuse whatever the model, before a large one is loaded.

    Raises:
        InputError: for an unknown benchmark or setting, and code without leave to run it, or without a sandbox.
    """
    allow(benchmark, settings, unsafe_code)
    if runs_answers(benchmark, settings):
        programs.run("")


def evaluate(
    causal: Causal | TextRewarded | Asked,
    benchmark: str,
    settings: dict[str, Any],
    *,
    cell: Cell | list[Cell],
    out: Path,
    unsafe_code: bool = False,
    strength: float | None = None,
) -> dict[str, Any]:
    """Measure a model on a benchmark; write ``result.json`` and ``samples.jsonl`` to the folder ``out``.

    Args:
        benchmark: a name of the catalogue, or of a user's own benchmark.
        settings: the user's settings of it, as for ``prt.language.tasks.settings``. ``data`` is a folder in the
            layout of its hub repository, or one with ``test.jsonl`` (the examples that are judged) and, for solved
            examples in the prompt, ``train.jsonl``, both in the repository's own columns.
        cell: what was measured; goes into the result. Of several rewards on one target, a cell for each.
        unsafe_code: whether programs that the model wrote may be run, in the sandbox of ``prt.sandbox.programs``, and
            Python that a task file names, in none.
        strength: the one that was chosen on validation data, where one was; goes into the result.

    Returns:
        what is written to ``result.json``: ``benchmark``, ``cell``, ``strength``; ``metrics`` (metric → value in 0..1)
        and which of them is the ``headline``; ``examples`` (metric → one number per example, whose mean is the metric;
        where lm-eval counts instructions and not examples, a linearisation of their share); ``documents`` (a hash of
        the examples in order: equal hashes, paired values); ``protocol`` and ``versions``.

    Raises:
        InputError: for an unknown benchmark or setting, data that are missing or in the wrong form, a missing chat
            template, a prompt that does not fit into the context, code without leave to run it, or without a sandbox.
    """
    asked: Asked
    if isinstance(causal, TextRewarded):
        asked = AsText(causal.tuned, causal)
    else:
        asked = InTransformers(causal) if isinstance(causal, Causal) else causal
    allow(benchmark, settings, unsafe_code)
    facts = all_settings(benchmark, settings)
    if facts["chat_template"] and not asked.tokenizer.chat_template:
        raise InputError(
            f"{asked.name} has no chat template, and {benchmark} is to be asked in one; set chat_template: false, or "
            "take a model that has one."
        )
    remove(out / RESULT)
    with quiet(f"{benchmark} {asked.name}", facts):
        loaded = load(benchmark, json.dumps(facts, sort_keys=True))
        model = asked.asking(benchmark, facts["batch"])
        seed()
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
        "cell": [each.model_dump() for each in cell] if isinstance(cell, list) else cell.model_dump(),
        "strength": strength,
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
            "dtype": asked.dtype,
            "engine": asked.engine,
            "seed": SEED,
        },
        "versions": {package: version(package) for package in PACKAGES} | asked.versions,
    }
    with replacing(out / SAMPLES) as aside, aside.open("w", encoding="utf-8") as file:
        for task, samples in results["samples"].items():
            for sample in samples:
                file.write(json.dumps(_sample(task, sample), ensure_ascii=False, default=str) + "\n")
    write_json(out / RESULT, result)  # last: a folder with a result is whole
    return result


def question(
    benchmark: str, settings: dict[str, Any], example: int, unsafe_code: bool = False
) -> tuple[str, list[str]]:
    """The prompt of a benchmark's example, without a chat template, and the texts at which its answer ends.

    Raises:
        InputError: if the benchmark writes no answers, or has no such example; as :func:`evaluate` for the rest.
    """
    allow(benchmark, settings, unsafe_code)
    facts = all_settings(benchmark, settings)
    with quiet(benchmark, facts):
        task = next(iter(load(benchmark, json.dumps(facts, sort_keys=True))["tasks"].values()))
    if task.OUTPUT_TYPE != "generate_until":
        raise InputError(f"{benchmark} writes no answers, it compares likelihoods; take a benchmark that does.")
    examples = list(task.eval_docs)
    if example >= len(examples):
        raise InputError(f"{benchmark} has {len(examples)} examples, counted from 0; there is no example {example}.")
    task.set_fewshot_seed(SEED)
    prompt = task.fewshot_context(examples[example], num_fewshot=facts["shots"])
    return str(prompt), list(task.config.generation_kwargs.get("until", []))


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
