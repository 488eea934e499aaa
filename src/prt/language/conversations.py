"""One conversation, checked, and the files that hold them: one JSON object a line, or one JSON array."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from prt.errors import InputError, first_line

ROLES = ("system", "user", "assistant")
EMPTY = "empty system turns"
# What marks another layout, and how it is turned into ours.
LAYOUTS = (
    (
        {"conversations"},
        "it is in ShareGPT's layout: call 'conversations' 'messages', and in its turns 'from' 'role' (human: user, "
        "gpt: assistant) and 'value' 'content'",
    ),
    (
        {"instruction", "output"},
        "it is in Alpaca's layout: make it {'messages': [{'role': 'user', 'content': INSTRUCTION and INPUT}, {'role': "
        "'assistant', 'content': OUTPUT}]}",
    ),
    (
        {"prompt", "completion"},
        "it is a prompt and its completion: make it {'messages': [{'role': 'user', 'content': PROMPT}, {'role': "
        "'assistant', 'content': COMPLETION}]}",
    ),
    ({"chosen", "rejected"}, "it is a pair of preferences: make it {'messages': ...} of what was chosen"),
    ({"role", "content"}, "it is a single turn: put the turns of each conversation into {'messages': [...]}"),
)

Messages = list[dict[str, str]]


def other_layout(keys: Iterable[str]) -> str | None:
    """What a row with these keys is, if it is of a layout that others use, and how to turn it; a clause with "it"."""
    return next((remedy for marks, remedy in LAYOUTS if marks <= set(keys)), None)


def checked(value: Any, left_out: Counter[str]) -> Messages:
    """The messages of one conversation, each with its role and content alone.

    Content that is a list of text parts is joined. A turn of the system without text says nothing: it is left out, and
    counted in ``left_out`` under EMPTY.

    Raises:
        InputError: saying what is wrong, as a clause that begins with "it".
    """
    if isinstance(value, list):
        raise InputError("it is a list: put the turns of a conversation into {'messages': [...]}")
    if not isinstance(value, dict) or not isinstance(value.get("messages"), list) or not value["messages"]:
        raise InputError((isinstance(value, dict) and other_layout(value)) or "it has no list 'messages'")
    messages = []
    for message in value["messages"]:
        if isinstance(message, dict) and {"from", "value"} <= message.keys():
            raise InputError(LAYOUTS[0][1])
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
            raise InputError("it has a message without 'role' or 'content'")
        role = message["role"]
        if role not in ROLES:
            raise InputError(f"it has the role {role!r}, but {', '.join(ROLES)} are known")
        content = _text(message["content"], role)
        if not content.strip():
            if role != "system":
                raise InputError(f"it has a message of the {role} without text")
            continue
        try:
            content.encode()
        except UnicodeEncodeError:  # JSON may say "\ud800"
            raise InputError(
                f"it has a message of the {role} with half a surrogate pair, which is no character"
            ) from None
        messages.append({"role": role, "content": content})
    if not any(message["role"] == "assistant" for message in messages):
        raise InputError("it has no turn of the assistant, so nothing to learn")
    left_out[EMPTY] += len(value["messages"]) - len(messages)
    return messages


def _text(content: Any, role: str) -> str:
    """The text of a message; of parts, which follow each other without anything between, as chat templates have it."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise InputError(f"it has a message of the {role} whose content is no text")
    for part in content:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            kind = part.get("type") if isinstance(part, dict) else part
            raise InputError(
                f"it has a message of the {role} with the part {kind!r}, but only parts of the type 'text' are learned"
            )
    return "".join(part["text"] for part in content)


def read_file(path: Path, left_out: Counter[str]) -> tuple[int, Iterator[tuple[int, Messages]]]:
    """The number of conversations in a file, and the conversations with their indices.

    Raises:
        InputError: if there is no such file, it cannot be read, or is not in UTF-8; or, while reading, naming the line
            that is wrong.
    """
    if not path.is_file():
        raise InputError(f"the chat file {path} does not exist, or is no file; correct 'source'.")
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        raise InputError(
            f"the chat file {path} cannot be read ({error.strerror}); mend its permissions, or name another."
        ) from None
    if not (found := json.detect_encoding(start)).startswith("utf-8"):
        coding = found.upper().replace("-LE", "LE").replace("-BE", "BE")
        raise InputError(
            f"the chat file {path} is in {coding}; turn it into UTF-8, as `iconv -f {coding} -t UTF-8` does."
        )
    if start.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"[" and (rows := _array(path)) is not None:
        return len(rows), _each(rows, f"item {{}} of {path}", left_out)
    with path.open("rb") as file:
        total = max((number for number, line in enumerate(file, 1) if line.strip()), default=0)
    return total, _each(_lines(path, total), f"line {{}} of {path}", left_out)


def _array(path: Path) -> list[Any] | None:
    """The items of a file that is one JSON array; None if it is one a line."""
    try:
        return list(json.loads(path.read_bytes()))
    except (ValueError, RecursionError) as error:
        if isinstance(error, json.JSONDecodeError) and error.msg == "Extra data":
            return None
        raise InputError(f"the chat file {path} is a broken JSON array ({first_line(error)}); mend it.") from None


def _lines(path: Path, total: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from islice(file, total)


def _each(rows: Iterable[Any], place: str, left_out: Counter[str]) -> Iterator[tuple[int, Messages]]:
    for i, row in enumerate(rows):
        try:
            yield i, checked(_parsed(row) if isinstance(row, bytes) else row, left_out)
        except InputError as error:
            raise InputError(f"{place.format(i + 1)} cannot be used: {error}; mend or remove it.") from None


def _parsed(line: bytes) -> Any:
    if not line.strip():
        raise InputError("it is empty")
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        if b"\r" in line.strip():
            raise InputError(
                "it has lines that end in a bare carriage return, which `tr '\\r' '\\n'` turns into line ends"
            ) from None
        raise InputError(
            f"it is no JSON in UTF-8 ({first_line(error)}), but each line must be a whole object"
        ) from None
