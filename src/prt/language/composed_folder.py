"""A composed model as a folder: its models, each whole in a folder of its own, and what says how they are added.

It has the form of transformers' own folders, with the ``model_type`` prt: whoever has imported
:mod:`prt.language.composed` loads it by ``AutoModelForCausalLM.from_pretrained``. No code is in it.
"""

import copy
from collections.abc import Sequence
from dataclasses import field
from os.path import isdir
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedTokenizerBase

from prt import hub, reward
from prt.atomic import file_hash, making, write_json
from prt.errors import InputError, first_line
from prt.language.models import Causal, load, read_tokenizer, vocabulary
from prt.language.prompts import template_of
from prt.methods import tuned_among

TARGET = "target"
IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
# What says where a folder of the hub is found, as huggingface_hub names it.
FINDING = ("revision", "token", "cache_dir", "local_files_only", "force_download")
SPREAD = ("auto", "balanced", "balanced_low_0", "sequential")
# What transformers, its pipelines, its server and lm-eval hand on, and what loads no other model.
HANDED_ON = ("_from_auto", "_from_pipeline", "adapter_kwargs", "tqdm_class", "trust_remote_code", "use_safetensors")


class ComposedConfig(PreTrainedConfig):
    """What a composed model is a sum of: for each model, the target first, its ``folder``, ``name`` and ``weight``."""

    model_type = "prt"

    method: str = "prt"
    models: list[dict[str, Any]] = field(default_factory=list)
    vocab_size: int = 0
    max_position_embeddings: int | None = None


def described(target: Causal, parts: Sequence[tuple[Causal, float]]) -> list[dict[str, Any]]:
    """What ``models`` of a :class:`ComposedConfig` says of a sum: target + Σ weight · part. No path is in it."""
    folders = [TARGET, *(f"added-{number}" for number in range(1, len(parts) + 1))]
    return [
        {"folder": folder, "name": Path(part.name).name if isdir(part.name) else part.name, "weight": float(weight)}
        for folder, (part, weight) in zip(folders, [(target, 1.0), *parts], strict=True)
    ]


def refuse_options(options: dict[str, Any], what: str) -> None:
    """Refuse options of transformers that would do nothing, or something else; ``what`` is done with them.

    Raises:
        InputError: naming the first.
    """
    for name, value in options.items():
        if value and name not in HANDED_ON:
            raise InputError(
                f"a composed model is not {what} with '{name}': leave it out, or do so with its models, which are "
                "folders of transformers' own in the composed one's."
            )


def write_folder(
    folder: Path,
    causals: Sequence[Causal],
    config: ComposedConfig,
    generation: GenerationConfig,
) -> None:
    """Write a composed model; the folder appears whole or not at all.

    Args:
        causals: the models, the target first; its tokenizer is the folder's, with the chat template that the others
            were tuned in, if they have one.
        config: the composed model's; its ``models`` are those of the same order.
        generation: how it generates.

    Raises:
        InputError: if ``folder`` is there already or cannot be written, the settings for generating are not valid, or
            a tokenizer would be loaded as another; if there are two chat templates.
    """
    template = _template(causals, config.method)
    with making(folder) as aside:
        for part, causal in zip(config.models, causals, strict=True):
            _write_part(aside / part["folder"], causal)
        tokenizer = copy.deepcopy(causals[0].tokenizer)
        tokenizer.chat_template = template
        config = copy.deepcopy(config)
        # transformers' server takes the class of this name from transformers itself.
        config.architectures = ["AutoModelForCausalLM"]
        config.save_pretrained(aside)
        _write_tokenizer(aside, tokenizer, causals[0].name)
        try:
            generation.save_pretrained(aside)
        except ValueError as error:
            raise InputError(
                f"its generation_config is not valid ({first_line(error)}); correct it, and save the model again."
            ) from error
        files = sorted(file for file in aside.rglob("*") if file.is_file())
        manifest = {
            "kind": "composed",
            "method": config.method,
            "models": config.models,
            "files": {str(file.relative_to(aside)): file_hash(file) for file in files},
        }
        write_json(aside / reward.MANIFEST, manifest | reward.provenance("transformers"))


def _template(causals: Sequence[Causal], method: str) -> str | None:
    """The chat template of a sum: what was tuned has it; the target's own, where that has none."""
    named = [(part.name, part.tokenizer) for part in tuned_among(method, causals[1:])]
    found = template_of(named, "take rewards that were tuned with the same one")
    return found or causals[0].tokenizer.chat_template


def _write_part(folder: Path, causal: Causal) -> None:
    """Write one model, without its habits of sampling: they are no part of the sum, and may not even be valid."""
    model: Any = causal.model
    own = model.generation_config
    model.generation_config = GenerationConfig(**{name: getattr(own, name) for name in IDS})
    try:
        model.save_pretrained(folder)
    finally:
        model.generation_config = own
    _write_tokenizer(folder, causal.tokenizer, causal.name)


def _write_tokenizer(folder: Path, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Write a tokenizer beside a model's configuration, by which transformers may choose another class for it."""
    tokenizer.save_pretrained(folder)
    there = read_tokenizer(str(folder))
    if vocabulary(there) != vocabulary(tokenizer):
        raise InputError(
            f"transformers reads the tokenizer of {name} as another ({type(there).__name__}) beside its model: load "
            "both from one folder, and compose them again."
        )


def read_folder(
    spec: str, dtype: torch.dtype | str, device_map: Any, finding: dict[str, Any]
) -> tuple[list[Causal], ComposedConfig, GenerationConfig]:
    """Read what :func:`write_folder` wrote: the models, the target first; how they are added; how the sum generates.

    Nothing is read but the files that the manifest names with their hashes.

    Args:
        spec: a folder, or a name on the Hugging Face hub.
        dtype: of all models, as transformers takes it; auto: as they were written.
        device_map: as transformers takes it, but for a mapping of several modules.
        finding: where on the hub, see ``FINDING``.

    Raises:
        InputError: if it is no folder of a composed model, a file is missing or was changed, a model cannot be loaded,
            or it does not fit into the memory of the devices.
    """
    folder = _found(spec, finding)
    manifest = reward.read_manifest(folder, "composed")
    device = _device(device_map)
    with reward.unchanged(folder, manifest["files"]) as whole:
        config = ComposedConfig.from_pretrained(whole)
        if config.models != manifest["models"] or config.method != manifest["method"]:
            raise InputError(f"{folder / 'config.json'} says another sum than the manifest; compose it again.")
        generation = GenerationConfig.from_pretrained(whole)
        parts = [(str(whole / part["folder"]), part["name"]) for part in manifest["models"]]
        causals = [load(place, dtype, device, name) for place, name in parts]
    return causals, config, generation


def _device(device_map: Any) -> torch.device | str:
    """A device, or in which of its ways transformers is to spread every model over all devices."""
    if isinstance(device_map, dict) and set(device_map) == {""}:
        device_map = device_map[""]
    if isinstance(device_map, dict):
        raise InputError(
            "a composed model has no device_map of modules: give one device, or 'auto', by which each of its models is "
            "spread."
        )
    if device_map in SPREAD:
        return str(device_map)
    return torch.device("cpu" if device_map is None else device_map)


def _found(spec: str, finding: dict[str, Any]) -> Path:
    if isdir(spec):
        return Path(spec)
    try:
        folder = Path(hf_hub_download(spec, reward.MANIFEST, **finding)).parent
        for name in reward.read_manifest(folder, "composed")["files"]:  # snapshot_download may take half for all
            hf_hub_download(spec, name, **finding | {"revision": folder.name})
        return folder
    except InputError:
        raise
    except Exception as error:  # network, name, licence, space: many kinds
        raise hub.refusal(spec, "model", error) or InputError(
            f"the composed model {spec} cannot be had ({first_line(error)}); correct its name, or fetch it again."
        ) from error
