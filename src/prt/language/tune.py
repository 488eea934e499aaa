"""Instruction tuning of a causal language model: FT and PRT (Algorithm 1), whole or by LoRA, on transformers' trainer.

Several GPUs: start one process for each (``torchrun --nproc-per-node 8``); what is trained, and the frozen reference,
are then sharded over them.
"""

import csv
import io
import math
import os
import re
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import PartialState  # type: ignore[import-untyped]
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from prt.atomic import fingerprint, read_json, write_json, write_text
from prt.errors import InputError, known
from prt.language.chats import IGNORED, SPLITS, Manifest, chat_template, packed, padded, read_tokens, tokenise
from prt.language.loss import ft_loss, prt_loss
from prt.language.models import DTYPES, Causal, load, vocabulary
from prt.language.reward import check_writable, save_tuned, weights_hash
from prt.progress import progress
from prt.training import CHECKPOINT_SECONDS, Stop

WHOLE = "whole.json"  # in a checkpoint that is finished
TOKENS = "tokens"  # beside the checkpoints
SAVING_SHARE = 20  # a checkpoint is written at most every so many times as long as the last one took
WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Recipe:
    """How a language model is tuned. The defaults are the paper's (App. B.2), where it speaks.

    A batch is ``batch`` conversations over all processes; the loss is its mean over all the assistant's tokens. The
    paper says Adam: that is AdamW with ``weight_decay`` 0 (which spares biases and norms in any case). ``warmup`` is a
    share of all steps, ``clip`` the greatest gradient norm (None: no clipping). A longer conversation is cut at
    ``max_length`` tokens. ``per_device_batch`` conversations go through the network at once, one after another in one
    row where ``packing`` is on: the same result without padding, but attention then costs the row's length squared,
    which is dear where the network is small and the batch is large. bf16: the weights are kept in float32 and computed
    with in bfloat16; a frozen network is kept in it.
    """

    lr: float = 2e-5
    batch: int = 128
    epochs: int = 2
    weight_decay: float = 0.0
    warmup: float = 0.03
    clip: float | None = None
    max_length: int = 2048
    precision: Literal["fp32", "bf16"] = "bf16"
    per_device_batch: int = 4
    gradient_checkpointing: bool = True
    packing: bool = True

    def __post_init__(self) -> None:
        known(self.precision, DTYPES, "precision")
        _whole_numbers(self, "batch", "epochs", "max_length", "per_device_batch")
        for key in ("lr", "weight_decay", "warmup", "clip"):
            value = getattr(self, key)
            number = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf
            if not number and not (key == "clip" and value is None):
                raise InputError(f"'{key}' of the recipe is {value!r}; it must be a number, nought or more.")
        if self.clip == 0:
            raise InputError("'clip' of the recipe is 0, which would stop all learning; leave it out for no clipping.")
        if self.warmup >= 1:
            raise InputError(f"'warmup' of the recipe is {self.warmup}; it is a share of all steps, less than 1.")
        for key in ("gradient_checkpointing", "packing"):
            if not isinstance(getattr(self, key), bool):
                raise InputError(f"'{key}' of the recipe is {getattr(self, key)!r}; it must be true or false.")


@dataclass(frozen=True)
class Lora:
    """A low-rank adapter: its rank, its scale (alpha / rank), and the layers that get one.

    ``targets`` is PEFT's: names of layers, or "all-linear", which leaves the output layer out. The paper gives none of
    the three.
    """

    rank: int = 64
    alpha: int = 16
    targets: str | Sequence[str] = field(default="all-linear")

    def __post_init__(self) -> None:
        _whole_numbers(self, "rank", "alpha")
        names = [self.targets] if isinstance(self.targets, str) else self.targets
        if not isinstance(names, (list, tuple)) or not names or not all(isinstance(name, str) for name in names):
            raise InputError(
                f"'targets' of the adapter is {self.targets!r}; it must be a list of layers' names, or 'all-linear'."
            )


def _whole_numbers(settings: Recipe | Lora, *keys: str) -> None:
    for key in keys:
        value = getattr(settings, key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InputError(f"'{key}' is {value!r}; it must be a whole number, 1 or more.")


class Tuned(nn.Module):
    """A trained network with the frozen reference of its loss, and the loss as its forward pass.

    They are one module so that what wraps it for several GPUs sees all of the work: with FSDP, the layers of both
    networks are sharded, each on its own, and the embeddings and output matrices, which belong to the root, are
    gathered for the whole forward pass, so that the chunked loss reads them directly.

    Args:
        network: what is trained; a PeftModel trains its adapter.
        method: ft or prt; ``alpha`` as in :func:`prt.language.loss.prt_loss`.
        size: tokens of the tokenizer; see :func:`prt.language.loss.ft_loss`.
        reference: the frozen pretrained model of prt; None: ``network`` is a PeftModel, and its base is the reference.
    """

    def __init__(
        self, network: Any, method: str, alpha: float, size: int, reference: PreTrainedModel | None = None
    ) -> None:
        super().__init__()
        self.network, self.method, self.alpha, self.size = network, method, alpha, size
        self.reference = None if reference is None else reference.requires_grad_(False).eval()
        self.exact = torch.zeros(())  # the last loss, as it was computed

    def train(self, mode: bool = True) -> "Tuned":
        """As ever, but the reference stays as it is for inference."""
        super().train(mode)
        if self.reference is not None:
            self.reference.eval()
        return self

    def forward(self, labels: Tensor, items: float, **inputs: Tensor) -> Tensor:
        """The loss of a batch, a scalar: its sum over the tokens, by ``items``.

        Args:
            labels: (N, T), the token itself where it is learned, else ``IGNORED``.
            inputs: input_ids (N, T), and attention_mask of rows with padding, or position_ids of packed rows.
        """
        following = labels[:, 1:]
        learned = following != IGNORED
        truth = following[learned]

        def hidden(network: Any) -> Tensor:
            # With a cache, transformers takes packed rows for one sequence.
            states = backbone(network)(**inputs, use_cache=False).last_hidden_state
            return states[:, :-1][learned]

        if self.method == "ft":
            loss = ft_loss(hidden(self.network), head(self.network), truth, size=self.size, items=items)
        else:
            frozen = self._frozen(hidden)
            rewards = hidden(self.network), head(self.network)
            loss = prt_loss(*rewards, *frozen, truth, self.alpha, size=self.size, items=items)
        self.exact = loss.detach()
        return loss

    def _frozen(self, hidden: Callable[[Any], Tensor]) -> tuple[Tensor, Tensor]:
        """Hidden states and output matrix of the reference."""
        with torch.no_grad():
            if self.reference is not None:
                return hidden(self.reference), head(self.reference)
            mode = self.network.training
            with self.network.disable_adapter():
                states = hidden(self.network.eval())
            self.network.train(mode)
            return states, head(self.network)


def causal(network: Any) -> PreTrainedModel:
    """The causal language model itself, where it is one with an adapter."""
    return network if isinstance(network, PreTrainedModel) else network.get_base_model()


def backbone(network: Any) -> Any:
    """The part of a causal language model that makes hidden states."""
    model = causal(network)
    return getattr(model, model.base_model_prefix)


def head(network: Any) -> Tensor:
    """The output matrix (V, d), which may be that of the embeddings, too."""
    return causal(network).get_output_embeddings().weight


def check(model: Causal, recipe: Recipe) -> int:
    """Refuse a model that cannot be tuned here; the number of its tokenizer's tokens.

    Raises:
        InputError: if its context is shorter than ``max_length``, its output layer has not a row for each token, or its
            logits are more than the product of hidden states and output matrix.
    """
    network, size = model.model, vocabulary(model.tokenizer).size
    context = getattr(network.config, "max_position_embeddings", None)
    if context is not None and recipe.max_length > context:
        raise InputError(
            f"'max_length' of the recipe is {recipe.max_length}, but the context of {model.name} is {context}; "
            "lower it."
        )
    rows = len(head(network))
    if rows < size:
        raise InputError(
            f"the output layer of {model.name} has {rows} rows, but its tokenizer {size} tokens: their files do not "
            "belong together."
        )
    with torch.no_grad():
        ids = torch.arange(min(8, size), device=network.device)[None]
        states = backbone(network)(input_ids=ids, use_cache=False).last_hidden_state
        logits = network(input_ids=ids, use_cache=False).logits
        if not torch.allclose(states @ head(network).T, logits, rtol=0.02, atol=0.02 * float(logits.abs().max())):
            raise InputError(
                f"the output layer of {model.name} does more than a product with a matrix (a bias, a scale or a cap), "
                "which the loss in chunks does not know; take a model of the Llama, Qwen2 or Falcon3 class."
            )
    return size


class _Collator:
    def __init__(self, packing: bool, pad: int) -> None:
        self.packing, self.pad = packing, pad

    def __call__(self, rows: list[dict[str, list[int]]]) -> dict[str, Tensor]:
        columns = packed(rows) if self.packing else padded(rows, self.pad)
        return {name: torch.tensor(values) for name, values in columns.items()}


class _Trainer(Trainer):
    """Transformers' trainer with the loss of :class:`Tuned`.

    Checkpoints hold the weights that learn alone, but under FSDP all of :class:`Tuned`, with its frozen reference.
    """

    def __init__(self, model: Tuned, **options: Any) -> None:
        super().__init__(model=model, **options)
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
        loss = model(**inputs, items=float(num_items_in_batch))
        # FSDP rounds what its root returns to bfloat16: good enough to begin the gradients at, not for the curve.
        loss = loss + (self.tuned.exact - loss.detach())
        return loss * self.accelerator.num_processes

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Mean loss over the assistant's tokens of the validation split, logged as ``eval_loss``.

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
        tensors = load_file(Path(resume_from_checkpoint) / WEIGHTS)
        with torch.no_grad():
            for name, parameter in _learning(self.tuned):
                parameter.copy_(tensors[name])


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
                remedies = [f"lower the learning rate ({self.recipe.lr})", "set 'clip'"]
                if self.recipe.precision != "fp32":
                    remedies.append(f"use precision fp32 (now {self.recipe.precision})")
                raise InputError(
                    f"the loss of {self.name} is {value} at iteration {state.global_step - 1}: "
                    f"{', '.join(remedies[:-1])} or {remedies[-1]}."
                )
            if self.bar is not None:
                self.bar.set_postfix(loss=f"{value:.4f}", refresh=False)

    def on_save(self, args: TrainingArguments, state: Any, control: Any, **_: Any) -> None:
        self.trainer.accelerator.wait_for_everyone()
        if args.should_save:
            folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
            for file in filter(Path.is_file, folder.rglob("*")):
                with file.open("rb") as opened:
                    os.fsync(opened.fileno())
            write_json(folder / WHOLE, {"identity": self.mark})
        self.saved = time.monotonic()
        self.took = self.saved - self.trainer.saving


def _checkpoint(folder: Path, mark: str) -> str | None:
    """The newest whole checkpoint of this run; half ones, and those of another configuration, are removed."""
    found = None
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2])):
        if (checkpoint / WHOLE).is_file():
            if read_json(checkpoint / WHOLE, "checkpoint").get("identity") == mark:
                found = str(checkpoint)
                continue
            print(f"starting over: {checkpoint} belongs to another configuration.", file=sys.stderr)
        shutil.rmtree(checkpoint)
    return found


def tune(
    spec: str,
    *,
    name: str,
    dataset: str,
    data: Manifest,
    method: str,
    recipe: Recipe,
    seeds: Sequence[int],
    out: Path,
    checkpoints: Path,
    device: torch.device,
    alpha: float = 0.0,
    lora: Lora | None = None,
    template: str = "tulu",
) -> None:
    """Tune once for each seed, and write each to ``out/SEED``: see ``prt.language.reward``, and ``curve.csv``.

    Algorithm 1: the reward starts as the pretrained weights; its loss is the cross-entropy of softmax(log π_pt + r);
    log π_pt is the same model's, frozen.

    Args:
        spec: a folder in transformers' format or a name on the hub; ``name`` and ``dataset`` are the model's and the
            data's names in tables.
        method: ft or prt; ``alpha`` is the latter's weight of entropy maximisation.
        lora: tune an adapter; the reference of prt is then its base, not a second copy.
        checkpoints: a folder for what a killed run goes on from, bit for bit on a CPU: ``SEED/checkpoint-*`` and
            ``SEED/tokens``, which are gone when all is done.
        template: see :func:`prt.language.chats.chat_template`.

    Raises:
        InputError: for a negative alpha, or one with ft, a recipe that does not fit the model or the processes, an
            ``out`` that cannot be written, a loss that is not finite, …
        SystemExit: with 128 + the signal's number, after a checkpoint.
    """
    known(method, ("ft", "prt"), "tuning method")
    if not 0 <= alpha < math.inf:
        raise InputError(f"alpha is {alpha}, but the weight of entropy maximisation cannot be negative; use 0 or more.")
    if alpha and method == "ft":
        raise InputError(
            f"alpha is {alpha}, but ft has no entropy to maximise; leave alpha out, or use the method prt."
        )
    for seed in seeds:
        check_writable(out / str(seed))
    accumulation = _accumulation(recipe, device)
    dtype = DTYPES[recipe.precision]
    # What is only read, LoRA's base or a reference, is kept in the precision of the products.
    pretrained = load(spec, dtype, torch.device("cpu"), name)
    size, tokenizer = check(pretrained, recipe), pretrained.tokenizer
    tokenizer.chat_template = chat_template(tokenizer, template, name)
    rows, counts = _tokens(data, checkpoints / str(seeds[0]) / TOKENS, tokenizer, recipe, device)
    facts: dict[str, Any] = {
        "method": method,
        "alpha": alpha if method == "prt" else None,
        "lora": lora and asdict(lora),
        "base": {"name": name, "spec": spec, "weights_sha256": weights_hash(spec)},
        "dataset": {"name": dataset, "fingerprint": data.fingerprint, "tokens": counts},
        "template": template,
        "recipe": asdict(recipe),
    }
    del pretrained
    for seed in seeds:
        # Loaded anew each time: what is sharded over processes stays so.
        network = _network(spec, name, lora, seed, recipe)
        reference = load(spec, dtype, torch.device("cpu")).model if method == "prt" and not lora else None
        tuned = Tuned(network, method, alpha, size, reference)
        run = f"{method}{'-lora' if lora else ''}" + (f" α={alpha:g}" if method == "prt" else "")
        title = f"{run} {name} {dataset} {seed}"
        args = _arguments(recipe, checkpoints / str(seed), seed, accumulation, len(rows["train"]), device, network)
        mark = fingerprint(facts, seed, accumulation)
        trainer = _run(tuned, args, rows, tokenizer, recipe, title, mark, more=seed != seeds[-1])
        state = None
        if trainer.is_fsdp_enabled:  # gathered by all processes, kept by the first
            whole = trainer.accelerator.get_state_dict(trainer.model)
            state = {k.removeprefix("network."): v for k, v in whole.items() if k.startswith("network.")}
            state = state if lora else {k: v.to(dtype) for k, v in state.items()}
        elif not lora:
            network.to(dtype)
        if args.should_save:
            write_text(out / str(seed) / "curve.csv", _curve(trainer.state.log_history))
            save_tuned(out / str(seed), network, tokenizer, facts | {"seed": seed}, state)
        del network, reference, tuned, trainer, state  # before the next ones are loaded
    if PartialState().is_main_process:
        _clear(checkpoints, seeds)


def _clear(checkpoints: Path, seeds: Sequence[int]) -> None:
    """Remove what tuning left there; the folder may be the user's, or another job's, too."""
    folders = [checkpoints / str(seed) for seed in seeds]
    for folder in folders:
        for made in (*folder.glob("checkpoint-*"), folder / TOKENS):
            shutil.rmtree(made, ignore_errors=True)
    for folder in (*folders, checkpoints):
        with suppress(OSError):  # something else is in it
            folder.rmdir()


def _accumulation(recipe: Recipe, device: torch.device) -> int:
    """Passes of each process that make one batch."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if device.type == "cuda" and processes == 1 and torch.cuda.device_count() > 1:
        raise InputError(
            f"{torch.cuda.device_count()} GPUs are visible to one process: start one for each with torchrun, or choose "
            "one with CUDA_VISIBLE_DEVICES."
        )
    if recipe.batch % (recipe.per_device_batch * processes):
        raise InputError(
            f"a batch of {recipe.batch} cannot be made of 'per_device_batch' {recipe.per_device_batch} on {processes} "
            "processes; change one, so that it divides."
        )
    return recipe.batch // (recipe.per_device_batch * processes)


def _tokens(
    data: Manifest, folder: Path, tokenizer: PreTrainedTokenizerBase, recipe: Recipe, device: torch.device
) -> tuple[dict[str, Any], dict[str, dict[str, int]]]:
    """The tokens of both splits and their counts, made once by the first process and read by all."""
    template = str(tokenizer.chat_template)
    mark = fingerprint(data.fingerprint, vocabulary(tokenizer).sha256, template, recipe.max_length)[:16]
    files = {split: folder / f"{split}-{mark}.arrow" for split in SPLITS}
    with PartialState(cpu=device.type == "cpu").main_process_first():
        for split, file in files.items():
            if not file.is_file():
                tokenise(data, split, file, tokenizer, template, recipe.max_length)
    read = {split: read_tokens(file) for split, file in files.items()}
    counts = {split: counts for split, (_, counts) in read.items()}
    for split, found in counts.items():
        if (found["truncated"] or found["dropped"]) and PartialState().is_main_process:
            print(
                f"{split}: {found['truncated']} conversations are longer than {recipe.max_length} tokens and were cut; "
                f"{found['dropped']} were dropped, as nothing of the assistant was left.",
                file=sys.stderr,
            )
    return {split: rows for split, (rows, _) in read.items()}, counts


def _network(spec: str, name: str, lora: Lora | None, seed: int, recipe: Recipe) -> Any:
    """What is trained: the pretrained weights in float32, or with a fresh adapter."""
    dtype = DTYPES[recipe.precision] if lora else torch.float32
    network: Any = load(spec, dtype, torch.device("cpu")).model
    if recipe.gradient_checkpointing:
        network.activation_checkpointing_enable()
    if lora is None:
        return network
    from peft import LoraConfig, get_peft_model

    targets = lora.targets if isinstance(lora.targets, str) else list(lora.targets)
    config = LoraConfig(task_type="CAUSAL_LM", r=lora.rank, lora_alpha=lora.alpha, target_modules=targets)
    torch.manual_seed(seed)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers by an old name
            network = get_peft_model(network, config)
    except (ValueError, re.error) as error:  # a text is a regular expression
        raise InputError(f"LoRA cannot be put on {name}: {error}; correct 'targets'.") from error
    if any(p.requires_grad for p in causal(network).get_output_embeddings().parameters()):
        raise InputError("LoRA on the output layer is not known to the loss; take it out of 'targets'.")
    embeddings: Any = causal(network).get_input_embeddings()
    if embeddings.weight is head(network) and any(p.requires_grad for p in embeddings.parameters()):
        raise InputError(
            f"LoRA on the input embeddings of {name} would change its output layer, which is the same matrix, when it "
            "is merged; take them out of 'targets'."
        )
    return network


def _arguments(
    recipe: Recipe, folder: Path, seed: int, accumulation: int, conversations: int, device: torch.device, network: Any
) -> TrainingArguments:
    gpu = device.type == "cuda"
    sharding: dict[str, Any] = {}
    if gpu and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        layers = sorted(causal(network)._no_split_modules or ())
        config = {"transformer_layer_cls_to_wrap": layers, "state_dict_type": "SHARDED_STATE_DICT"}
        # Gradients are shared out after each pass: kept until the last, each GPU would hold all of them.
        accumulation_options = {"gradient_accumulation_kwargs": {"sync_each_batch": True}}
        sharding = {"fsdp": True, "fsdp_config": config, "accelerator_config": accumulation_options}
    return TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=recipe.per_device_batch,
        per_device_eval_batch_size=recipe.per_device_batch,
        gradient_accumulation_steps=accumulation,
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


def _run(
    tuned: Tuned,
    args: TrainingArguments,
    rows: dict[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    recipe: Recipe,
    title: str,
    mark: str,
    more: bool,
) -> _Trainer:
    """Train, or go on training; the trainer afterwards. ``more`` runs follow, so that this one's end is kept."""
    with Stop() as stop:
        watch = _Watch(title, recipe, mark, stop, more)
        watch.trainer = trainer = _Trainer(
            tuned,
            args=args,
            train_dataset=rows["train"],
            eval_dataset=rows["validation"],
            data_collator=_Collator(recipe.packing, tokenizer.eos_token_id or 0),
            callbacks=[watch],
        )
        with PartialState().main_process_first():
            resume = _checkpoint(Path(str(args.output_dir)), mark)
        try:
            trainer.train(resume_from_checkpoint=resume)
        finally:
            if watch.bar is not None:
                watch.bar.close()
    if watch.signal:
        print(f"{title}: stopped by a signal after iteration {trainer.state.global_step}; run again to go on.",
              file=sys.stderr)  # fmt: skip
        raise SystemExit(128 + watch.signal)
    if not all(bool(torch.isfinite(p).all()) for _, p in _learning(tuned)):
        raise InputError(
            f"the weights of {title} are not finite after the last iteration: lower the learning rate ({recipe.lr})."
        )
    return trainer


def _curve(history: list[dict[str, float]]) -> str:
    """The losses of each step, as CSV; the validation loss after each epoch."""
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
