"""Instruction tuning of a causal language model: FT and PRT (Algorithm 1), whole or by LoRA.

Several GPUs: start one process for each (``torchrun --nproc-per-node 8``); what is trained, and the frozen reference,
are then sharded over them.
"""

import math
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState  # type: ignore[import-untyped]
from transformers import PreTrainedTokenizerBase

from prt.atomic import fingerprint, write_text
from prt.cell import Run
from prt.errors import InputError, known
from prt.language.chats import SPLITS, Manifest, chat_template, read_tokens, tokenise
from prt.language.models import DTYPES, load, vocabulary
from prt.language.network import Tuned, check, check_beside, trainable
from prt.language.recipe import Lora, Recipe
from prt.language.reward import check_writable, save_tuned, weights_hash
from prt.language.trainer import curve, passes_of, train
from prt.training import threads

TOKENS = "tokens"  # beside the first run's checkpoints


@dataclass(frozen=True)
class Tuning:
    """One run of a job: ``ft`` or ``prt``, of a model and on chats by their names in tables.

    ``lora``: tune an adapter; the reference of prt is then its base, not a second copy. ``out`` is the folder to write
    (see ``prt.language.reward``, and ``curve.csv``), ``checkpoints`` one for what a killed run goes on from.
    ``references``: the further pretrained models that the recipe names, in its order: folders or names on the hub.

    Raises:
        InputError: for another method, an alpha that prt lacks, that is negative or that is ft's, or a run that says
            otherwise of LoRA.
    """

    run: Run
    recipe: Recipe
    lora: Lora | None
    out: Path
    checkpoints: Path
    references: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        alpha = self.run.alpha
        known(self.run.method, ("ft", "prt"), "tuning method")
        if self.run.method == "ft" and alpha is not None:
            raise InputError(f"alpha is {alpha}, but ft has no entropy to maximise; leave alpha out, or use prt.")
        if self.run.method == "prt" and (alpha is None or not 0 <= alpha < math.inf):
            raise InputError(
                f"alpha is {alpha}, but prt's weight of entropy maximisation must be 0 or more; correct it."
            )
        if self.run.lora != (self.lora is not None):
            raise InputError(f"the run {self.run.name} and its adapter {self.lora} disagree; give both, or neither.")
        if len(self.references) != len(self.recipe.references):
            raise InputError(
                f"the recipe of the run {self.run.name} names {len(self.recipe.references)} further models, but "
                f"{len(self.references)} were given; give each."
            )

    @property
    def further(self) -> dict[str, str]:
        """Name → place of the further models of its loss."""
        return dict(zip(self.recipe.references, self.references, strict=True)) if self.run.method == "prt" else {}

    @property
    def title(self) -> str:
        """What messages call it."""
        method = f"{self.run.method}-lora" if self.lora else self.run.method
        alpha = "" if self.run.alpha is None else f" α={self.run.alpha:g}"
        return f"{method}{alpha} {self.run.model} {self.run.dataset} {self.run.seed}"


def tune(spec: str, tunings: Sequence[Tuning], *, data: Manifest, device: torch.device, template: str = "tulu") -> None:
    """Tune a model, once for each of ``tunings``; every run is as it would be alone.

    Algorithm 1: the reward starts as the pretrained weights; its loss is the cross-entropy of softmax(log π_pt + r);
    log π_pt is the same model's, frozen.

    A killed job goes on when it is run again, bit for bit on a CPU with the same number of threads: from
    ``checkpoint-*`` in the runs' folders, which are gone when all runs are written.

    Args:
        spec: a folder in transformers' format or a name on the hub.
        template: see :func:`prt.language.chats.chat_template`.

    Raises:
        InputError: for a recipe that does not fit the model or the processes, a folder that cannot be written, a loss
            that is not finite, …
        SystemExit: with 128 + the signal's number, after a checkpoint.
    """
    for tuning in tunings:
        check_writable(tuning.out)
    passes = [passes_of(tuning.recipe, device) for tuning in tunings]
    name, cpu = tunings[0].run.model, torch.device("cpu")
    pretrained = load(spec, DTYPES[tunings[0].recipe.precision], cpu, name)
    lengths = {tuning.recipe.max_length for tuning in tunings}
    size = check(pretrained, max(lengths))
    tokenizer = pretrained.tokenizer
    for model, spec_of in {(model, spec_of) for tuning in tunings for model, spec_of in tuning.further.items()}:
        check_beside(pretrained, load(spec_of, DTYPES[tunings[0].recipe.precision], cpu, model), max(lengths))
    tokenizer.chat_template = chat_template(tokenizer, template, name)
    del pretrained
    place = tunings[0].checkpoints / TOKENS
    tokens = {n: _tokens(data, place, tokenizer, n, device) for n in lengths}
    base = {"name": name, "spec": spec, "weights_sha256": weights_hash(spec)}
    for tuning, own in zip(tunings, passes, strict=True):
        run, recipe, lora = tuning.run, tuning.recipe, tuning.lora
        rows, counts = tokens[recipe.max_length]
        facts: dict[str, Any] = {
            "method": run.method,
            "alpha": run.alpha,
            "lora": lora and lora.model_dump(),
            "base": base,
            "dataset": {"name": run.dataset, "fingerprint": data.fingerprint, "tokens": counts},
            "template": template,
            "recipe": recipe.model_dump(),
        }
        facts |= {"variant": run.variant} if run.variant else {}
        if tuning.further:
            facts["references"] = {model: weights_hash(place) for model, place in tuning.further.items()}
        # What is only read, LoRA's base or a reference, is kept in the precision of the products. All is loaded anew
        # for each run: what is sharded over processes stays so.
        dtype = DTYPES[recipe.precision]
        network = trainable(spec, name, lora, run.seed, recipe)
        reference = load(spec, dtype, cpu).model if run.method == "prt" and not lora else None
        further = [load(place, dtype, cpu).model for place in tuning.further.values()]
        trainer = train(
            Tuned(network, run.method, run.alpha or 0.0, size, reference, further),
            recipe,
            rows,
            tuning.checkpoints,
            seed=run.seed,
            passes=own,
            pad=tokenizer.eos_token_id or 0,
            device=device,
            title=tuning.title,
            mark=fingerprint(facts, run.seed, own, threads(device)),
            more=tuning is not tunings[-1],
        )
        state = None
        if trainer.is_fsdp_enabled:  # gathered by all processes, kept by the first
            whole = trainer.accelerator.get_state_dict(trainer.model)
            state = {k.removeprefix("network."): v for k, v in whole.items() if k.startswith("network.")}
            state = state if lora else {k: v.to(dtype) for k, v in state.items()}
        elif not lora:
            network.to(dtype)
        if trainer.args.should_save:
            write_text(tuning.out / "curve.csv", curve(trainer.state.log_history))
            save_tuned(tuning.out, network, tokenizer, facts | {"seed": run.seed}, state)
        del network, reference, further, trainer, state  # before the next ones are loaded
    if PartialState().is_main_process:
        for tuning in tunings:
            _clear(tuning.checkpoints)


def _clear(folder: Path) -> None:
    """Remove what tuning left there; the folder may be the user's, or another job's, too."""
    for made in (*folder.glob("checkpoint-*"), folder / TOKENS):
        shutil.rmtree(made, ignore_errors=True)
    with suppress(OSError):  # something else is in it
        folder.rmdir()


def _tokens(
    data: Manifest, folder: Path, tokenizer: PreTrainedTokenizerBase, max_length: int, device: torch.device
) -> tuple[dict[str, Any], dict[str, dict[str, int]]]:
    """The tokens of both splits and their counts, made once by the first process and read by all."""
    template = str(tokenizer.chat_template)
    mark = fingerprint(data.fingerprint, vocabulary(tokenizer).sha256, template, max_length)[:16]
    files = {split: folder / f"{split}-{mark}.arrow" for split in SPLITS}
    with PartialState(cpu=device.type == "cpu").main_process_first():
        for split, file in files.items():
            if not file.is_file():
                tokenise(data, split, file, tokenizer, template, max_length)
    read = {split: read_tokens(file) for split, file in files.items()}
    counts = {split: counts for split, (_, counts) in read.items()}
    for split, found in counts.items():
        if (found["truncated"] or found["dropped"]) and PartialState().is_main_process:
            print(
                f"{split}: {found['truncated']} conversations are longer than {max_length} tokens and were cut; "
                f"{found['dropped']} were dropped, as nothing of the assistant was left.",
                file=sys.stderr,
            )
    return {split: rows for split, (rows, _) in read.items()}, counts
