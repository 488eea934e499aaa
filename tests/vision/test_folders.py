"""Image folders: splits and classes by one rule for names, pictures by what they are, nothing left out in silence."""

import os
import re
import shutil
from pathlib import Path

import pytest
from conftest import draw

from prt.errors import InputError
from prt.vision.folders import find_folder


def tree(top: Path, *files: str) -> Path:
    for i, file in enumerate(files):
        path = top / file
        path.parent.mkdir(parents=True, exist_ok=True)
        draw("circle", i).convert("RGB").save(path, "JPEG" if path.suffix == ".jfif" else None)
    return top


def of_classes(*splits: str) -> list[str]:
    return [f"{split}/{name}/{split}.png" for split in splits for name in ("cat", "dog")]


def found(top: Path) -> dict[str, list[str]]:
    """The files of each split, by their paths in it."""
    classes, parts = find_folder(top)
    read = {split: [Path(part.read(i)[1]) for i in range(len(part.labels))] for split, part in parts.items()}
    for split, part in parts.items():
        assert [classes[label] for label in part.labels] == [
            file.relative_to(top).parts[0 if split == "all" else 1] for file in read[split]
        ]
    return {split: [str(file.relative_to(top)) for file in files] for split, files in read.items()}


@pytest.mark.parametrize(("names", "splits"), [
    (["train", "test"], ["train", "test"]),
    (["Train", "Test"], ["train", "test"]),
    (["TRAINING", "Testing"], ["train", "test"]),
    (["train", "val"], ["train", "validation"]),
    (["train", "Valid", "test"], ["train", "validation", "test"]),
    (["training", "dev"], ["train", "validation"]),
    (["Training", "Validation"], ["train", "validation"]),
])  # fmt: skip
def test_splits_by_name(tmp_path: Path, names: list[str], splits: list[str]) -> None:
    files = found(tree(tmp_path, *of_classes(*names)))
    assert files == {
        split: [f"{name}/cat/{name}.png", f"{name}/dog/{name}.png"] for name, split in zip(names, splits, strict=True)
    }


@pytest.mark.parametrize(("files", "sentence"), [
    (of_classes("train", "val", "validation"), "has both 'val' and 'validation' for the split 'validation'; keep one"),
    (of_classes("Train", "train"), "has both 'Train' and 'train' for the split 'train'; keep one"),
    (of_classes("test", "train", "Testing"), "has both 'Testing' and 'test' for the split 'test'"),
    (of_classes("train", "extra"), "has folders of splits (train) beside others (extra); take the others away"),
    (["car/1.png", "plane/1.png", "train/1.png"], "(train) beside others (car, plane)"),
    (of_classes("test", "val"), "has 'test', but no folder 'train'; add it"),
    (of_classes("train2017", "val2017"), "has the folders train2017, val2017, which look like splits"),
    (of_classes("TrainImages", "test_images"), "has the folders TrainImages, test_images, which look like splits"),
    (of_classes("data/train", "data/test"), "it has the folders data, data/test, data/train"),
    (["cat/train/1.png", "cat/Test/1.png", "dog/train/1.png"], "cat has a folder 'Test', but splits are above classes"),
    (["images/train/1.png", "labels/train/1.png"], "images has a folder 'train', but splits are above classes"),
    (["train/val/1.png", "train/test/1.png"], "needs two class folders or more"),
    ([*of_classes("train"), "test/1.png"], "test has no class folders; add them, or take it out"),
    ([*of_classes("train"), "test/Cat/1.png", "test/dog/1.png"], "test/cat holds no images"),
    (["1.png", "2.png"], "needs two class folders or more"),
    (["cat/1.png"], "it has the folders cat."),
    ([], "it has no folders"),
])  # fmt: skip
def test_other_layouts_are_refused(tmp_path: Path, files: list[str], sentence: str) -> None:
    with pytest.raises(InputError, match=re.escape(sentence)):
        find_folder(tree(tmp_path, *files))


def test_a_class_may_have_the_name_of_a_split_where_splits_are_told_apart(tmp_path: Path) -> None:
    classes, parts = find_folder(tree(tmp_path, "train/car/1.png", "train/train/1.png", "train/train_station/1.png"))
    assert (classes, list(parts)) == (["car", "train", "train_station"], ["train"])
    for name in ("test_tube", "dev_board"):  # parts of names make no split of a folder
        tree(tmp_path / "two", f"{name}/1.png")
    assert find_folder(tmp_path / "two")[0] == ["dev_board", "test_tube"]


HIDDEN = [".ipynb_checkpoints", "__MACOSX", "@eaDir", ".Trash", "$RECYCLE.BIN", "__pycache__"]


@pytest.mark.parametrize("level", ["", "train", "train/cat", "train/cat/deeper"])
@pytest.mark.parametrize("name", HIDDEN)
def test_what_programs_leave_behind_is_no_data(
    tmp_path: Path, level: str, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    tree(tmp_path, *of_classes("train"), f"train/cat/deeper/{name}.png" if name[0] == "." else "train/cat/deeper/x.png")
    before = found(tmp_path)
    tree(tmp_path / level / name, "cat/1.png", "dog/1.png", "test/1.png")
    for file in ("Thumbs.db", ".DS_Store", "._1.png", "desktop.ini"):
        (tmp_path / level / file).write_bytes(b"x")
    assert found(tmp_path) == before
    assert capfd.readouterr().err == ""


def test_every_picture_is_read_and_what_is_left_out_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    names = ["0.png", "1.jfif", "2.PNG", "3.tga", "4.jp2", "5.webp", "deeper/6.pgm"]
    tree(tmp_path, "dog/1.png", *(f"cat/{name}" for name in names))
    for name in ("no_suffix", "7.jpg_large"):
        shutil.copy(tmp_path / "cat" / "0.png", tmp_path / "cat" / name)
    expected = sorted([*names, "no_suffix", "7.jpg_large"], key=Path)
    assert found(tmp_path)["all"] == [*(f"cat/{name}" for name in expected), "dog/1.png"]
    assert capfd.readouterr().err == ""
    (tmp_path / "cat" / "notes.txt").write_text("a cat")
    (tmp_path / "cat" / "film.mpg").write_bytes(b"\0\0\1\xba" + bytes(99))
    (tmp_path / "dog" / "drawing.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    (tmp_path / "README.md").write_text("animals")
    tree(tmp_path, "loose.png")
    assert len(found(tmp_path)["all"]) == 10
    assert capfd.readouterr().err == (
        f"files of {tmp_path} left out: 2 beside the class folders (README.md, loose.png); "
        "3 that are no pictures (cat/film.mpg, cat/notes.txt, dog/drawing.eps).\n"
    )
    for i in range(20):
        (tmp_path / "dog" / f"{i:02}.json").write_text("{}")
    find_folder(tmp_path)
    assert "23 that are no pictures (cat/film.mpg, cat/notes.txt, dog/00.json, " in capfd.readouterr().err


def test_pipes_and_devices_are_not_opened(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tree(tmp_path, "cat/1.png", "dog/1.png")
    for place in ("pipe", "cat/pipe", "cat/pipe.png"):
        os.mkfifo(tmp_path / place)
    (tmp_path / "dog" / "zero.png").symlink_to("/dev/zero")
    assert found(tmp_path)["all"] == ["cat/1.png", "dog/1.png"]
    told = capfd.readouterr().err
    assert "1 beside the class folders (pipe); 3 that are no pictures (cat/pipe, cat/pipe.png, dog/zero.png)" in told


def test_links(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    top = tree(tmp_path / "top", "cat/1.png", "dog/1.png")
    tree(tmp_path / "else", "2.png", "more/3.png")
    (top / "fox").symlink_to(tmp_path / "else")
    (top / "cat" / "others").symlink_to(tmp_path / "else")
    (top / "dog" / "2.png").symlink_to(tmp_path / "else" / "2.png")
    files = ["cat/1.png", "cat/others/2.png", "cat/others/more/3.png", "dog/1.png", "dog/2.png"]
    assert found(top)["all"] == [*files, "fox/2.png", "fox/more/3.png"]
    assert capfd.readouterr().err == ""
    (top / "cat" / "itself").symlink_to("itself")
    assert len(found(top)["all"]) == 7
    assert "1 that are no pictures (cat/itself)" in capfd.readouterr().err
    for link, to in ((top / "cat" / "up", ".."), (top / "all", "."), (top / "cat" / "others" / "again", ".")):
        link.symlink_to(to)
        with pytest.raises(InputError, match=f"{re.escape(str(link))} leads back to .*, which it lies in; remove it"):
            find_folder(top)
        link.unlink()
