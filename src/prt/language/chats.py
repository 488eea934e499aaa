"""Chat data: made once into two splits of one Arrow file each, then turned into tokens with a loss mask.

A prepared data set is a folder with ``train.arrow`` and ``validation.arrow`` (column ``messages``, lists of ``role``
and ``content``) and ``manifest.json`` (source, counts, fingerprint).
"""

import hashlib
import json
import re
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from jinja2 import TemplateError
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DataCollatorWithFlattening, PreTrainedTokenizerBase

from prt import hub
from prt.arrow import writing
from prt.atomic import fingerprint, read_json, remove, write_json
from prt.errors import InputError, first_line, known
from prt.language.conversations import EMPTY, Messages, checked, other_layout, read_file
from prt.progress import progress

SPLITS = ("train", "validation")
KINDS, WHAT = ("huggingface", "jsonl"), "kind of chat data source"
TEMPLATES = ("tulu", "own")
SPLIT_SEED = 0
CHUNK = 512  # conversations of a record batch
IGNORED = -100  # label of a token that is not learned; the value that transformers uses
MESSAGES = pa.schema([("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])))])
TOKENS = pa.schema([("input_ids", pa.list_(pa.int32())), ("labels", pa.list_(pa.int32()))])


@dataclass(frozen=True)
class Manifest:
    """A prepared chat data set: its folder, where it came from, conversations of each split, and fingerprint."""

    folder: Path
    source: str
    conversations: dict[str, int]
    fingerprint: str


def fetch(source: str, downloads: Path, out: Path) -> None:
    """Download what ``source`` needs into ``downloads``; then write a receipt (JSON) to ``out``.

    A killed download goes on where it stopped when it is run again.

    Raises:
        InputError: for an unknown kind of source, or if it cannot be downloaded.
    """
    kind, name = hub.kind_of(source, KINDS, WHAT)
    remove(out)
    fetched = hub.fetch_dataset(name, downloads) if kind == "huggingface" else {}
    write_json(out, {"source": source} | fetched)


def prepare(source: str, out: Path, *, downloads: Path, validation: float = 0.02) -> None:
    """Make ``out`` from ``source``, whole or not at all.

    Every conversation is checked. A local file with a bad line is refused, with the line's number. A data set of the
    hub is not the user's to mend: its bad rows are left out, reported and counted in the manifest.

    Args:
        source: ``jsonl:FILE``, one JSON object a line, or an array of them, with ``messages``: a list of objects with
            ``role`` (system, user or assistant) and ``content`` (text, or parts of it). Or
            ``huggingface:OWNER/NAME``, fetched before, or ``huggingface:FOLDER``: a data set with such a column and a
            split 'train'.
        downloads: where :func:`fetch` put it.
        validation: share of the conversations held out, by a fixed draw, at least one.

    Raises:
        InputError: for an unknown source, a bad line, or less than two conversations.
    """
    kind, name = hub.kind_of(source, KINDS, WHAT)
    if not 0 < validation < 1:
        raise InputError(f"the share of validation is {validation}; it must be above 0 and below 1.")
    remove(out / "manifest.json")  # a folder with a manifest is whole
    manifest: dict[str, Any] = {"kind": "language", "source": source}
    bad: Counter[str] = Counter()
    if kind == "jsonl":
        total, rows = read_file(Path(name), bad)
    else:
        total, rows = _rows(name, downloads, bad)
        manifest |= hub.origin(hub.place(name, downloads))
    if total < 2:
        deque(rows, maxlen=0)  # a row that is wrong says more than that it is alone
        raise InputError(f"{source} has {total} conversations, but needs two or more: one is held out for validation.")
    held = set(np.random.default_rng(SPLIT_SEED).permutation(total)[: max(1, round(validation * total))].tolist())
    digests = {split: hashlib.sha256() for split in SPLITS}
    counts = dict.fromkeys(SPLITS, 0)
    with (
        writing(out / "train.arrow", MESSAGES, stream=True) as train,
        writing(out / "validation.arrow", MESSAGES, stream=True) as other,
        progress("prepare", total, "conversation") as bar,
    ):
        while chunk := list(islice(rows, CHUNK)):
            for split, add in zip(SPLITS, (train, other), strict=True):
                chosen = [messages for i, messages in chunk if (i in held) == (split == "validation")]
                for messages in chosen:
                    digests[split].update(json.dumps(messages).encode() + b"\n")
                if chosen:
                    add(chosen)
                counts[split] += len(chosen)
            bar.update(len(chunk))
        empty_turns = bad.pop(EMPTY, 0)
        if empty := [split for split in SPLITS if not counts[split]]:
            why = f" ({bad.most_common(1)[0][0]})" if bad else ""
            raise InputError(
                f"{source} leaves no conversation for '{empty[0]}'{why}; give more, or another validation share."
            )
    if empty_turns:
        print(f"{source}: {empty_turns} {EMPTY} left out.", file=sys.stderr)
    for reason, count in bad.items():
        print(f"{source}: {count} rows left out, as {reason}.", file=sys.stderr)
    manifest |= {split: {"conversations": counts[split]} for split in SPLITS}
    manifest |= {"left_out": dict(bad), "empty_system_turns": empty_turns}
    manifest["fingerprint"] = fingerprint(*(digests[split].hexdigest() for split in SPLITS))
    write_json(out / "manifest.json", manifest)
    hub.drop_copy(source, downloads)


def _rows(name: str, downloads: Path, bad: Counter[str]) -> tuple[int, Iterator[tuple[int, Messages]]]:
    """The number of rows of a data set in Hugging Face's layout, and its conversations with their indices."""
    data = hub.load_dataset(name, downloads)
    if "train" not in data:
        raise InputError(f"'{name}' has no split 'train'; it has {', '.join(data)}.")
    rows = data["train"]
    if "messages" not in rows.column_names:
        remedy = other_layout(rows.column_names) or "take chat data"
        raise InputError(f"'{name}' has no column 'messages', but {', '.join(rows.column_names)}; {remedy}.")
    if others := [split for split in data if split != "train"]:
        print(f"'{name}': not used, as conversations are held out of 'train': {', '.join(others)}.", file=sys.stderr)

    def read() -> Iterator[tuple[int, Messages]]:
        for i, row in enumerate(rows.select_columns("messages")):
            try:
                yield i, checked(row, bad)
            except InputError as error:
                bad[str(error)] += 1

    return len(rows), read()


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a prepared data set.

    Raises:
        InputError: if it is missing, damaged, or of a data set of another kind.
    """
    manifest = read_json(folder / "manifest.json", "data set manifest")
    if manifest.get("kind") != "language":
        raise InputError(f"{folder} holds no chat data, but data of kind {manifest.get('kind')}; prepare chat data.")
    try:
        counts = {split: int(manifest[split]["conversations"]) for split in SPLITS}
        return Manifest(folder, manifest["source"], counts, manifest["fingerprint"])
    except (KeyError, TypeError, ValueError):
        raise InputError(f"the data set manifest of {folder} is damaged; prepare the data again.") from None


def chat_template(tokenizer: PreTrainedTokenizerBase, template: str, name: str) -> str:
    """The chat template (Jinja) of a training run, which marks the assistant's tokens by ``{% generation %}``.

    Args:
        tokenizer: of the model called ``name``.
        template: ``tulu``, the format that Tulu v2's authors publish: ``<|user|>``, newline, text, newline,
            ``<|assistant|>``, newline, answer, end of sequence; the beginning of sequence where the tokenizer puts one
            before plain text. Or ``own``, the tokenizer's.

    Raises:
        InputError: for an unknown name, a tokenizer without end of sequence, or an own template that is missing or does
            not mark the assistant's tokens.
    """
    known(template, TEMPLATES, "chat template")
    if not tokenizer.is_fast:
        raise InputError(f"the tokenizer of {name} is none of the fast ones, which alone tell the assistant's tokens.")
    if template == "own":
        try:
            own = tokenizer.get_chat_template()
        except ValueError:
            raise InputError(
                f"the tokenizer of {name} has no chat template of its own; use the template tulu."
            ) from None
        if not re.search(r"\{%-?\s*generation\s*-?%\}", own):
            raise InputError(
                f"the chat template of {name} does not mark the assistant's tokens with {{% generation %}}, so the "
                "loss cannot be on them alone; add the mark, or use the template tulu."
            )
        return own
    if tokenizer.eos_token is None:
        raise InputError(f"the tokenizer of {name} has no end of sequence, which ends Tulu's answers; set one.")
    begins = tokenizer("a").input_ids[:1] == [tokenizer.bos_token_id]
    text = (Path(__file__).parent / "templates" / "tulu.jinja").read_text(encoding="utf-8")
    return ("{{ bos_token }}" if begins else "") + text


def encode(
    conversations: list[Messages], tokenizer: PreTrainedTokenizerBase, template: str, max_length: int
) -> list[tuple[list[int], list[int], bool]]:
    """Tokens of each conversation, their labels, and whether it was truncated.

    A label is the token itself where the assistant speaks (the end of sequence included), else ``IGNORED``. What is
    beyond ``max_length`` tokens is cut off, as Tulu's own training does; so the labels may all be ``IGNORED``.

    Args:
        template: what :func:`chat_template` gave.

    Raises:
        InputError: if the template refuses a conversation.
    """
    try:
        out: Any = tokenizer.apply_chat_template(
            conversations,
            chat_template=template,
            tokenize=True,
            return_dict=True,
            return_assistant_tokens_mask=True,
        )
    except TemplateError as error:
        raise InputError(
            f"the chat template refuses a conversation ({first_line(error)}); use the template tulu, or mend the data."
        ) from error
    rows = []
    for ids, mask in zip(out["input_ids"], out["assistant_masks"], strict=True):
        labels = [token if said else IGNORED for token, said in zip(ids, mask, strict=True)]
        labels[0] = IGNORED  # nothing comes before the first token; in a packed row another conversation does
        rows.append((ids[:max_length], labels[:max_length], len(ids) > max_length))
    return rows


def read_split(data: Manifest, split: str) -> Any:
    """The conversations of a split, in the column ``messages`` of a data set of Hugging Face's.

    Raises:
        InputError: if the split is missing or damaged.
    """
    source = data.folder / f"{split}.arrow"
    if not source.is_file():
        raise InputError(f"the data set {data.folder} has no {source.name}; prepare it again.")
    conversations = _read(source)
    if "messages" not in conversations.column_names:
        raise InputError(f"{source} has no column 'messages'; prepare the data set again.")
    return conversations


def tokenise(
    data: Manifest, split: str, out: Path, tokenizer: PreTrainedTokenizerBase, template: str, max_length: int
) -> None:
    """Write the tokens of a split to the Arrow file ``out``: ``input_ids`` and ``labels`` of each conversation.

    Beside it, a JSON file of the same name counts the conversations that are left, those of them and of the others
    that were truncated, and those dropped because nothing of the assistant was left.

    Raises:
        InputError: if no conversation is left, or a conversation cannot be encoded.
    """
    conversations = read_split(data, split)
    counts = {"conversations": 0, "truncated": 0, "dropped": 0}
    with (
        writing(out, TOKENS, stream=True) as add,
        progress(f"tokenise {split}", len(conversations), "conversation") as bar,
    ):
        for batch in conversations.iter(CHUNK):
            rows = encode(batch["messages"], tokenizer, template, max_length)
            learned = [(ids, labels) for ids, labels, _ in rows if any(label != IGNORED for label in labels)]
            counts["conversations"] += len(learned)
            counts["truncated"] += sum(cut for _, _, cut in rows)
            counts["dropped"] += len(rows) - len(learned)
            add([ids for ids, _ in learned], [labels for _, labels in learned])
            bar.update(len(rows))
        if not counts["conversations"]:
            raise InputError(
                f"no conversation of '{split}' in {data.folder} has a token of the assistant within the first "
                f"{max_length}: raise max_length."
            )
        write_json(out.with_suffix(".json"), counts)  # before the rows appear, so that they never stand without


def read_tokens(path: Path) -> tuple[Any, dict[str, int]]:
    """What :func:`tokenise` wrote: the rows, as a data set of Hugging Face's, and the counts.

    Raises:
        InputError: if a file is missing or damaged.
    """
    return _read(path), read_json(path.with_suffix(".json"), "count of tokens")


def _read(path: Path) -> Any:
    """The rows of an Arrow file, as a data set of Hugging Face's."""
    import datasets

    try:
        read = datasets.Dataset.from_file(str(path))
        read.data.table.validate(full=True)  # else a wrong offset is an address that the process ends at
    except (pa.ArrowException, OSError, ValueError) as error:  # also names that are not UTF-8, or not the columns'
        raise InputError(f"{path} is truncated or corrupt ({first_line(error)}); make it again.") from None
    return read


def collator(packing: bool, pad: int) -> Callable[[list[dict[str, Any]]], dict[str, Tensor]]:
    """What makes a batch of rows with ``input_ids`` and ``labels``.

    Args:
        packing: all rows one after another in one: input_ids, position_ids and labels, each (1, T). Positions begin
            anew with each conversation. Where there is no attention mask and no cache, transformers takes that as the
            mark of packed rows, and lets no token see another conversation's.
        pad: else, the token that fills all rows (N) up to one length: input_ids, attention_mask and labels, each
            (N, T).

    Where rows have a ``number``, ``numbers`` has each token's, in the shape of the labels.
    """
    return partial(_collated, collate=DataCollatorWithFlattening() if packing else partial(_padded, pad=pad))


def _collated(rows: list[dict[str, Any]], collate: Callable[[list[dict[str, Any]]], dict[str, Tensor]]) -> Any:
    numbers = [torch.full((len(row["labels"]),), row["number"]) for row in rows if "number" in row]
    batch = collate([{key: row[key] for key in ("input_ids", "labels")} for row in rows])
    if numbers:
        packed = len(batch["labels"]) < len(rows)
        batch["numbers"] = torch.cat(numbers)[None] if packed else pad_sequence(numbers, batch_first=True)
    return batch


def _padded(rows: list[dict[str, Any]], pad: int) -> dict[str, Tensor]:
    # Transformers' own takes the token and the side from the tokenizer, which is saved with what is tuned.
    ids = [torch.tensor(row["input_ids"]) for row in rows]
    labels = [torch.tensor(row["labels"]) for row in rows]
    return {
        "input_ids": pad_sequence(ids, batch_first=True, padding_value=pad),
        "attention_mask": pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
        "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORED),
    }
