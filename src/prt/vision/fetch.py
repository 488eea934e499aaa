"""Downloads, apart from all else: the rest of the pipeline runs without a network.

What is fetched appears whole or not at all: archives are checked against their MD5, and folders are made aside and then
renamed. A killed fetch is simply run again; what it left behind is mended, never trusted.
"""

import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from torchvision.datasets.utils import check_integrity, download_url, extract_archive

from prt.atomic import read_json, remove, write_json
from prt.errors import InputError, first_line
from prt.vision.catalogue import Archive, Entry, entry
from prt.vision.datasets import find, kind_of, torchvision_splits

PATIENCE = 60  # seconds that a silent server is waited for
PACKED = (".tgz", ".tar.gz", ".zip")
# What a folder was made from. ``datasets`` passes over hidden files.
ORIGIN = ".fetched.json"


def fetch(source: str, root: Path, out: Path) -> None:
    """Download what ``source`` needs into ``root`` and check it; then write a receipt to ``out``.

    The receipt (JSON) has the source, its numbers of classes and of images of each split, and the checksums or the
    revision that are known. Sources that need no download have the source alone.

    Args:
        source: as for ``prt.vision.datasets.prepare``.
        root: the folder of downloads.

    Raises:
        InputError: if something cannot be downloaded, is not what was published, or cannot be written.
    """
    kind, name = kind_of(source)
    remove(out)
    receipt: dict[str, Any] = {"source": source}
    fetchers = {"huggingface": _huggingface, "paper": _paper, "torchvision": _torchvision}
    if kind in fetchers:
        with _patience():
            receipt |= fetchers[kind](name, root)
        classes, parts = find(source, root)
        receipt["classes"] = len(classes)
        receipt["images"] = {split: len(part.labels) for split, part in parts.items()}
    write_json(out, receipt)


def _paper(name: str, root: Path) -> dict[str, Any]:
    return fetch_entry(entry(name), root)


def fetch_entry(facts: Entry, root: Path) -> dict[str, Any]:
    """Download a data set of the catalogue, unless it is there; what is known of its files.

    Raises:
        InputError: as for ``fetch``.
    """
    folder = facts.folder(root)
    if facts.hub:
        return _repository(facts.hub.repository, facts.hub.revision, facts.hub.patterns, folder)
    if not folder.is_dir():
        files = [_download(archive, facts, root) for archive in facts.archives]
        with _aside(folder) as aside:
            for archive, file in zip(facts.archives, files, strict=True):
                _unpack(archive, file, aside)
            write_json(aside / ORIGIN, {"md5": {archive.file: archive.md5 for archive in facts.archives}})
    return _origin(folder)


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


def _huggingface(name: str, root: Path) -> dict[str, Any]:
    return {} if Path(name).is_dir() else _repository(name, "main", ["*"], root / "hub" / name)


def _repository(repository: str, revision: str, patterns: list[str], folder: Path) -> dict[str, Any]:
    """Download the files of a data set repository that fit ``patterns``, unless its folder is there."""
    # The hub reads whether it may use the network when it is imported.
    from huggingface_hub import HfApi, hf_hub_download

    if not folder.is_dir():
        with _aside(folder, resume=True) as aside:
            info = HfApi().dataset_info(repository, revision=revision)
            names = [file.rfilename for file in info.siblings or []]
            for pattern in patterns:
                if not any(fnmatch(name, pattern) for name in names):
                    raise InputError(f"the repository {repository} of the hub has no file {pattern} at {revision}.")
            for name in names:
                if any(fnmatch(name, pattern) for pattern in patterns):
                    # Whole files of a killed run are kept, halves are gone on with.
                    hf_hub_download(repository, name, repo_type="dataset", revision=info.sha, local_dir=aside)
            shutil.rmtree(aside / ".cache")
            write_json(aside / ORIGIN, {"repository": repository, "revision": info.sha})
    return _origin(folder)


def _origin(folder: Path) -> dict[str, Any]:
    """What a folder was made from; nothing is known of one that was put there by hand."""
    return read_json(folder / ORIGIN) if (folder / ORIGIN).is_file() else {}


@contextmanager
def _aside(folder: Path, resume: bool = False) -> Iterator[Path]:
    """Yield a folder beside ``folder`` to work in; on success it becomes ``folder``.

    It is empty, unless ``resume`` says that what a killed run left in it can be gone on with.
    """
    aside = folder.with_name(f".{folder.name}.part")
    try:
        if not resume and aside.exists():
            shutil.rmtree(aside)
        aside.mkdir(parents=True, exist_ok=True)
        yield aside
        aside.rename(folder)
    except InputError:
        raise
    except Exception as error:  # network, checksum, space, broken archive: the loaders raise many kinds
        raise InputError(
            f"{folder} could not be made ({first_line(error)}); mend that, or go where there is a network, and fetch "
            "again."
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
