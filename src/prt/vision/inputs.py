"""The pictures that a user names: files, folders and lists of them. A bad one does not cost the others."""

import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from PIL import Image

from prt.atomic import must_exist
from prt.errors import InputError
from prt.vision.folders import entries, is_picture, listed
from prt.vision.pictures import as_seen

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def named(names: Sequence[str], lists: Sequence[Path]) -> list[str]:
    """``names``, with those of standard input in the place of ``-``, and after them those in the files ``lists``.

    Raises:
        InputError: if a list cannot be read or is no text, or nothing is named at all.
    """
    found: list[str] = []
    for name in names:
        found += _lines(sys.stdin.buffer.read(), "standard input") if name == "-" else [name]
    for file in lists:
        must_exist(file, "list of images")
        try:
            found += _lines(file.read_bytes(), f"the list {file}")
        except OSError as error:
            raise InputError(f"the list {file} cannot be read ({error.strerror}); correct the path.") from None
    if not found:
        raise InputError("no images are named; name files or folders, or give a list of them by --list or by -.")
    return found


def files_of(names: Iterable[str], failed: dict[str, str]) -> list[str]:
    """The image files among ``names``, and in the folders among them at any depth.

    In folders, what begins with a dot or is left behind by systems is no data, and files that are no pictures are left
    out, which is told on stderr. What cannot be used goes into ``failed``: name → sentence.
    """
    found: list[str] = []
    others: list[Path] = []
    for name in names:
        if URL.match(name) or not os.path.isdir(name):
            found.append(name)
            continue
        before = len(found), len(failed)
        found += map(str, _inside(Path(name), (), others, failed))
        if before == (len(found), len(failed)):
            failed[name] = f"the folder {name} holds no images; name another."
    if others:
        print(
            f"files left out that are no pictures: {len(others)} ({listed(list(map(str, others)))}).", file=sys.stderr
        )
    return found


def picture(name: str | Path) -> Image.Image:
    """The picture in a file, as people see it.

    Raises:
        InputError: if it is a URL or a folder, is missing, or cannot be read or decoded.
    """
    if URL.match(str(name)):
        raise InputError(f"{name} is a URL, but only files are read; download it first.")
    path = Path(name)
    # The methods of Path raise for a name that is too long.
    if os.path.isdir(path):
        raise InputError(f"{name} is a folder, not an image; give the images in it.")
    if not os.path.exists(path):
        raise InputError(f"the image {name} does not exist; correct the path.")
    if not path.is_file():  # reading a device might never end
        raise InputError(f"{name} is no ordinary file; give one.")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"the image {name} cannot be read ({error.strerror}); mend its permissions.") from None
    return as_seen(content, str(name))


def pictures(names: Iterable[str], failed: dict[str, str]) -> Iterator[tuple[str, Image.Image]]:
    """Each picture with its name; what cannot be read is left out and goes into ``failed``: name → sentence."""
    for name in names:
        try:
            read = picture(name)
        except InputError as error:
            failed[name] = str(error)
        else:
            yield name, read


def tell(failed: dict[str, str], done: int) -> NoReturn:
    """Say on stderr what was not used, where ``done`` pictures were.

    Raises:
        InputError: always: with the number and the names, or where only one picture was asked for, the reason.
    """
    if len(failed) + done > 1:
        for sentence in failed.values():
            print(sentence, file=sys.stderr)
        names = listed(list(failed))
        raise InputError(f"{len(failed)} of {len(failed) + done} could not be used, as said above: {names}.")
    raise InputError(next(iter(failed.values())))


def _lines(content: bytes, what: str) -> list[str]:
    """Paths, one a line; blank lines are none. Names of files need not be in UTF-8."""
    if b"\0" in content:  # a picture, UTF-16, or what `find -print0` writes
        raise InputError(f"{what} is no text with a path on each line; give one, in UTF-8.")
    lines = os.fsdecode(content.removeprefix(b"\xef\xbb\xbf")).split("\n")
    return [line.removesuffix("\r") for line in lines if line.strip()]


def _inside(folder: Path, around: tuple[Path, ...], others: list[Path], failed: dict[str, str]) -> Iterator[Path]:
    """The pictures in a folder, at any depth; ``around`` are the folders that it lies in."""
    try:
        if (real := folder.resolve()) in around:
            raise InputError(f"the link {folder} leads back to {real}, which it lies in; remove it.")
        inside = entries(folder)
    except InputError as error:
        failed[str(folder)] = str(error)
        return
    for entry in inside:
        if os.path.isdir(entry):
            yield from _inside(entry, (*around, real), others, failed)
        elif is_picture(entry):
            yield entry
        else:
            others.append(entry)
