"""Files of conversations: what says the same is read as the same; what is of another kind is named, with its remedy."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from helpers.chats import chat, prepared, write

from prt.atomic import read_json
from prt.errors import InputError
from prt.language.chats import prepare, read_manifest
from prt.language.conversations import read_file


@pytest.mark.parametrize(("line", "complaint"), [
    (b"", "it is empty"),
    (b"   ", "it is empty"),
    (b'{"messages": [', "it is no JSON"),
    (b'{"messages": "\xff"}', "it is no JSON"),
    ([], "it is a list: put the turns of a conversation into {'messages': [...]}"),
    ("hello", "it has no list 'messages'"),
    (b"[" * 100_000, "it is no JSON"),
    ({"text": "hello"}, "it has no list 'messages'"),
    ({"messages": []}, "it has no list 'messages'"),
    ({"messages": ["hello"]}, "without 'role' or 'content'"),
    ({"messages": [{"role": "user"}]}, "without 'role' or 'content'"),
    ({"messages": [{"role": "human", "content": "hello"}]}, "the role 'human', but system, user, assistant are known"),
    ({"messages": [{"role": "user", "content": None}]}, "a message of the user without text"),
    ({"messages": [{"role": "user", "content": []}]}, "a message of the user without text"),
    ({"messages": [{"role": "user", "content": 5}]}, "a message of the user whose content is no text"),
    ({"messages": [{"role": "user", "content": ["hello"]}]}, "a message of the user with the part 'hello', but only"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "the part 'image_url'"),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "the part 'text', but only parts of the type"),
    ({"messages": [{"role": "system", "content": ""}]}, "no turn of the assistant"),
    ({"messages": [{"from": "human", "value": "q"}]}, "it is in ShareGPT's layout: call 'conversations' 'messages'"),
    ({"conversations": [{"from": "human", "value": "q"}]}, "ShareGPT's layout: call 'conversations' 'messages'"),
    ({"instruction": "q", "input": "", "output": "a"}, "it is in Alpaca's layout: make it {'messages': "),
    ({"prompt": "q", "completion": "a"}, "it is a prompt and its completion: make it {'messages': "),
    ({"prompt": "q", "chosen": "a", "rejected": "b"}, "it is a pair of preferences"),
    ({"role": "user", "content": "hello"}, "it is a single turn: put the turns of each conversation into"),
    (chat("hello", " "), "a message of the assistant without text"),
    (chat("hello"), "no turn of the assistant"),
    (chat("hello", "b\ud800"), "a message of the assistant with half a surrogate pair"),
])  # fmt: skip
def test_bad_lines(tmp_path: Path, line: Any, complaint: str) -> None:
    file = write(tmp_path / "chats.jsonl", *[chat("q", "a")] * 700, line, chat("q", "a"))
    with pytest.raises(InputError, match=r"line 701 of .*chats\.jsonl cannot be used: ") as error:
        prepare(f"jsonl:{file}", tmp_path / "data", downloads=tmp_path)
    assert complaint in str(error.value)
    assert not list((tmp_path / "data").iterdir())


def other_files(chats: list[dict[str, Any]]) -> dict[str, bytes]:
    """Files that hold the same conversations."""
    lines = [json.dumps(chat, ensure_ascii=False).encode() for chat in chats]
    return {
        "no line end": b"\n".join(lines),
        "blank lines at the end": b"\n".join(lines) + b"\n\n \r\n\n",
        "Windows": b"\r\n".join(lines) + b"\r\n",
        "byte order mark": b"\xef\xbb\xbf" + b"\n".join(lines) + b"\n",
        "array": json.dumps(chats).encode(),
        "array with indents": b"\xef\xbb\xbf\n" + json.dumps(chats, indent=2).encode() + b"\n\n",
    }


@pytest.mark.parametrize("name", other_files([]))
def test_files_of_the_same_conversations(tmp_path: Path, name: str) -> None:
    chats = [chat(f"Wie groß\u2028ist {i}?", f"é {i}\r") for i in range(9)]
    manifest = prepared(tmp_path, *chats)
    (tmp_path / "other.json").write_bytes(other_files(chats)[name])
    prepare(f"jsonl:{tmp_path / 'other.json'}", tmp_path / "other", downloads=tmp_path, validation=0.3)
    other = read_manifest(tmp_path / "other")
    assert (other.fingerprint, other.conversations) == (manifest.fingerprint, manifest.conversations)


def test_turns_that_say_the_same(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """An empty system turn says nothing, and parts of a text are one text."""
    manifest = prepared(tmp_path, *[chat("Is this one?", f"yes, {i}") for i in range(6)])
    assert read_json(tmp_path / "data" / "manifest.json")["empty_system_turns"] == 0
    nothing: list[Any] = ["", " \n", None, [], [{"type": "text", "text": ""}]]
    same = [chat("", f"yes, {i}") for i in range(6)]
    for row in same:
        row["messages"][0]["content"] = [{"type": "text", "text": "Is "}, {"type": "text", "text": "this one?", "x": 1}]
    for row, content in zip(same, nothing, strict=False):
        row["messages"].insert(0, {"role": "system", "content": content})
    capfd.readouterr()
    assert prepared(tmp_path, *same).fingerprint == manifest.fingerprint
    assert "c.jsonl: 5 empty system turns left out." in capfd.readouterr().err
    found = read_json(tmp_path / "data" / "manifest.json")
    assert (found["empty_system_turns"], found["left_out"]) == (5, {})


@pytest.mark.parametrize(("content", "complaint"), [
    ("utf-16", r"is in UTF-16; turn it into UTF-8, as `iconv -f UTF-16 -t UTF-8` does"),
    ("utf-16-le", r"is in UTF-16LE; turn it into UTF-8"),
    ("utf-16-be", r"is in UTF-16BE; turn it into UTF-8"),
    ("utf-32", r"is in UTF-32; turn it into UTF-8"),
    ("latin-1", r"line 2 of .*: it is no JSON in UTF-8 \(UnicodeDecodeError"),
    (b'{"messages": 1}\r{"messages": 2}\r', "it has lines that end in a bare carriage return, which `tr"),
    (b'[{"messages": [', "is a broken JSON array .*; mend it"),
    (b'[{"messages": 1}, {}]', "item 1 of .* cannot be used: it has no list 'messages'"),
    (b'[{"instruction": "q", "output": "a"}]', "item 1 of .* cannot be used: it is in Alpaca's layout"),
    (b'[{"role": "user", "content": "q"}]\n[]\n', "line 1 of .* cannot be used: it is a list: put the turns"),
    (b'[{"role": "user", "content": "q"}]\n', "item 1 of .* cannot be used: it is a single turn"),
    (b'{\n  "messages": [\n', "line 1 of .*: it is no JSON in UTF-8 .*, but each line must be a whole object"),
    (b'{"train": []}\n', "line 1 of .* cannot be used: it has no list 'messages'"),
    (b"", "has 0 conversations, but needs two or more"),
    (b"\n\n", "has 0 conversations"),
    (b"[]", "has 0 conversations"),
])  # fmt: skip
def test_other_files_are_refused(tmp_path: Path, content: str | bytes, complaint: str) -> None:
    if isinstance(content, str):
        rows = [chat("q", "a"), chat("größer", "a")]
        content = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode(content)
    (tmp_path / "chats.json").write_bytes(content)
    with pytest.raises(InputError, match=complaint):
        prepare(f"jsonl:{tmp_path / 'chats.json'}", tmp_path / "data", downloads=tmp_path)
    assert not list((tmp_path / "data").glob("*"))


def test_a_file_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(InputError, match=r"/proc/self/mem cannot be read .*; mend its permissions, or name"):
        read_file(Path("/proc/self/mem"), Counter())
