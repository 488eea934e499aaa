"""The portable reward of a language model, and the fine-tuned model, which has the same form.

A folder in transformers' format, or of a PEFT adapter that names its base, with its tokenizer and a manifest (JSON).
"""

import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import filter as fitting
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from prt import reward
from prt.atomic import check_finite, file_hash, fingerprint, remove, write_json
from prt.errors import InputError, first_line
from prt.hub import ADAPTER_CONFIG, FETCH
from prt.language.models import Causal, load, read_tokenizer, vocabulary, weights_must_be_there
from prt.language.network import adapter_config
from prt.language.recipe import Lora

# What transformers and PEFT write, besides the files that a kind of tokenizer has of its own.
FILES = (
    *("config.json", "generation_config.json", "model*.safetensors", "model.safetensors.index.json"),
    *(ADAPTER_CONFIG, "adapter_model*.safetensors"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja"),
)

ASIDE = ".part"
# Without these, nothing was tuned.
MODEL = ("config.json", "model*.safetensors")
ADAPTER = ("adapter_model.safetensors",)


def weights_hash(spec: str) -> str:
    """SHA-256 over the safetensors files of a model: a folder, or a name on the hub that was fetched.

    Raises:
        InputError: if there are none on this machine.
    """
    weights_must_be_there(spec)
    return fingerprint({file.name: file_hash(file) for file in sorted(_folder(spec).glob("*.safetensors"))})


def _folder(spec: str) -> Path:
    from huggingface_hub import snapshot_download

    if Path(spec).is_dir():
        return Path(spec)
    try:
        return Path(snapshot_download(spec, local_files_only=True))
    except (OSError, ValueError):  # not fetched; no name of a repository
        raise InputError(f"the model {spec} is not on this machine; {FETCH}, or correct its name.") from None


def check_writable(folder: Path) -> None:
    """Refuse a folder that :func:`save_tuned` could not write, long before there is something to write.

    Raises:
        InputError: if the folder, or the nearest one above it that is there, is a file, leads nowhere, or may not be
            written to.
    """
    there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not os.path.exists(there):
        raise InputError(f"cannot write {folder}: {there} is a link to nothing; remove it or choose another folder.")
    if not there.is_dir():
        raise InputError(f"cannot write {folder}: {there} is a file; remove it or choose another folder.")
    if not os.access(there, os.W_OK | os.X_OK, effective_ids=True):
        raise InputError(f"cannot write {folder}: {there} may not be written to; choose another folder.")


def save_tuned(
    folder: Path,
    network: Any,
    tokenizer: PreTrainedTokenizerBase,
    manifest: dict[str, Any],
    state: dict[str, Tensor] | None = None,
) -> None:
    """Write a tuned network (PreTrainedModel or PeftModel), its tokenizer, and the manifest last.

    ``manifest`` says method, alpha, lora, base, dataset, template, recipe and seed; kind, vocabulary, the files'
    hashes, package versions and the git commit are added. ``state`` is the network's state dictionary where it is
    sharded. Files of an earlier run go; others in the folder stay, and are no part of it.

    Raises:
        InputError: if the folder cannot be written.
    """
    remove(folder / reward.MANIFEST)  # a folder with a manifest is whole
    aside = folder / ASIDE  # of one name, so that a killed writer's remains go with the next
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        options = {} if isinstance(network, PreTrainedModel) else {"save_embedding_layers": False}
        network.save_pretrained(aside, state_dict=state, **options)
        tokenizer.save_pretrained(aside)
        for file in files_of(folder, tokenizer):
            file.unlink()  # else a shard or an adapter's description of an earlier run might stay
        for file in files_of(aside, tokenizer):  # not the card that PEFT writes
            file.replace(folder / file.name)
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"cannot write {folder} ({first_line(error)}); free some space or choose another folder, and run again."
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    describe(folder, tokenizer, manifest)


def files_of(folder: Path, tokenizer: PreTrainedTokenizerBase) -> list[Path]:
    """The files of a tuned network and its tokenizer in a folder that may hold others."""
    names = (*FILES, *type(tokenizer).vocab_files_names.values())
    return sorted({file for name in names for file in folder.glob(name) if file.is_file()})


def describe(folder: Path, tokenizer: PreTrainedTokenizerBase, manifest: dict[str, Any]) -> None:
    """Write the manifest of what lies in a folder, as :func:`save_tuned` does."""
    known = vocabulary(tokenizer)
    write_json(
        folder / reward.MANIFEST,
        manifest
        | {
            "kind": "language",
            "vocabulary": {"size": known.size, "sha256": known.sha256},
            "files": {file.name: file_hash(file) for file in files_of(folder, tokenizer)},
        }
        | reward.provenance("transformers", "peft"),
    )


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read and check the manifest of a tuned language model.

    Raises:
        InputError: if it is missing, corrupt or incomplete, or belongs to another modality.
    """
    return reward.read_manifest(folder, "language")


def load_tuned(folder: Path, dtype: torch.dtype, device: torch.device, base: str | None = None) -> Causal:
    """Load a reward network or a fine-tuned model for inference; an adapter is merged into its base.

    Nothing is read but the files that the manifest names with their hashes.

    Args:
        base: the model that an adapter was tuned on, a folder or a name on the hub; default: where the manifest says.

    Raises:
        InputError: if the folder is no whole tuned language model, a file in it was changed, its tokenizer is not the
            one it was tuned with, an adapter's base is missing or another, or a file asks for code to be run.
    """
    with whole(folder) as (place, manifest, tokenizer):
        title = f"{manifest['base']['name']} {manifest['method']}"
        if manifest["lora"] is None:
            return Causal(title, load(str(place), dtype, device).model, tokenizer)
        # In float32, and then made what is asked for.
        model = _merged(place, base_of(folder, base), manifest["lora"]).to(dtype)
        return Causal(title, model.to(device).eval(), tokenizer)


@contextmanager
def whole(folder: Path) -> Iterator[tuple[Path, dict[str, Any], PreTrainedTokenizerBase]]:
    """What is in the folder of a tuned language model, once it is checked: its files alone, manifest and tokenizer.

    Raises:
        InputError: as :func:`load_tuned` for what is in the folder itself.
    """
    manifest = read_manifest(folder)
    for pattern in MODEL if manifest["lora"] is None else ADAPTER:
        if not fitting(manifest["files"], pattern):
            raise InputError(
                f"the reward manifest {folder / reward.MANIFEST} names no file {pattern}, without which there is no "
                "tuned model; tune it again."
            )
    with reward.unchanged(folder, manifest["files"]) as place:
        tokenizer = read_tokenizer(str(place))
        if vocabulary(tokenizer).sha256 != manifest["vocabulary"]["sha256"]:
            raise InputError(f"the tokenizer in {folder} is not the one that its manifest describes; tune it again.")
        yield place, manifest, tokenizer


def _merged(folder: Path, base: str, lora: dict[str, Any]) -> Any:
    """The base with the adapter in ``folder`` in its weights."""
    try:
        model = adapted(folder, base, Lora(**lora))
        lacking, more = lacking_and_more(model, folder)
        if wrong := [*lacking, *more]:
            raise ValueError(f"{'it lacks' if lacking else 'there is no place for'} {wrong[0]}")
        return model.merge_and_unload()
    except InputError:
        raise
    except Exception as error:  # other names, shapes or ranks: PEFT raises many kinds
        raise InputError(
            f"the adapter in {folder} does not fit {base} ({first_line(error)}); tune it again."
        ) from error


def base_of(folder: Path, base: str | None = None) -> str:
    """Where the model lies that what is in ``folder`` was tuned from: ``base``, or where the manifest says.

    Raises:
        InputError: if it is missing, or another.
    """
    manifest = read_manifest(folder)
    known, made = manifest["base"], "was tuned from" if manifest["lora"] is None else "is an adapter of"
    spec = base or known["spec"]
    try:
        found = weights_hash(spec)
    except InputError as error:
        raise InputError(
            f"{folder} {made} {known['name']}, which is not to be had ({str(error).rstrip('.')}); or name "
            "its folder as the base."
        ) from None
    if found != known["weights_sha256"]:
        raise InputError(
            f"{folder} {made} {known['name']}, but the weights of {spec} are others; name the model that it "
            "was tuned on as the base."
        )
    return spec


def adapted(folder: Path, base: str, lora: Lora) -> Any:
    """A model with the weights of the adapter in ``folder`` on it, a PeftModel in float32 on the CPU.

    What kind of adapter it is ``lora`` says, not PEFT's file, in which there may be options that import modules.
    """
    from peft import PeftModel

    network = load(base, torch.float32, torch.device("cpu")).model
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of weights that are missing, see lacking_and_more; and of an old name
        model: Any = PeftModel.from_pretrained(network, folder, config=adapter_config(lora))
    check_finite(model.state_dict(), f"the weights in {folder}")
    return model


def lacking_and_more(model: Any, folder: Path) -> tuple[list[str], list[str]]:
    """What an adapted model's weights lack in the file of the adapter, and what there is no place for: PEFT loads both.

    It draws by chance what is lacking.
    """
    from peft import get_peft_model_state_dict

    with safe_open(folder / ADAPTER[0], "pt") as file:
        there = set(file.keys())
    wanted = set(get_peft_model_state_dict(model, save_embedding_layers=False))
    return sorted(wanted - there), sorted(there - wanted)
