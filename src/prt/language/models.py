"""Causal language models with their tokenizers, and what makes two vocabularies the same."""

import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import (
    CONFIG_NAME,
    GENERATION_CONFIG_NAME,
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
    logging,
)
from transformers.utils.hub import cached_file

from prt import hub
from prt.atomic import check_finite, fingerprint, only_files, write_json
from prt.errors import InputError, first_line
from prt.language import is_missing

logging.disable_progress_bar()  # of loading and saving: half lines in a log

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}  # by the names of precisions

# What is fetched of a model: no pickled weights, and no second copy in a format of its own.
WEIGHTS, OTHERS = "*.safetensors", ("*.json", "*.model", "*.txt", "*.jinja")


# How control tokens are written that their tokenizer does not call special, such as Qwen2.5's <tool_call>.
CONTROL = re.compile(r"<.*>|\[.*\]", re.DOTALL)


@dataclass(frozen=True)
class Vocabulary:
    """Which id every token has: the ordinary tokens, those that were added, and which of these are words of a text.

    What was added is a control token if its tokenizer calls it special, or if it is written in <…> or […].
    """

    tokens: dict[str, int]
    added: dict[str, int]
    words: frozenset[str] = frozenset()

    @cached_property
    def pairs(self) -> set[tuple[str, int]]:
        """All (token, id)."""
        return set((self.tokens | self.added).items())

    @cached_property
    def ordinary(self) -> dict[str, int]:
        """All but the control tokens."""
        return self.tokens | {word: self.added[word] for word in self.words}

    @property
    def size(self) -> int:
        """One more than the greatest id: the rows of an output layer that mean something."""
        return 1 + max(i for _, i in self.pairs)

    @cached_property
    def sha256(self) -> str:
        """The same for equal vocabularies, and only for them."""
        return fingerprint(sorted(self.tokens.items()), sorted(self.added.items()))


def vocabulary(tokenizer: PreTrainedTokenizerBase) -> Vocabulary:
    """The vocabulary of a tokenizer."""
    added = tokenizer.get_added_vocab()
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    words = frozenset(t for t, i in added.items() if i not in special and not CONTROL.fullmatch(t))
    return Vocabulary({t: i for t, i in tokenizer.get_vocab().items() if t not in added}, added, words)


def shared_ids(target: Vocabulary, other: Vocabulary, names: tuple[str, str]) -> list[int]:
    """The ids that mean the same token in both vocabularies, in order.

    Versions of a tokenizer differ in their control tokens (Qwen2.5 has more than Qwen2, Llama 3.1 gave names to some
    that Llama 3 had reserved, and many derivatives of Llama 2 have a [PAD]), so these may differ. An ordinary token may
    not, nor a word that was added: where one has it, the two cut a text into different tokens.

    Raises:
        InputError: saying how they differ; ``names`` are the models', the target's first.
    """
    for mine, theirs, (here, there) in ((target, other, names), (other, target, names[::-1])):
        strange = sorted((i, t) for t, i in mine.ordinary.items() if (t, i) not in theirs.pairs)
        if strange and mine.words.issuperset(token for _, token in strange):
            i, token = strange[0]
            raise InputError(
                f"{here} and {there} have different tokenizers, so no reward can pass between them: words were added "
                f"to that of {here} ({len(strange)}, such as {token!r}, id {i}) that {there} has not, and texts are "
                "cut into different tokens. Take a target with the tokenizer that the reward was tuned with."
            )
        if strange:
            i, token = strange[0]
            meant = next((repr(t) for t, j in theirs.pairs if j == i), "no token")
            raise InputError(
                f"{here} and {there} have different tokenizers, so no reward can pass between them: {len(strange)} of "
                f"{len(mine.ordinary)} tokens differ; id {i} is {token!r} in {here}, and {meant} in {there}. "
                "Take a target of the family that the reward was tuned on."
            )
    return sorted(i for _, i in target.pairs & other.pairs)


@dataclass(frozen=True)
class Causal:
    """A causal language model, its tokenizer, and the name that messages give it."""

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def load_tokenizer(spec: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a model: a folder, or a name on the Hugging Face hub.

    Raises:
        InputError: if there is none, it is gated, not fetched or damaged, or its files ask for code of their own.
    """
    must_be_there(spec)
    return read_tokenizer(spec)


def read_tokenizer(spec: str) -> PreTrainedTokenizerBase:
    """:func:`load_tokenizer`, also of a folder that holds no model."""
    try:
        hub.refuse_code(spec)
        tokenizer = AutoTokenizer.from_pretrained(spec, trust_remote_code=False)
        tokenizer("a")  # what is wrong in its files may show no sooner
        vocabulary(tokenizer)
    except InputError:
        raise
    except Exception as error:  # a damaged tokenizer.json raises a bare Exception
        raise _refusal(spec, "tokenizer", error) from error
    return tokenizer


def load_config(spec: str) -> PretrainedConfig:
    """The configuration of a model: a folder, or a name on the Hugging Face hub.

    Raises:
        InputError: as for :func:`load_tokenizer`.
    """
    must_be_there(spec)
    try:
        hub.refuse_code(spec)
        return AutoConfig.from_pretrained(spec, trust_remote_code=False)
    except InputError:
        raise
    except Exception as error:  # a value of another type raises what its use does
        raise _refusal(spec, "configuration", error) from error


def load(spec: str, dtype: torch.dtype | str, device: torch.device | str, name: str = "") -> Causal:
    """Load a model for inference, with its tokenizer: a folder, or a name on the Hugging Face hub.

    Args:
        dtype: auto: as its weights are saved.
        device: a device, or how transformers is to spread it over all (``device_map``: auto, balanced, …).
        name: what messages call it.

    Raises:
        InputError: if there is none, it is gated, not fetched or damaged, it lacks weights, some are no finite numbers,
            its files ask for code of their own, it is an adapter, or does not fit into the memory it is spread over.
    """
    spread = device if isinstance(device, str) else None
    weights_must_be_there(spec)
    tokenizer = load_tokenizer(spec)
    try:
        if cached_file(spec, hub.ADAPTER_CONFIG, _raise_exceptions_for_missing_entries=False):
            raise _adapter(spec)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            spec,
            dtype=dtype,
            device_map=spread,
            use_safetensors=True,
            output_loading_info=True,
            trust_remote_code=False,
        )
    except InputError:
        raise
    except Exception as error:  # a configuration or weights that are damaged raise many kinds
        raise _refusal(spec, "model", error) from error
    model, report = loaded
    for what in ("missing_keys", "mismatched_keys"):
        if keys := sorted(map(str, report[what])):
            raise InputError(
                f"the weights of {spec} do not fit its config.json ({what.replace('_', ' ')}: {keys[0]}); "
                "fetch or make it again."
            )
    if spread is None:
        model = model.to(device)
    elif any(weight.is_meta for weight in model.parameters()):
        raise InputError(f"{spec} does not fit into the memory of this machine's devices; take a machine with more.")
    model = model.eval()
    check_finite(model.state_dict(), f"the weights of {spec}")
    _check_ends(spec, model.generation_config)
    return Causal(name or spec, model, tokenizer)


def _check_ends(spec: str, own: Any) -> None:
    """Refuse tokens at which a text ends, or that fill it up, that are no ids."""
    for key in ("eos_token_id", "pad_token_id"):
        said = getattr(own, key, None)
        for i in said if isinstance(said, list) and said else [said]:
            if i is not None and not (type(i) is int and -1 <= i < 2**31):  # -1: Llama's first, for none
                raise InputError(
                    f"{spec} says {key} {said!r}, which is no token's id; correct its config.json or "
                    "generation_config.json."
                )


def fetch(spec: str, out: Path) -> None:
    """Download a model of the hub to ``out``, a folder that :func:`load` takes; its receipt fetched.json comes last.

    Raises:
        InputError: if there is no such model, it is gated, has no weights in safetensors format, or the network fails.
    """
    receipt = hub.download(spec, "model", out, needed=[WEIGHTS], also=OTHERS)
    write_json(out / "fetched.json", {"spec": spec, "commit": receipt.get("revision")})


def folder_of(spec: str) -> Path:
    """The folder of a model with all that transformers reads of it; what lacks of one on the hub is downloaded.

    Raises:
        InputError: if a file is missing, and cannot be had.
    """
    found: dict[str, Any] = {}  # once the first file is there, all of its revision
    optional: dict[str, Any] = {"_raise_exceptions_for_missing_entries": False}
    try:
        folder = Path(str(cached_file(spec, CONFIG_NAME))).parent
        if not Path(spec).is_dir():
            found["revision"] = folder.name
        cached_file(spec, GENERATION_CONFIG_NAME, **optional, **found)
        index = cached_file(spec, SAFE_WEIGHTS_INDEX_NAME, **optional, **found)
        shards = {SAFE_WEIGHTS_NAME}
        if index is not None:
            shards = set(json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"].values())
        for shard in sorted(shards):  # snapshot_download may take half for all
            cached_file(spec, shard, **found)
    except Exception as error:  # network, name, licence, space, an index that is damaged: many kinds
        raise _refusal(spec, "model", error) from error
    return folder


def must_be_there(spec: str) -> None:
    """Refuse a folder that holds no whole model: a missing one would be asked for on the hub.

    Raises:
        InputError: saying what is there in its place.
    """
    folder = Path(spec)
    if folder.is_dir():
        only_files(folder)
    if (folder / hub.ADAPTER_CONFIG).is_file():
        raise _adapter(spec)
    if is_missing(spec):
        raise InputError(
            f"there is no model in {spec} (no config.json); name a folder that a model was saved to, or one on the hub "
            "as OWNER/NAME."
        )


def weights_must_be_there(spec: str) -> None:
    """Refuse, too, a folder without weights that can be read.

    Raises:
        InputError: saying what is there in its place.
    """
    must_be_there(spec)
    if Path(spec).is_dir() and not any(Path(spec).glob(WEIGHTS)):
        if any(Path(spec).glob(f"*/{WEIGHTS}")):
            raise InputError(
                f"{spec} is no single model, but has several in folders of its own, as a composed one: name one of "
                "these, such as its target."
            )
        pickled = ": they are pickled (*.bin), which can run code" if any(Path(spec).glob("*.bin")) else ""
        raise InputError(
            f"{spec} has no weights in the format of safetensors{pickled}; load it in transformers, and save it with "
            "save_pretrained."
        )


def _adapter(spec: str) -> InputError:
    return InputError(
        f"{spec} is an adapter ({hub.ADAPTER_CONFIG}), no whole model, and would load another model unasked: name "
        "that, or merge the two (PEFT's merge_and_unload) and save the result."
    )


def _refusal(spec: str, what: str, error: Exception) -> InputError:
    known = None if Path(spec).is_dir() else hub.refusal(spec, "model", error)
    return known or InputError(f"the {what} of {spec} cannot be loaded ({first_line(error)}); fetch or make it again.")
