"""Where a reward comes from."""

import subprocess
from functools import cache
from pathlib import Path

import pytest

from prt import reward


def test_the_commit_is_the_source_s_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package in a repository of the user's own, tracked there, changed there, or merely lying in it."""
    source = tmp_path / "prt" / "reward.py"
    source.parent.mkdir()
    source.write_text("")
    monkeypatch.setattr(reward, "__file__", str(source))
    monkeypatch.setattr(reward, "_git_commit", cache(reward._git_commit.__wrapped__))

    def git(*arguments: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        command = ["git", *who, *arguments]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()

    def commit_of_source() -> str | None:
        reward._git_commit.cache_clear()  # a process asks once
        return reward._git_commit()

    assert commit_of_source() is None
    git("init")
    git("commit", "--allow-empty", "--message", "nothing")
    assert commit_of_source() is None
    git("add", ".")
    git("commit", "--message", "the source")
    commit = git("rev-parse", "HEAD")
    (tmp_path / "elsewhere").write_text("")
    assert commit_of_source() == commit
    source.write_text("changed")
    assert commit_of_source() == f"{commit}-dirty"
