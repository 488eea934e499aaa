"""Files appear whole or not at all, and damage is told in one sentence."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.killed import killed, tree
from hypothesis import given
from hypothesis import strategies as st

from prt.atomic import (
    alone,
    fingerprint,
    making,
    read_json,
    read_tensors,
    remove,
    replacing,
    scratch,
    write_json,
    write_tensors,
    write_text,
)
from prt.errors import InputError, known


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    write_text(path, "old")
    with pytest.raises(RuntimeError), replacing(path) as aside:
        aside.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_writer_left_goes_with_the_next(tmp_path: Path) -> None:
    """safetensors writes to a file of a random name, which stays where it is killed."""
    (tmp_path / ".w.safetensors.parts").mkdir()
    (tmp_path / ".w.safetensors.parts" / ".tmpXyz").write_bytes(b"half")
    (tmp_path / ".w.safetensors.part").write_bytes(b"half")
    write_tensors(tmp_path / "w.safetensors", {"w": torch.zeros(3)}, {"a": 1})
    assert read_tensors(tmp_path / "w.safetensors", "file")[1] == {"a": 1}
    assert list(tmp_path.iterdir()) == [tmp_path / "w.safetensors"]


FILL = """
import sys, torch
from pathlib import Path
from prt.errors import InputError
from prt.atomic import remove, scratch, write_tensors
folder = Path(sys.argv[1])
try:
    write_tensors(folder / "w.safetensors", {"w": torch.zeros(10**6)}, {})
except InputError as error:
    print(error)
print([p.name for p in folder.iterdir()])
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root may mount a file system")
def test_no_space_left(tmp_path: Path) -> None:
    """A real full file system (one megabyte, in a mount namespace of its own) is told and left clean."""
    mount = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o size=1m none "$1" && exec "$2" -c "$3" "$1"', "sh"]
    done = subprocess.run([*mount, tmp_path, sys.executable, FILL], capture_output=True, text=True)
    if done.returncode and "mount" in done.stderr:
        pytest.skip("this machine lets no test mount a file system")
    said, left = done.stdout.strip().splitlines()
    assert "No space left on device; free some space" in said
    assert left == "[]"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_the_system_s_refusals_become_one_sentence(tmp_path: Path, number: int) -> None:
    with pytest.raises(InputError, match=r"cannot write .*out\.csv: .*"), replacing(tmp_path / "out.csv") as aside:
        aside.write_text("half")
        raise OSError(number, os.strerror(number))
    assert not list(tmp_path.iterdir())


def test_a_file_where_a_folder_is_needed(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("")
    with pytest.raises(InputError, match=r"a file stands where a folder is needed"):
        write_text(tmp_path / "results" / "table.csv", "x")


@given(st.dictionaries(st.text(min_size=1, max_size=5), st.integers() | st.text(max_size=5) | st.booleans()))
def test_json_comes_back(tmp_path_factory: pytest.TempPathFactory, value: dict) -> None:
    path = tmp_path_factory.mktemp("json") / "x.json"
    write_json(path, value)
    assert read_json(path) == value


def test_damaged_json(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    with pytest.raises(InputError, match=r"does not exist"):
        read_json(path)
    for content in (b'{"a": ', b"\xff\xfe\x00", b"[1]", b""):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"manifest.json is corrupt"):
            read_json(path)


def test_tensors_come_back_and_damage_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    with pytest.raises(InputError, match=r"does not exist"):
        read_tensors(path, "weight file")
    write_tensors(path, {"w": torch.arange(6).reshape(2, 3).T}, {"a": 1})
    tensors, header = read_tensors(path, "weight file")
    assert torch.equal(tensors["w"], torch.arange(6).reshape(2, 3).T)
    assert header == {"a": 1}
    whole = path.read_bytes()
    for content in (whole[:-4], whole[:20], b"", b"\x00" * len(whole), json.dumps({}).encode()):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"truncated or corrupt|not written by this project"):
            read_tensors(path, "weight file")


def test_equal_parts_equal_fingerprints() -> None:
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1})
    assert fingerprint("ab", "c") != fingerprint("a", "bc")


def test_the_nearest_name() -> None:
    with pytest.raises(InputError, match=r"unknown backbone 'vit-s-por': did you mean 'vit-s-poor'\?"):
        known("vit-s-por", ["vit-s-poor", "rn12-rich"], "backbone")
    with pytest.raises(InputError, match=r"choose one of: a, b"):
        known("zzzz", ["b", "a"], "method")


def _folder(top: Path) -> None:
    if (made := top / "a" / "b" / "made").exists():  # then it is whole, and not made again
        return
    with making(made) as aside:
        (aside / "inner").mkdir()
        write_text(aside / "inner" / "text", "x")


def _scratch(top: Path) -> None:
    with scratch("tests") as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "large").write_text("x")


def _lock(top: Path) -> None:
    with alone(top / "a" / "checkpoint", "test"):
        write_text(top / "a" / "checkpoint", "x")
    remove(top / "a" / "checkpoint")


WRITERS = {
    "a file": lambda top: write_text(top / "a" / "text", "x"),
    "tensors": lambda top: write_tensors(top / "a" / "w.safetensors", {"w": torch.zeros(3)}, {}),
    "a folder": _folder,
    "a scratch folder": _scratch,
    "a checkpoint and its lock": _lock,
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_writer_that_is_killed_anywhere_leaves_nothing_once_it_is_done_again(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No half file, no empty folder, nothing among the system's temporary files: just what one leaves that was not."""
    work, temporary = WRITERS[name], tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    work(tmp_path / "whole")
    count = 0
    while killed(lambda: work(tmp_path / str(count)), count):  # noqa: B023  # it is called at once
        work(tmp_path / str(count))
        assert tree(tmp_path / str(count)) == tree(tmp_path / "whole")
        assert not tree(temporary)
        count += 1
    assert count > 1


LEAVING = """
import sys, time
from prt.atomic import scratch
with scratch("tests") as folder:
    print(folder, flush=True)
    time.sleep(60)
"""


def test_scratch_folders_of_killed_processes_go_and_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    command, options = [sys.executable, "-c", LEAVING], {"stdout": subprocess.PIPE, "text": True}
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with (
        subprocess.Popen(command, env=environment, **options) as killed,
        subprocess.Popen(command, env=environment, **options) as alive,
    ):
        folders = [Path(process.stdout.readline().strip()) for process in (killed, alive)]
        killed.kill()
        killed.wait()
        others = [tmp_path / f"prt-{name}" for name in ("another-abc", "tests-file", "tests-pipe", "tests-link")]
        others[0].mkdir()
        others[1].write_text("")
        os.mkfifo(others[2])
        others[3].symlink_to(others[0])
        with scratch("tests") as folder:
            assert folder.parent == tmp_path
            assert sorted(tmp_path.iterdir()) == sorted([folder, folders[1], *others])
        assert not folder.exists()
        alive.kill()


def test_a_folder_that_is_not_made_leaves_none_above_it(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(RuntimeError), making(tmp_path / "there" / "a" / "b") as aside:
        (aside / "half").write_text("x")
        raise RuntimeError
    assert tree(tmp_path) == {"there"}


def test_removing_takes_what_a_killed_writer_left(tmp_path: Path) -> None:
    (tmp_path / ".checkpoint.parts").mkdir()
    for name in ("checkpoint", ".checkpoint.part", ".checkpoint.parts/.tmpXyz", "kept"):
        (tmp_path / name).write_text("half")
    remove(tmp_path / "checkpoint")
    remove(tmp_path / "checkpoint")
    assert list(tmp_path.iterdir()) == [tmp_path / "kept"]
