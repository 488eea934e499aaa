"""Conversations, files of them, and data sets made of them."""

import json
from pathlib import Path
from typing import Any

from prt.language.chats import Manifest, prepare, read_manifest


def chat(*turns: str, system: str = "") -> dict[str, Any]:
    """Turns of the user and the assistant by turns."""
    messages = [{"role": "system", "content": system}] if system else []
    roles = ("user", "assistant")
    return {"messages": messages + [{"role": roles[i % 2], "content": t} for i, t in enumerate(turns)]}


def write(path: Path, *lines: Any) -> Path:
    path.write_bytes(
        b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines)
    )
    return path


def prepared(folder: Path, *chats: dict[str, Any]) -> Manifest:
    prepare(f"jsonl:{write(folder / 'c.jsonl', *chats)}", folder / "data", downloads=folder, validation=0.3)
    return read_manifest(folder / "data")
