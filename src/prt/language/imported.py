"""Fine-tuned models and adapters that others made, as folders of the form that tuning writes."""

import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

from prt import hub
from prt import reward as tuned
from prt.atomic import making, read_json
from prt.errors import InputError, first_line, known
from prt.language import is_missing
from prt.language.models import fetch, load, load_config, load_tokenizer, shared_ids, vocabulary
from prt.language.network import adapter_config
from prt.language.recipe import Lora
from prt.language.reward import adapted, describe, lacking_and_more, save_tuned, weights_hash

ADAPTER_WEIGHTS = "adapter_model.safetensors"
SAID = frozenset({  # what PEFT's file says that a manifest says too, or that makes no difference to the outputs
    "r", "lora_alpha", "target_modules", "lora_dropout", "task_type", "base_model_name_or_path", "auto_mapping",
    "inference_mode", "peft_type", "peft_version", "revision",
})  # fmt: skip
# What fine-tuning leaves as it is, among what a configuration says.
SIZES = ("model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
MERGE_IT = "merge it into its base, as PEFT's merge_and_unload does where it can, and import the whole model"
NAME_IT = "name the model that it was tuned from with --base"


def import_model(spec: str, base: str | None, out: Path, *, method: str, downloads: Path) -> None:
    """Make a folder as tuning writes it (:mod:`prt.language.reward`) of what others tuned; what is not known is null.

    Args:
        spec: a folder in transformers' format or of a PEFT LoRA adapter, or the name of either on the hub.
        base: the model that it was tuned from, a folder or a name on the hub; an adapter may itself name it.
        out: the folder that is made; it appears whole or not at all.
        method: what it was tuned to be: ``ft``, or ``prt`` for a reward, whose logits are added to log-probabilities.
        downloads: where models of the hub are fetched to, as by the pipeline.

    Raises:
        InputError: if either model cannot be had or is damaged, they differ in size or in more than control tokens,
            an adapter does not fit its base or cannot be merged into it, or ``out`` is there or cannot be written.
    """
    known(method, tuned.MADE, "method of a model that is imported,")
    with making(out) as aside, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of PEFT, about what is refused here
        folder = _fetched(spec, downloads)
        if (folder / tuned.MANIFEST).is_file():
            if (kind := read_json(folder / tuned.MANIFEST).get("kind", "language")) != "language":
                raise InputError(
                    f"{folder} holds no language model that others tuned, but is of kind {kind}; name a folder in "
                    "transformers' or PEFT's format."
                )
            raise InputError(f"{folder} has a {tuned.MANIFEST} already, as what this command makes; use it as it is.")
        described = (
            read_json(folder / hub.ADAPTER_CONFIG, "adapter's description")
            if (folder / hub.ADAPTER_CONFIG).is_file()
            else None
        )
        if described is None and not (folder / "config.json").is_file():
            raise InputError(
                f"there is neither a model (config.json) nor an adapter ({hub.ADAPTER_CONFIG}) in {folder}; name a "
                "folder in transformers' or PEFT's format."
            )
        lora = None if described is None else _lora(spec, folder, described)
        name, place = _base(spec, base, str((described or {}).get("base_model_name_or_path") or ""), downloads)
        if place.resolve() == folder.resolve():
            raise InputError(f"{spec} cannot be its own base; {NAME_IT}.")
        for model in (place, folder) if lora is None else (place,):
            if getattr(load_config(str(model)), "quantization_config", None) is not None:
                raise InputError(f"the weights of {model} are quantised, which is not supported; name the whole model.")
        facts = {
            "method": method,
            **dict.fromkeys(("alpha", "dataset", "template", "recipe", "seed")),
            "lora": None if lora is None else lora.model_dump(),
            "base": {"name": name, "spec": str(place.resolve()), "weights_sha256": weights_hash(str(place))},
            "imported": {"from": spec, "revision": hub.origin(folder).get("revision")},
        }
        if lora is None:
            _write_model(spec, folder, facts, aside)
        else:
            _write_adapter(spec, folder, facts, lora, aside)


def _fetched(spec: str, downloads: Path) -> Path:
    """The folder of a model; one of the hub is fetched, unless it was."""
    if Path(spec).is_dir():
        return Path(spec)
    if is_missing(spec):
        raise InputError(f"there is no folder {spec}; name a folder with a model, or one on the hub as OWNER/NAME.")
    place = downloads / "models" / hub.folder_name(spec)
    if not (place / "fetched.json").is_file():
        fetch(spec, place)
    return place


def _base(spec: str, base: str | None, said: str, downloads: Path) -> tuple[str, Path]:
    """Name and folder of the model that ``spec`` was tuned from: ``base``, or what an adapter ``said``."""
    if not (base or said):
        raise InputError(f"it is not known what {spec} was tuned from; {NAME_IT}.")
    try:
        place = _fetched(base or said, downloads)
        if not (place / "config.json").is_file():
            raise InputError(f"there is no model in {place} (no config.json); {NAME_IT}.")
    except InputError as error:
        if base:
            raise
        raise InputError(
            f"{spec} is an adapter of {said}, which is not to be had ({str(error).rstrip('.')}); {NAME_IT}."
        ) from None
    # Of a folder of the user's own it is not known whose it is, and a model may have several names.
    known_as = str(hub.origin(place).get("repository", ""))
    if said.count("/") == 1 and known_as and known_as.lower() != said.lower():
        raise InputError(
            f"{spec} is an adapter of {said}, not of {known_as}; name its base, or, if the weights are the same, a "
            "folder of your own with them."
        )
    return known_as or base or said, place


def _lora(spec: str, folder: Path, described: dict[str, Any]) -> Lora:
    """The adapter that PEFT's file describes, which must be a plain one: it can be described in three words."""
    from peft import LoraConfig

    if (kind := described.get("peft_type")) != "LORA":
        raise InputError(f"{spec} is an adapter of kind {kind}, not LoRA; {MERGE_IT}.")
    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise InputError(f"{spec} has no {ADAPTER_WEIGHTS}; save the adapter again, with a present version of PEFT.")
    plain = LoraConfig(task_type="CAUSAL_LM").to_dict() | {"bias": "none"}
    for key, value in described.items():
        if key == "init_lora_weights":
            odd = value not in (True, False, None, "gaussian", "orthogonal", "eva")  # the others change the base
        else:
            odd = key not in SAID and bool(value) and value != plain.get(key)
        if odd:
            raise InputError(f"the adapter {spec} has '{key}' {value!r}, which is not known here; {MERGE_IT}.")
    rank, alpha, targets = (described.get(key) for key in ("r", "lora_alpha", "target_modules"))
    values: dict[str, Any] = dict(
        rank=rank,
        alpha=int(alpha) if isinstance(alpha, float) and alpha.is_integer() else alpha,
        targets=sorted(targets) if isinstance(targets, list) else targets,  # PEFT writes a set
    )
    return Lora(**values)


def _write_model(spec: str, folder: Path, facts: dict[str, Any], out: Path) -> None:
    tokenizer = _tokenizer(spec, folder)
    _check_tokenizer(spec, tokenizer, facts["base"])
    model: Any = load(str(folder), "auto", torch.device("cpu"), spec).model
    base = load_config(facts["base"]["spec"])
    for size in SIZES:
        here, there = getattr(model.config, size, None), getattr(base, size, None)
        if here != there:
            name = facts["base"]["name"]
            raise InputError(f"{spec} was not tuned from {name}: {size} is {here} here and {there} there; {NAME_IT}.")
    own = model.generation_config  # habits of sampling are no part of what was tuned, and may not even be valid
    ends = {name: getattr(own, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    model.generation_config = GenerationConfig(**ends)
    save_tuned(out, model, tokenizer, facts)


def _write_adapter(spec: str, folder: Path, facts: dict[str, Any], lora: Lora, out: Path) -> None:
    own = any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json"))
    tokenizer = _tokenizer(spec, folder) if own else load_tokenizer(facts["base"]["spec"])
    _check_tokenizer(spec, tokenizer, facts["base"])
    _check_adapter(spec, folder, facts["base"], lora)
    adapter_config(lora).save_pretrained(out)
    shutil.copyfile(folder / ADAPTER_WEIGHTS, out / ADAPTER_WEIGHTS)
    tokenizer.save_pretrained(out)
    describe(out, tokenizer, facts)


def _tokenizer(spec: str, folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in a folder, beside a model or an adapter."""
    try:
        hub.refuse_code(str(folder))
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except InputError:
        raise
    except Exception as error:  # a damaged tokenizer.json raises a bare Exception
        raise InputError(
            f"{spec} has no tokenizer that can be loaded; save its tokenizer to its folder, too (often that of its "
            "base, if no tokens were added)."
        ) from error


def _check_tokenizer(spec: str, tokenizer: PreTrainedTokenizerBase, base: dict[str, str]) -> None:
    try:
        shared_ids(vocabulary(tokenizer), vocabulary(load_tokenizer(base["spec"])), (spec, base["name"]))
    except InputError as error:
        raise InputError(f"{spec} was not tuned from {base['name']}, whose tokenizer is another; {NAME_IT}.") from error


@torch.no_grad()
def _check_adapter(spec: str, folder: Path, base: dict[str, str], lora: Lora) -> None:
    """Refuse an adapter that PEFT would put on its base only in part, or not merge into it exactly."""

    def refusal(why: str) -> InputError:
        return InputError(f"the adapter {spec} does not fit {base['name']} ({why}); {NAME_IT}.")

    try:
        model = adapted(folder, base["spec"], lora)
        lacking, more = lacking_and_more(model, folder)
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        raise refusal(first_line(error)) from error
    if others := [key for key in more if ".lora_" not in key]:
        raise InputError(f"the adapter {spec} has more than LoRA's weights ({others[0]}); {MERGE_IT}.")
    if wrong := [*lacking, *more]:
        raise refusal(f"{'it lacks' if lacking else 'there is no place for'} {wrong[0]}")
    ids = torch.arange(8)[None]
    apart = model(input_ids=ids, use_cache=False).logits
    merged = model.merge_and_unload()(input_ids=ids, use_cache=False).logits
    if not torch.allclose(apart, merged, rtol=1e-2, atol=1e-2 * float(apart.abs().max())):
        raise InputError(
            f"the adapter {spec} cannot be merged into {base['name']} (it is on embeddings that are the output layer, "
            "too): untie them in the base, merge it, and import the whole model."
        )
