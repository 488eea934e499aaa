"""A user's own image folder: which of its folders are splits, which are classes, and which files are pictures."""

import re
import sys
from collections.abc import Iterator
from functools import cache
from os.path import exists, isdir, isfile  # Path's own raise where there is no permission
from pathlib import Path

from PIL import Image

from prt.errors import InputError
from prt.vision.parts import Found, Part, encoded, split_of, splits_among
from prt.vision.pictures import kept

# What systems and programs leave behind. No data at any level, as is what begins with a dot.
LEFT_BEHIND = frozenset({
    "__macosx", "__pycache__", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "#recycle", "$recycle.bin",
    "system volume information", "lost+found",
})  # fmt: skip
# Kinds of pictures, by Pillow's names. Pillow has more, but they are films, drawings for a printer or measurements.
FORMATS = (
    "AVIF", "BMP", "GIF", "ICO", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "PSD", "QOI", "SGI", "TGA", "TIFF", "WEBP",
)  # fmt: skip
FORM = "as in PATH/CLASS/IMAGE, or PATH/train/CLASS/IMAGE with PATH/validation and PATH/test beside it"
SHOWN = 6  # names in a message


def find_folder(top: Path) -> Found:
    """The class folders' names and the splits of ``PATH/CLASS/*`` or ``PATH/{train,validation,test}/CLASS/*``.

    Pictures may lie deeper in a class folder. Links are followed. Files that are left out are listed on stderr.

    Raises:
        InputError: if there is no such folder, its layout is another, or a class has no picture.
    """
    if not top.is_dir():
        raise InputError(f"the image folder {top} does not exist; correct 'source'.")
    folders = _splits(top)
    left: dict[str, list[Path]] = {"beside the class folders": [], "that are no pictures": []}
    beside, others = left.values()
    for folder in {top, *folders.values()}:
        beside += [entry for entry in entries(folder) if not isdir(entry)]
    names = {split: [entry.name for entry in _folders(folder)] for split, folder in folders.items()}
    for split, own in names.items():
        if not own and split != "all":
            raise InputError(f"the folder {folders[split]} has no class folders; add them, or take it out of {top}.")
    classes = sorted({name for own in names.values() for name in own})
    if len(classes) < 2 or all(split_of(name) for name in classes):
        raise InputError(f"the image folder {top} needs two class folders or more, {FORM}; it has {_layout(top)}.")

    def part(folder: Path) -> Part:
        files: list[Path] = []
        labels: list[int] = []
        for label, class_name in enumerate(classes):
            inside = _files(folder / class_name, (top.resolve(), folder.resolve()))
            here = {file: is_picture(file) for file in sorted(inside)}
            others.extend(file for file, is_picture in here.items() if not is_picture)
            pictures = [file for file, is_picture in here.items() if is_picture]
            if not pictures:
                raise InputError(
                    f"the class folder {folder / class_name} holds no images; add some or remove the class."
                )
            files += pictures
            labels += [label] * len(pictures)
        return Part(labels, lambda i: (kept(encoded(files[i]), str(files[i])), str(files[i])))

    parts = {split: part(folder) for split, folder in folders.items()}
    unread = [
        f"{len(files)} {where} ({listed([str(file.relative_to(top)) for file in sorted(files)])})"
        for where, files in left.items()
        if files
    ]
    if unread:
        print(f"files of {top} left out: {'; '.join(unread)}.", file=sys.stderr)
    return classes, parts


def _splits(top: Path) -> dict[str, Path]:
    """The folder of each split, or ``top`` itself as 'all'."""
    names = [entry.name for entry in _folders(top)]
    found = splits_among(names, f"the image folder {top}")
    others = [name for name in names if name not in found.values()]
    if found and others:
        raise InputError(
            f"the image folder {top} has folders of splits ({', '.join(found.values())}) beside others "
            f"({listed(others)}); take the others away, or if all are classes, put them into {top / 'train'}."
        )
    words = [{word.lower() for word in re.findall(r"[A-Z]?[a-z]+", name)} for name in names]
    if not found and any("train" in own for own in words) and all(any(map(split_of, own)) for own in words):
        raise InputError(
            f"the image folder {top} has {_layout(top)}, which look like splits; call them train, validation and "
            f"test, or if they are classes, put them into {top / 'train'}."
        )
    if found and "train" not in found:
        raise InputError(f"the image folder {top} has '{next(iter(found.values()))}', but no folder 'train'; add it.")
    return {split: top / name for split, name in found.items()} or {"all": top}


def entries(folder: Path) -> list[Path]:
    """What is in a folder, in order, without what is no data at any level.

    Raises:
        InputError: if it cannot be read.
    """
    try:
        found = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"the folder {folder} cannot be read ({error.strerror}); mend its permissions.") from None
    return [entry for entry in found if not entry.name.startswith(".") and entry.name.lower() not in LEFT_BEHIND]


def _folders(folder: Path) -> list[Path]:
    return [entry for entry in entries(folder) if isdir(entry)]


def _files(folder: Path, around: tuple[Path, ...]) -> Iterator[Path]:
    """All files in a class folder, at any depth; ``around`` are the folders that it lies in."""
    if not folder.is_dir():
        return
    if (real := folder.resolve()) in around:
        raise InputError(f"the link {folder} leads back to {real}, which it lies in; remove it.")
    for entry in entries(folder):
        if not isdir(entry):
            yield entry
        elif split_of(entry.name):
            raise InputError(
                f"the class folder {folder} has a folder '{entry.name}', but splits are above classes, {FORM}; move "
                "its images, or give it another name."
            )
        else:
            yield from _files(entry, (*around, real))


def is_picture(file: Path) -> bool:
    """By its suffix, else by its beginning; a pipe or a device is none, and not opened."""
    if file.suffix.lower() in _suffixes():  # then a link to nowhere or a broken picture is not left out, but refused
        return isfile(file) or not exists(file)
    if not isfile(file):
        return False
    try:
        with Image.open(file, formats=[kind for kind in FORMATS if Image.OPEN[kind][1]]):  # those with a mark
            return True
    except Exception:  # Pillow raises many kinds for what is no picture
        return False


@cache
def _suffixes() -> frozenset[str]:
    return frozenset(suffix for suffix, kind in Image.registered_extensions().items() if kind in FORMATS)


def _layout(top: Path) -> str:
    """What is in a folder, for a message: its folders, or those in its only one."""
    names = [entry.name for entry in _folders(top)]
    if len(names) == 1:
        names += [f"{names[0]}/{entry.name}" for entry in _folders(top / names[0])]
    return f"the folders {listed(names)}" if names else "no folders"


def listed(names: list[str]) -> str:
    """Names for a message: the first few, and how many more."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
