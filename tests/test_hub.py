"""Downloads from a server that answers as the Hugging Face hub does: whole or not at all, refused in the same words."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.hub import COMMIT, Server, hub, server
from helpers.marks import leave

from prt.errors import InputError
from prt.hub import Kind, download, kind_of, load_dataset, origin

__all__ = ["hub", "server"]  # fixtures
FILES = {"a.json": b"first", "b/c.json": b"second", "large.tar": b"all of it again"}
KINDS: dict[Kind, str] = {"dataset": "datasets", "model": "models"}
PROGRAM = """
import sys
from pathlib import Path
from prt.hub import download
download("me/it", sys.argv[1], Path(sys.argv[2]))
"""


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_repository_becomes_a_folder_once(kind: Kind, hub: Server, tmp_path: Path) -> None:
    hub.repository("me/it", FILES, KINDS[kind])
    receipt = {"repository": "me/it", "revision": COMMIT}
    folder = tmp_path / "downloads" / "it"
    assert download("me/it", kind, folder, needed=["*.json"], also=["*.tar", "*.bin"], ignore=["b/*"]) == receipt
    found = contents(folder)
    assert json.loads(found.pop(".fetched.json")) == receipt == origin(folder)
    assert found == {name: FILES[name] for name in ("a.json", "large.tar")}
    assert list(folder.parent.iterdir()) == [folder]
    hub.asked.clear()
    assert download("me/it", kind, folder) == receipt
    with pytest.raises(InputError, match="it holds me/it, not me/other; choose another folder"):
        download("me/other", kind, folder)
    (tmp_path / "by hand").mkdir()
    (tmp_path / "by hand" / "file").touch()
    assert download("me/it", kind, tmp_path / "by hand") == {}
    assert not hub.asked


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_download_is_gone_on_with(kind: Kind, hub: Server, tmp_path: Path) -> None:
    place = hub.repository("me/it", FILES, KINDS[kind])
    last = f"GET {place}large.tar"
    hub.held = {f"{place}large.tar"}
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0"}
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, kind, str(tmp_path / "it")], env=environment)
    while not any("large.tar" in asked for asked in hub.asked):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "it").exists()
    hub.held.clear()
    hub.asked.clear()
    download("me/it", kind, tmp_path / "it")
    assert [asked for asked in hub.asked if asked.startswith("GET") and "/resolve/" in asked] == [last]
    found = contents(tmp_path / "it")
    del found[".fetched.json"]
    assert found == FILES


def test_half_of_another_revision_is_not_used(hub: Server, tmp_path: Path) -> None:
    for commit, content in ((COMMIT, b"old"), (COMMIT[::-1], b"new")):
        place = hub.repository("me/it", {"a": content, "b": content}, commit=commit)
        if content == b"old":
            del hub.files[f"{place}b"]
            with pytest.raises(InputError, match=r"^the data set me/it could not be downloaded \(.*; mend that"):
                download("me/it", "dataset", tmp_path / "it")
    del hub.files[f"{place}a"]  # where it fails to come, the older one is no answer
    with pytest.raises(InputError, match="me/it could not be downloaded"):
        download("me/it", "dataset", tmp_path / "it")
    hub.files[f"{place}a"] = b"new"
    download("me/it", "dataset", tmp_path / "it")
    assert (tmp_path / "it" / "a").read_bytes() == (tmp_path / "it" / "b").read_bytes() == b"new"


@pytest.mark.parametrize("kind", KINDS)
def test_refusals(kind: Kind, hub: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    what = {"dataset": "data set", "model": "model"}[kind]
    page = "https://huggingface.co/" + {"dataset": "datasets/gated/it", "model": "gated/it"}[kind]

    def refused(repository: str, sentence: str) -> None:
        with pytest.raises(InputError) as error:
            download(repository, kind, tmp_path / "it", needed=["*.json"])
        assert str(error.value).startswith(sentence)
        assert not (tmp_path / "it").exists()

    hub.repository("gated/it", FILES, KINDS[kind])
    hub.repository("me/bare", {"README.md": b""}, KINDS[kind])
    refused("gated/it", f"the {what} gated/it is gated: accept its licence at {page}, then log in with `hf auth login`")
    refused("me/none", f"the Hugging Face hub has no {what} me/none, or you may not see it; correct the name.")
    refused("me/bare", "me/bare of the hub has no file *.json at main; take another.")
    hub.shutdown()
    hub.server_close()
    refused("me/it", f"the {what} me/it could not be downloaded (ConnectError")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    refused("me/it", f"the {what} me/it is not on this machine, and the hub is out of reach or switched off (")


def test_kinds_of_sources() -> None:
    assert kind_of("folder:/a:b", ["folder"], "kind") == ("folder", "/a:b")
    with pytest.raises(InputError, match="unknown kind of source 'folders': did you mean 'folder'"):
        kind_of("folders:/a", ["folder", "paper"], "kind of source")
    with pytest.raises(InputError, match="'embedded:digits' has a new name: write 'miniature:digits'"):
        kind_of("embedded:digits", ["folder"], "kind of source")


def test_a_data_set_s_own_code(tmp_path: Path) -> None:
    """A folder of data with a script of its name, as ``datasets`` once ran."""
    folder = tmp_path / "sums"
    folder.mkdir()
    leave(folder, tmp_path / "mark", "sums")
    (folder / "README.md").write_text("---\nconfigs:\n- {config_name: default, trust_remote_code: true}\n---\n")
    (folder / "train.jsonl").write_text('{"a": 1}\n')
    with pytest.raises(InputError, match=r"cannot read .*sums"):
        load_dataset(str(folder), tmp_path)
    assert not (tmp_path / "mark").exists()
