"""What a user names for prediction: files, folders, lists and standard input, with what is wrong told at the end."""

import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from prt.errors import InputError
from prt.vision import predict
from prt.vision.inputs import files_of, named, picture
from prt.vision.predict import load_reward

Prt = Callable[..., tuple[int, str, str]]


@pytest.fixture
def folder(pictures: Path, tmp_path: Path) -> Path:
    """Pictures at two depths, beside what is no data and what is no picture."""
    top = tmp_path / "pictures"
    (top / "deep" / "er").mkdir(parents=True)
    (top / ".ipynb_checkpoints").mkdir()
    source = pictures / "cross"
    for place in ("b.png", "deep/er/a.png", "deep/er/of no ending", ".hidden.png", ".ipynb_checkpoints/c.png"):
        shutil.copy(source / "00.png", top / place)
    (top / "notes.txt").write_text("notes")
    (top / "Thumbs.db").write_text("")
    return top


def test_a_folder_is_searched_at_any_depth(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    failed: dict[str, str] = {}
    found = files_of([str(folder)], failed)
    assert found == [str(folder / name) for name in ("b.png", "deep/er/a.png", "deep/er/of no ending")]
    assert failed == {}
    assert capsys.readouterr().err == f"files left out that are no pictures: 1 ({folder / 'notes.txt'}).\n"
    # What is named itself is meant, hidden or not.
    assert files_of([str(folder / ".ipynb_checkpoints"), str(folder / ".hidden.png")], failed) == [
        str(folder / ".ipynb_checkpoints" / "c.png"), str(folder / ".hidden.png")
    ]  # fmt: skip


def test_folders_without_pictures_and_links_in_a_circle(folder: Path) -> None:
    failed: dict[str, str] = {}
    (folder / "deep" / "back").symlink_to(folder)
    (folder / "empty").mkdir()
    assert len(files_of([str(folder), str(folder / "empty")], failed)) == 3
    assert "leads back to" in failed[str(folder / "deep" / "back")]
    assert failed[str(folder / "empty")] == f"the folder {folder / 'empty'} holds no images; name another."


def test_lists_and_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths as they are, one a line, whatever the ends of lines; names of files need not be text."""
    first, second = tmp_path / "list", tmp_path / "other"
    first.write_bytes(b"\xef\xbb\xbfone.png\r\n\r\n a b.png\r\n")
    second.write_bytes(b"\xff.png")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"x.png\n\ny.png")))
    found = named(["a.png", "-", "b.png"], [first, second])
    assert found == ["a.png", "x.png", "y.png", "b.png", "one.png", " a b.png", os.fsdecode(b"\xff.png")]


@pytest.mark.parametrize("content", ["a.png\n".encode("utf-16"), b"a.png\0b.png\0", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"])
def test_what_is_no_list(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "list").write_bytes(content)
    with pytest.raises(InputError, match=r"the list .* is no text with a path on each line"):
        named([], [tmp_path / "list"])
    with pytest.raises(InputError, match=r"the list of images .*none does not exist; correct the path"):
        named([], [tmp_path / "none"])
    (tmp_path / "list").write_bytes(b"\n")
    with pytest.raises(InputError, match="no images are named; name files or folders"):
        named([], [tmp_path / "list"])


def test_what_is_no_picture(tmp_path: Path) -> None:
    """The same in Python; no message names files that there may not be."""
    os.mkfifo(tmp_path / "pipe")
    for name, complaint in {
        "https://example.org/a.png": "https://example.org/a.png is a URL, but only files are read; download it first",
        tmp_path: f"{tmp_path} is a folder, not an image; give the images in it.$",
        tmp_path / "none.png": "none.png does not exist",
        tmp_path / "pipe": "pipe is no ordinary file",
    }.items():
        with pytest.raises(InputError, match=complaint):
            picture(name)


@pytest.fixture
def arguments(reward: Path, backbone: Path) -> list[object]:
    return ["predict", "--reward", reward, "--target", f"local-dir:{backbone}", "--top", 1]


def test_bad_files_do_not_cost_the_others(
    prt: Prt, arguments: list[object], reward: Path, backbone: Path, pictures: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """They are told at the end, with the number and the names, and the answers are those without them."""
    good = [*sorted((pictures / "cross").iterdir())[:7]]
    expected = load_reward(reward).on(f"local-dir:{backbone}").predict(good).max(-1).values.tolist()
    (tmp_path / "bad.png").write_bytes(b"\x89PNG half")
    names = [*map(str, good[:2]), "https://example.org/a.png", *map(str, good[2:]), str(tmp_path / "bad.png"), "none"]
    (tmp_path / "list").write_text("\n".join(names))
    monkeypatch.setattr(predict, "BATCH", 3)
    code, out, complaint = prt(*arguments, "--json", "--list", tmp_path / "list")
    assert code == 1
    answers = json.loads(out)
    assert [entry["image"] for entry in answers] == list(map(str, good))
    assert [entry["with_reward"][0]["probability"] for entry in answers] == pytest.approx(expected)
    assert [json.loads(line.rstrip(",")) for line in out.splitlines()[1:-1]] == answers
    *sentences, last = complaint.splitlines()[-4:]
    for sentence, said in zip(sentences, ("is a URL", "bad.png cannot be read", "none does not exist"), strict=True):
        assert said in sentence
    where = f"https://example.org/a.png, {tmp_path / 'bad.png'}, none"
    assert last == f"prt: error: 3 of 10 could not be used, as said above: {where}."
    code, out, complaint = prt(*arguments, "--json", "https://example.org/a.png")
    assert (code, json.loads(out)) == (1, [])
    assert complaint == "prt: error: https://example.org/a.png is a URL, but only files are read; download it first.\n"


def test_answers_come_before_the_last_picture_is_read(
    reward: Path, backbone: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict, "BATCH", 2)
    read = []
    files = sorted((pictures / "cross").iterdir())[:6]
    model = load_reward(reward).on(f"local-dir:{backbone}")
    answers = model.each((read.append(file) or file, picture(file)) for file in files)
    assert next(answers)[0] == files[0]
    assert len(read) == 2


def test_a_folder_and_progress(
    prt: Prt, arguments: list[object], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Progress is told where there is more than a batch; names that are not text are printed."""
    (folder / os.fsdecode(b"\xff.png")).write_bytes((folder / "b.png").read_bytes())
    code, out, complaint = prt(*arguments, folder)
    assert code == 0
    names = out.splitlines()[::2]
    assert names[0] == str(folder / "b.png")
    assert names[-1].endswith("\\udcff.png")
    assert "predict" not in complaint
    monkeypatch.setattr("prt.vision.score.BATCH", 3)
    assert "predict" in prt(*arguments, folder)[2]
