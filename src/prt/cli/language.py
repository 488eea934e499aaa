"""The rules of the language half."""

import gc
from pathlib import Path
from typing import TYPE_CHECKING

from prt.cli.options import (
    ConfigFile,
    Device,
    JobName,
    begin,
    checkpoint_of,
    device_of,
    dtype_of,
    models_of,
    plan_of,
)
from prt.hub import allow_network

if TYPE_CHECKING:
    from prt.cell import Cell
    from prt.language.parts import Models
    from prt.plan import Plan
    from prt.plan.jobs import Job
    from prt.plan.language import LanguagePlan
    from prt.plan.two_rewards import Cells


def _asked(config: Path, rule: str, job: str) -> "tuple[LanguagePlan, Job]":
    plan: Plan = plan_of(config)
    of = plan.jobs.get(rule, job)
    assert plan.language is not None  # it has this job
    return plan.language, of


def write_text(job: JobName, config: ConfigFile) -> None:
    """Write the miniature family's chats and benchmarks."""
    _, of = _asked(config, "write_text", job)
    from prt.miniature.tasks import write_chats, write_instructions, write_problems
    from prt.plan.texts import MINIATURE

    begin()
    *chats, problems, instructions = map(Path, of.makes)
    for kind, file in zip(MINIATURE, chats, strict=True):
        write_chats(file, kind)
    write_problems(problems.parent)
    write_instructions(instructions.parent)


def pretrain_language(job: JobName, config: ConfigFile) -> None:
    """Pretrain a miniature language model on generated text."""
    plan, of = _asked(config, "pretrain_language", job)
    from prt.miniature.pretrain_text import pretrain
    from prt.recipe import Recipe

    begin()
    model = plan.config.models[job]
    checkpoint = checkpoint_of(plan.top, f"pretrain/{job}.safetensors")
    recipe, out = Recipe(**(model.recipe or {})), Path(of.makes[0]).parent
    made_of = (str(model.size), str(model.corpus), recipe, plan.pretraining_seed)
    pretrain(*made_of, out, checkpoint, model.tokenizer, model.stop)


def prepare_chats(job: JobName, config: ConfigFile) -> None:
    """Check the chats, and split them into training and validation."""
    allow_network(False)
    plan, of = _asked(config, "prepare_chats", job)
    from prt.language.chats import prepare

    begin()
    source, validation = of.about
    prepare(source, Path(of.makes[0]).parent, downloads=Path(plan.config.downloads), validation=validation)


def tune_language(job: JobName, config: ConfigFile, device: Device = "auto") -> None:
    """Fine-tune a language model and tune its rewards; on several GPUs under torchrun."""
    plan, _ = _asked(config, "tune_language", job)
    from prt.language.chats import read_manifest
    from prt.language.tune import Tuning, tune
    from prt.plan.jobs import within

    begin()
    on = device_of(device)
    runs = [run for run in plan.runs() if within(plan.path(run), job)]
    tune(
        plan.model(runs[0].model),
        [
            Tuning(
                run,
                plan.recipe(run),
                plan.lora(run),
                out=Path(plan.folder(run)),
                checkpoints=checkpoint_of(plan.top, plan.path(run)),
                references=tuple(plan.further(run)),
            )
            for run in runs
        ],
        data=read_manifest(Path(plan.prepared(runs[0]))),
        device=on,
        template=plan.config.data.template,
    )


def evaluate(job: JobName, config: ConfigFile, device: Device = "auto") -> None:
    """Measure a target on benchmarks: alone, with a reward on it, with EFT, …"""
    allow_network(False)
    plan, _ = _asked(config, "evaluate", job)
    import torch

    from prt.language.chats import read_manifest
    from prt.language.choose import choose
    from prt.language.evaluate import evaluate, ready
    from prt.language.parts import Models
    from prt.methods import METHODS
    from prt.plan.jobs import within

    begin()
    unsafe = plan.config.unsafe_code
    points = {path: cells for path, cells in plan.points.items() if within(path, job)}
    cells = [cell for cell in plan.cells() if within(plan.cell_path(cell), job)]
    cells.sort(key=lambda cell: repr(cell.model_copy(update={"dataset": ""})))  # vLLM starts anew for another sum
    benchmarks = {cell.dataset for several in (cells, *points.values()) for cell in several}
    for benchmark in benchmarks:  # before a large model is loaded
        ready(benchmark, plan.benchmark_settings(benchmark), unsafe)
    asked = plan.network, dtype_of(plan.precision), device_of(device), plan.config.data.template

    def chosen(models: Models) -> "dict[Cell, float]":
        """The strength of every sum whose strength is chosen; it is one for all benchmarks."""
        found: dict[Cell, float] = {}
        for cell in cells:
            if (at := METHODS[cell.method].at) and (key := cell.model_copy(update={"dataset": ""})) not in found:
                found[key] = choose(
                    lambda s, of=cell, at=at: models.of(of.model_copy(update={"method": at, "strength": s})),  # type: ignore[misc, arg-type]
                    plan.strengths,
                    read_manifest(Path(plan.top, "data")),
                    plan.max_length,
                    str(cell),
                )
        return found

    if points:
        _two_rewards(plan, points, Models(*asked))
        return
    with models_of(plan.config.engine, *asked) as measured:  # which starts no engine yet
        # Losses, by which a strength is chosen, are transformers' affair; vLLM then needs the memory for itself.
        strengths = chosen(measured if plan.config.engine == "transformers" else Models(*asked))
        if plan.config.engine != "transformers":
            gc.collect()
            torch.cuda.empty_cache()
        for cell in cells:
            out, settings = Path(plan.top, "evaluated", plan.cell_path(cell)), plan.benchmark_settings(cell.dataset)
            strength, fixed = None, cell
            if at := METHODS[cell.method].at:
                strength = strengths[cell.model_copy(update={"dataset": ""})]
                fixed = cell.model_copy(update={"method": at, "strength": strength})
            evaluate(
                measured.of(fixed), cell.dataset, settings, cell=cell, out=out, unsafe_code=unsafe, strength=strength
            )


def _two_rewards(plan: "LanguagePlan", points: "dict[str, Cells]", models: "Models") -> None:
    """Measure two rewards on a target, on benchmarks and on the chats held out of what each was tuned on."""
    from prt.language.chats import read_manifest
    from prt.language.choose import loss
    from prt.language.evaluate import evaluate
    from prt.language.models import Causal
    from prt.language.parts import with_template
    from prt.language.together import HELD_OUT, write_losses

    held_out = {chats: read_manifest(Path(plan.data(chats))) for chats in plan.sources if chats}
    losses: dict[Cells, dict[str, float]] = {}  # of a sum, whatever benchmark it is measured on
    for path, cells in points.items():
        out, model, benchmark = Path(plan.top, "evaluated", path), models.together(cells), cells[0].dataset
        assert isinstance(model, Causal)  # of one tokenizer
        if not cells[0].source:  # the target alone is asked and measured in the template of its rewards
            put_on = models.together(next(of for of in plan.points.values() if of[0].source))
            assert isinstance(put_on, Causal)
            model = with_template(model, put_on.tokenizer.chat_template)
        key = tuple(cell.model_copy(update={"dataset": ""}) for cell in cells)
        if key not in losses:
            losses[key] = {chats: loss(model, data, plan.max_length) for chats, data in held_out.items()}
        write_losses(out / HELD_OUT, losses[key])
        cell = list(cells) if len(cells) > 1 else cells[0]
        settings, unsafe = plan.benchmark_settings(benchmark), plan.config.unsafe_code
        evaluate(model, benchmark, settings, cell=cell, out=out, unsafe_code=unsafe)


def next_tokens(job: JobName, config: ConfigFile, device: Device = "auto") -> None:
    """Find the next tokens with and without a reward, in the answer to a benchmark's question (Figures 5, 8 and 9)."""
    allow_network(False)
    plan, of = _asked(config, "next_tokens", job)
    from prt.atomic import write_json
    from prt.language.decode import load_reward, next_tokens
    from prt.language.evaluate import question

    begin()
    item = plan.config.next_tokens[job]  # type: ignore[index]
    settings = plan.benchmark_settings(item.benchmark)
    prompt, stop = question(item.benchmark, settings, item.example, plan.config.unsafe_code)
    reward = load_reward(
        plan.folder(plan.reward(item.source)), device_of(device), dtype_of(plan.precision), plan.model(item.source)
    )
    rewarded = reward.on(plan.model(item.target), name=item.target)
    chat = bool(settings.get("chat_template"))
    write_json(Path(of.makes[0]), next_tokens(rewarded, prompt, max_new_tokens=256, stop=stop, chat=chat))


def measure_decoding(job: JobName, config: ConfigFile, device: Device = "auto") -> None:
    """Time of a decoded token with the target alone, EFT, PRT and speculative PRT (Table 3)."""
    allow_network(False)
    plan, of = _asked(config, "measure_decoding", job)
    from prt.language.decoding_speed import Pair, decoding
    from prt.tables import write_table

    begin()
    item = plan.config.table3
    assert item is not None  # the job is its
    pairs = [
        Pair(source, plan.model(source), target, plan.model(target), plan.folder(plan.reward(source)))
        for source, target in item.pairs
    ]
    on, lengths = device_of(device), (item.prompt_tokens, item.new_tokens, item.repeats)
    write_table(Path(of.makes[0]), decoding(pairs, *lengths, plan.precision, on, compiled=item.compile), digits=6)


RULES = (
    write_text,
    pretrain_language,
    prepare_chats,
    tune_language,
    evaluate,
    next_tokens,
    measure_decoding,
)
