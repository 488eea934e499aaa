"""Downloads of benchmarks' data."""

from pathlib import Path

import pytest
from helpers.hub import COMMIT, Server, hub, server

from prt.atomic import read_json
from prt.errors import InputError
from prt.hub import origin
from prt.language.tasks import fetch

__all__ = ["hub", "server"]  # fixtures


def test_fetch(hub: Server, tmp_path: Path) -> None:
    """A repository becomes a folder, once; a gated one says how to get it."""
    files = {"README.md": b"# Problems", "main/test.jsonl": b"{}", "data.tar": b"all of it again"}
    hub.repository("openai/gsm8k", files)
    out, place = tmp_path / "receipt.json", tmp_path / "benchmarks" / "openai--gsm8k"
    receipt = {"repository": "openai/gsm8k", "revision": COMMIT}
    for _ in range(2):
        fetch("gsm8k", {}, tmp_path, out)
        assert read_json(out) == origin(place) == receipt
        assert sorted(path.name for path in place.iterdir()) == [".fetched.json", "README.md", "main"]
        assert not any("data.tar" in asked for asked in hub.asked)
        hub.files.clear()  # nothing more is asked for
    with pytest.raises(InputError, match="hub has no data set cais/mmlu"):
        fetch("mmlu", {}, tmp_path, out)
    assert not out.exists()
    fetch("mmlu", {"data": str(tmp_path)}, tmp_path, out)
    assert read_json(out) == {}
    (tmp_path / "own.yaml").touch()
    fetch("own", {"task": str(tmp_path / "own.yaml")}, tmp_path, out)
    assert read_json(out) == {}
