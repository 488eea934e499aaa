"""The training of :class:`Tuned` on transformers' trainer: its progress, its checkpoints, and going on from them."""

import csv
import io
import math
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState  # type: ignore[import-untyped]
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import PrinterCallback

from prt.atomic import alone, file_hash, read_json, write_json
from prt.errors import InputError, first_line
from prt.language.chats import IGNORED, collator
from prt.language.network import Tuned, causal
from prt.language.recipe import Recipe
from prt.progress import progress
from prt.reference import drawn
from prt.training import CHECKPOINT_SECONDS, OTHER, Stop, check_weights, diverged

WHOLE = "whole.json"  # in a checkpoint that is finished
SAVING_SHARE = 20  # a checkpoint is written at most every so many times as long as the last one took
WEIGHTS = "model.safetensors"


def train(
    tuned: Tuned,
    recipe: Recipe,
    rows: dict[str, Any],
    folder: Path,
    *,
    seed: int,
    passes: int,
    pad: int,
    device: torch.device,
    title: str,
    mark: str,
    more: bool,
) -> Trainer:
    """Train, or go on training.

    Args:
        rows: the tokens of each split.
        folder: for checkpoints; ``mark`` is the identity of the run that they belong to.
        passes: see :func:`passes_of`.
        pad: the token that rows are filled up with.
        title: of the run, in messages.
        more: runs follow, so the end of this one is kept as a checkpoint.

    Returns:
        the trainer, whose model is trained.

    Raises:
        InputError: if the loss or the weights are not finite, or another process is at this tuning.
        SystemExit: with 128 + the signal's number, after a checkpoint.
    """
    args = _arguments(recipe, folder, seed, passes, len(rows["train"]), device, tuned)
    learned = rows["train"]
    if tuned.method != "ft" and not recipe.plain:  # what a conversation is tuned beside is drawn by its number
        learned = learned.add_column("number", list(range(len(learned))))
    first = int(os.environ.get("RANK", "0")) == 0  # of torchrun's processes
    with alone(folder / "checkpoint", title) if first else nullcontext(), Stop(title if first else None) as stop:
        watch = _Watch(title, recipe, mark, stop, more)
        watch.trainer = trainer = _Trainer(
            tuned,
            recipe,
            args=args,
            train_dataset=learned,
            eval_dataset=rows["validation"],
            data_collator=collator(recipe.packing, pad),
            callbacks=[watch],
        )
        with PartialState().main_process_first():
            resume = _checkpoint(folder, mark)
        try:
            trainer.train(resume_from_checkpoint=resume)
        finally:
            if watch.bar is not None:
                watch.bar.close()
    if watch.signal:
        print(f"{title}: stopped by a signal after iteration {trainer.state.global_step}; run again to go on.",
              file=sys.stderr)  # fmt: skip
        raise SystemExit(128 + watch.signal)
    check_weights((p for _, p in _learning(tuned)), title, recipe.lr)
    return trainer


def passes_of(recipe: Recipe, device: torch.device) -> int:
    """Passes of each process that make one batch.

    Raises:
        InputError: if no whole number of them does, or one process sees several GPUs.
    """
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if device.type == "cuda" and processes == 1 and torch.cuda.device_count() > 1:
        raise InputError(
            f"{torch.cuda.device_count()} GPUs are visible to one process: start one for each with torchrun, or choose "
            "one with CUDA_VISIBLE_DEVICES."
        )
    return recipe.passes(processes)


def curve(history: list[dict[str, float]]) -> str:
    """The losses of each step, as CSV, and the validation loss after each epoch, of the trainer's log."""
    steps: dict[float, dict[str, float]] = {}
    names = {"epoch": "epoch", "loss": "loss", "eval_loss": "validation_loss", "learning_rate": "lr"}
    for row in history:
        if "train_loss" not in row:  # the trainer's summary
            steps.setdefault(row["step"], {"step": row["step"]}).update(
                {names[key]: value for key, value in row.items() if key in names}
            )
    text = io.StringIO()
    writer = csv.DictWriter(text, ["step", *names.values()], lineterminator="\n")
    writer.writeheader()
    writer.writerows(steps.values())
    return text.getvalue()


class _Trainer(Trainer):
    """Transformers' trainer with the loss of :class:`Tuned`.

    Checkpoints hold the weights that learn alone, but under FSDP all of :class:`Tuned`, with its frozen reference.
    """

    def __init__(self, model: Tuned, recipe: Recipe, **options: Any) -> None:
        super().__init__(model=model, **options)
        self.recipe = recipe
        self.model_accepts_loss_kwargs = True  # the loss is of the whole batch already, not of one of its parts
        self.remove_callback(PrinterCallback)
        self.tuned, self.saving = model, 0.0

    def _save_checkpoint(self, *given: Any, **options: Any) -> None:
        self.saving = time.monotonic()
        super()._save_checkpoint(*given, **options)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The part's share of the batch's loss; gradients are averaged over processes, so it is theirs times more."""
        assert num_items_in_batch is not None
        assert not return_outputs
        inputs = inputs | self._beside(inputs.pop("numbers", None))
        loss = model(**inputs, items=float(num_items_in_batch))
        # FSDP rounds what its root returns to bfloat16: good enough to begin the gradients at, not for the curve.
        loss = loss + (self.tuned.exact - loss.detach())
        return loss * self.accelerator.num_processes

    def _beside(self, numbers: Tensor | None) -> dict[str, Tensor]:
        """What each token's conversation is tuned beside, where that is not the paper's: drawn anew at each step."""
        if numbers is None:
            return {}
        total, step = len(self.train_dataset), self.state.global_step  # type: ignore[arg-type]
        beta, model = drawn(self.recipe, self.args.seed, step, numbers.cpu(), total)
        found = {"beta": beta} | ({"model": model} if self.recipe.references else {})
        return {name: of.to(numbers.device) for name, of in found.items()}

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Mean loss over the assistant's tokens of the validation split, logged as ``eval_loss``.

        A reward's is that on its own source, β = 1, however it is tuned.

        Over several processes the last batch may be filled up with conversations that were seen already.
        """
        model = self.model_wrapped.eval()
        sums = torch.zeros(2, dtype=torch.float64, device=self.args.device)
        with torch.no_grad():
            for batch in self.get_eval_dataloader():
                inputs = self._prepare_inputs(batch)
                learned = (inputs["labels"][:, 1:] != IGNORED).sum()
                model(**inputs, items=1.0)
                sums += torch.stack([self.tuned.exact, learned])
        sums = self.accelerator.reduce(sums)
        metrics = {"eval_loss": float(sums[0] / sums[1])}
        self.log(metrics)
        return metrics

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        if self.args.should_save:
            folder = Path(output_dir or str(self.args.output_dir))
            folder.mkdir(parents=True, exist_ok=True)
            save_file({name: p.detach().contiguous() for name, p in _learning(self.tuned)}, folder / WEIGHTS)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        with _reading(resume_from_checkpoint), torch.no_grad():
            tensors = load_file(Path(resume_from_checkpoint) / WEIGHTS)
            for name, parameter in _learning(self.tuned):
                parameter.copy_(tensors[name])

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with _reading(checkpoint):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with _reading(checkpoint):
            super()._load_rng_state(checkpoint)


@contextmanager
def _reading(checkpoint: str | None) -> Iterator[None]:
    """Tell in a sentence that a checkpoint is damaged: what reads its parts raises many kinds of errors."""
    try:
        yield
    except Exception as error:
        raise InputError(
            f"the checkpoint {checkpoint} is damaged ({first_line(error)}); delete it, and run again to start over."
        ) from error


def _learning(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, p) for name, p in model.named_parameters() if p.requires_grad]


class _Watch(TrainerCallback):
    """Progress, checkpoints and an end to a loss that is not finite.

    Checkpoints are written every two minutes, or less often where they take long, and on a signal.
    """

    def __init__(self, name: str, recipe: Recipe, mark: str, stop: Stop, more: bool) -> None:
        self.name, self.recipe, self.mark, self.stop, self.more = name, recipe, mark, stop, more
        self.saved, self.took, self.signal = time.monotonic(), 0.0, 0
        self.trainer: _Trainer
        self.bar: Any = None

    def on_train_begin(self, args: TrainingArguments, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            self.bar = progress(self.name, state.max_steps, "it", state.global_step)

    def on_step_end(self, args: TrainingArguments, state: Any, control: Any, **_: Any) -> None:
        if self.bar is not None:
            self.bar.update()
        due = time.monotonic() - self.saved > max(CHECKPOINT_SECONDS, SAVING_SHARE * self.took)
        asked = torch.tensor([self.stop.signal, int(due)], device=args.device)
        # All processes save and stop at the same step, though a signal reaches them at different times.
        self.signal, due = self.trainer.accelerator.gather(asked).view(-1, 2).amax(0).tolist()
        done = self.more and state.global_step == state.max_steps
        control.should_save = bool(self.signal or due or done)
        control.should_training_stop = control.should_training_stop or bool(self.signal)

    def on_log(self, args: TrainingArguments, state: Any, control: Any, **given: Any) -> None:
        for value in (given["logs"][key] for key in ("loss", "eval_loss") if key in given["logs"]):
            if not math.isfinite(value):
                raise diverged(self.name, value, state.global_step - 1, self.recipe.lr, self.recipe.precision)
            if self.bar is not None:
                self.bar.set_postfix(loss=f"{value:.4f}", refresh=False)

    def on_save(self, args: TrainingArguments, state: Any, control: Any, **_: Any) -> None:
        self.trainer.accelerator.wait_for_everyone()
        if args.should_save:
            folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
            for file in filter(Path.is_file, folder.rglob("*")):
                with file.open("rb") as opened:
                    os.fsync(opened.fileno())
            write_json(folder / WHOLE, {"identity": self.mark, "state": file_hash(folder / TRAINER_STATE_NAME)})
        self.saved = time.monotonic()
        self.took = self.saved - self.trainer.saving


def _checkpoint(folder: Path, mark: str) -> str | None:
    """The newest whole checkpoint of this run; half ones, and those of another configuration, are removed."""
    found = None
    numbers = (path.name.partition("-")[2] for path in folder.glob("checkpoint-*"))
    for number in sorted(map(int, filter(str.isdecimal, numbers))):
        checkpoint = folder / f"checkpoint-{number}"
        if (checkpoint / WHOLE).is_file():
            said, state = read_json(checkpoint / WHOLE, "checkpoint"), checkpoint / TRAINER_STATE_NAME
            is_ours = said.get("identity") == mark
            if is_ours and state.is_file() and file_hash(state) == said.get("state"):
                found = str(checkpoint)
                continue
            print(f"starting over: {checkpoint} {'is damaged' if is_ours else OTHER}.", file=sys.stderr)
        shutil.rmtree(checkpoint)
    return found


def _arguments(
    recipe: Recipe, folder: Path, seed: int, passes: int, conversations: int, device: torch.device, tuned: Tuned
) -> TrainingArguments:
    gpu = device.type == "cuda"
    sharding: dict[str, Any] = {}
    if gpu and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        networks = (tuned.network, *tuned.further)
        layers = sorted({layer for network in networks for layer in causal(network)._no_split_modules or ()})
        config = {"transformer_layer_cls_to_wrap": layers, "state_dict_type": "SHARDED_STATE_DICT"}
        # Gradients are shared out after each pass: kept until the last, each GPU would hold all of them.
        accumulation_options = {"gradient_accumulation_kwargs": {"sync_each_batch": True}}
        sharding = {"fsdp": True, "fsdp_config": config, "accelerator_config": accumulation_options}
    return TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=recipe.per_device_batch,
        per_device_eval_batch_size=recipe.per_device_batch,
        gradient_accumulation_steps=passes,
        num_train_epochs=recipe.epochs,
        learning_rate=recipe.lr,
        weight_decay=recipe.weight_decay,
        warmup_steps=recipe.warmup,
        lr_scheduler_type="linear",
        max_grad_norm=recipe.clip or 0.0,
        bf16=recipe.precision == "bf16",
        seed=seed,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",  # _Watch decides
        save_total_limit=2,  # the older is removed before the newer is known to be whole
        eval_strategy="steps",
        eval_steps=math.ceil(conversations / recipe.batch),  # an epoch
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        use_cpu=not gpu,
        dataloader_pin_memory=gpu,
        ddp_find_unused_parameters=False,
        **sharding,
    )
