"""Downloads of images; the rest of the pipeline runs without a network.

What is fetched appears whole or not at all: archives are checked against their MD5, and folders are made aside and then
renamed. A killed fetch is simply run again; what it left behind is mended, never trusted.
"""

import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torchvision.datasets.utils import check_integrity, download_url, extract_archive

from prt.atomic import making, remove, write_json
from prt.errors import InputError, first_line
from prt.hub import ORIGIN, download, fetch_dataset, kind_of, origin
from prt.vision.catalogue import Archive, Entry, entry
from prt.vision.parts import torchvision_splits
from prt.vision.sources import KINDS, WHAT, find

PATIENCE = 60  # seconds that a silent server is waited for
PACKED = (".tgz", ".tar.gz", ".zip")


def fetch(source: str, root: Path, out: Path) -> None:
    """Download what ``source`` needs into ``root`` and check it; then write a receipt to ``out``.

    The receipt (JSON) has the source, its numbers of classes and of images of each split, and the checksums or the
    revision that are known. Sources that need no download have the source alone.

    Args:
        source: as for ``prt.vision.prepare.prepare``.
        root: the folder of downloads.

    Raises:
        InputError: if something cannot be downloaded, is not what was published, or cannot be written.
    """
    kind, name = kind_of(source, KINDS, WHAT)
    remove(out)
    receipt: dict[str, Any] = {"source": source}
    fetchers: dict[str, Callable[[str, Path], dict[str, Any]]] = {
        "huggingface": fetch_dataset,
        "paper": lambda name, root: fetch_entry(entry(name), root),
        "torchvision": _torchvision,
    }
    if kind in fetchers:
        with _patience():
            receipt |= fetchers[kind](name, root)
        classes, parts = find(source, root, streaming=True)
        receipt["classes"] = len(classes)
        receipt["images"] = {split: len(part.labels) for split, part in parts.items()}
    write_json(out, receipt)


def fetch_entry(facts: Entry, root: Path) -> dict[str, Any]:
    """Download a data set of the catalogue, unless it is there; what is known of its files.

    Raises:
        InputError: as for ``fetch``.
    """
    folder = facts.folder(root)
    if facts.hub:
        hub = facts.hub
        return download(hub.repository, "dataset", folder, revision=hub.revision, needed=hub.patterns)
    if not folder.is_dir():
        files = [_download(archive, facts, root) for archive in facts.archives]
        with _aside(folder) as aside:
            for archive, file in zip(facts.archives, files, strict=True):
                _unpack(archive, file, aside)
            write_json(aside / ORIGIN, {"md5": {archive.file: archive.md5 for archive in facts.archives}})
    return origin(folder)


def _download(archive: Archive, facts: Entry, root: Path) -> Path:
    file = facts.archive_folder(root) / archive.file
    if check_integrity(file, archive.md5):
        return file
    aside = file.with_name(f".{file.name}.part")
    remove(aside)  # else torchvision takes the half of a killed run for the whole
    try:
        download_url(archive.url, str(aside.parent), aside.name)
        if check_integrity(aside, archive.md5):
            aside.replace(file)
            return file
        why = f"{archive.url} has not the published MD5 {archive.md5}: it was cut off, or is another file"
    except Exception as error:  # no network, no such file, no space: many kinds
        why = f"{archive.url} could not be downloaded ({first_line(error)})"
    finally:
        remove(aside)
    raise InputError(
        f"{facts.title}: {why}; fetch again where there is a network, or put the file there by hand, as {file}."
    )


def _unpack(archive: Archive, file: Path, folder: Path) -> None:
    into = folder / archive.into
    into.mkdir(parents=True, exist_ok=True)
    if not file.name.endswith(PACKED):
        shutil.copy(file, into)
    elif archive.inner is None:
        extract_archive(str(file), str(into))
    else:
        unpacked = folder / "unpacked"
        extract_archive(str(file), str(unpacked))
        extract_archive(str(unpacked / archive.inner), str(into))
        shutil.rmtree(unpacked)


def _torchvision(name: str, root: Path) -> dict[str, Any]:
    folder = root / name
    if not folder.is_dir():
        with _aside(folder) as aside:
            torchvision_splits(name, aside, download=True)
    return {}


@contextmanager
def _aside(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``folder`` to work in; on success it becomes ``folder``, on failure it goes."""
    with making(folder) as aside:
        try:
            yield aside
        except InputError:
            raise
        except Exception as error:  # network, checksum, space, broken archive: the loaders raise many kinds
            raise InputError(
                f"{folder} could not be made ({first_line(error)}); mend that, or go where there is a network, and "
                "fetch again."
            ) from error


@contextmanager
def _patience() -> Iterator[None]:
    """Wait for a silent server no longer than PATIENCE; torchvision would wait for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
