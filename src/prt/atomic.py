"""Files that appear whole or not at all, and are checked when read: safetensors and JSON, no pickle."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prt.errors import InputError, first_line

if TYPE_CHECKING:
    from torch import Tensor

_REMEDY = {
    errno.ENOSPC: "free some space and run again",
    errno.EDQUOT: "free some of your quota and run again",
    errno.EACCES: "choose a folder you may write to",
    errno.EPERM: "choose a folder you may write to",
    errno.EROFS: "choose a folder you may write to",
    errno.ENOTDIR: "a file stands where a folder is needed; remove it or choose another folder",
    errno.EEXIST: "a file stands where a folder is needed; remove it or choose another folder",
}


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Yield a name beside ``path`` to write to; on success it becomes ``path``, on failure it goes.

    Raises:
        InputError: if the file cannot be written (no space, no permission, …).
    """
    path = Path(path)
    aside, _ = _asides(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield aside
        with aside.open("rb") as file:
            os.fsync(file.fileno())
        aside.replace(path)
    except Exception as error:
        if refusal := _unwritable(path, error):
            raise refusal from error
        raise
    finally:
        with suppress(OSError):  # the folder is not ours to write to, so nothing was written
            aside.unlink(missing_ok=True)


@contextmanager
def making(folder: Path) -> Iterator[Path]:
    """Yield a new folder beside ``folder`` to write to; on success it becomes ``folder``, on failure it goes.

    Raises:
        InputError: if there is something at ``folder`` already, or it cannot be written.
    """
    named, folder = folder, Path(os.path.abspath(folder))  # "." and ".." have no name to stand beside
    aside, _ = _asides(folder)
    above: list[Path] = []
    try:
        must_be_free(named)
        if aside.exists():
            shutil.rmtree(aside)
        above = [place for place in folder.parents if not place.exists()]
        aside.mkdir(parents=True)
        yield aside
        aside.rename(folder)
    except InputError:
        raise
    except Exception as error:
        if refusal := _unwritable(folder, error):
            raise refusal from error
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        for place in above:
            with suppress(OSError):  # it holds what was made
                place.rmdir()


def _unwritable(path: Path, error: Exception) -> InputError | None:
    """What to answer to an error while writing, if it is the operating system's, or comes of the path."""
    if isinstance(error, UnicodeEncodeError) and not _is_text(str(path)):  # not all libraries take any name
        return InputError(f"cannot write {path}: its name is not in UTF-8; choose another.")
    # safetensors wraps the operating system's error in one of its own, keeping only the text.
    number = getattr(error, "errno", None) or next((n for n in _REMEDY if f"os error {n}" in str(error)), None)
    if number is None:
        return None
    return InputError(f"cannot write {path}: {os.strerror(number)}; {_REMEDY.get(number, 'mend that and run again')}.")


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _asides(path: Path) -> tuple[Path, Path]:
    """The file and the folder that ``path`` is made in: always the same, so that the next writer finds a dead one's."""
    return path.parent / f".{path.name}.part", path.parent / f".{path.name}.parts"


def remove(path: Path | str) -> None:
    """Remove a file, if there is one, and what a killed writer of it left."""
    file, folder = _asides(Path(path))
    with suppress(FileNotFoundError, NotADirectoryError):
        Path(path).unlink()
    with suppress(OSError):
        file.unlink()
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def scratch(purpose: str) -> Iterator[Path]:
    """Yield an empty folder in the system's place for temporary files, and remove it afterwards.

    What killed processes left for the same ``purpose`` is removed first. A folder is locked for as long as its process
    lives, so that another's is let be.
    """
    prefix = f"prt-{purpose}-"
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with suppress(OSError), _locked(left):  # else it is another user's, or in use
            shutil.rmtree(left)
    with ExitStack() as stack:
        while True:
            folder = Path(tempfile.mkdtemp(prefix=prefix))
            try:
                stack.enter_context(_locked(folder))
            except (FileNotFoundError, BlockingIOError):  # taken for a dead process's before it had its lock
                continue
            except OSError:  # no locks here, so no other process takes it
                break
            if folder.exists():
                break
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        yield folder


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder; OSError if another process does, it is no folder, or has no locks."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(opened)


@contextmanager
def alone(path: Path, what: str) -> Iterator[None]:
    """Hold what goes on from ``path``, a checkpoint, for this process: another one that runs on is not to write to it.

    The lock goes with the process, however that ends. Where a file system has no locks, none is held.

    Raises:
        InputError: if another process holds it, naming that.
    """
    lock = path.with_name(f".{path.name}.lock")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("a+")
    except OSError as error:
        raise (_unwritable(lock, error) or error) from error
    with file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.seek(0)
            raise InputError(
                f"{what} is under way in another process ({file.read()}), perhaps of a run that was killed: wait until "
                "it has ended, or end it, and run again."
            ) from None
        except OSError:  # no locks here
            pass
        file.truncate(0)
        file.write(f"number {os.getpid()} on {socket.gethostname()}")
        file.flush()
        try:
            yield
        finally:
            remove(lock)


def write_text(path: Path | str, text: str) -> None:
    """Write ``text`` whole or not at all."""
    with replacing(path) as aside:
        aside.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: Any) -> None:
    """Write ``value`` as indented JSON with sorted keys, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path | str, what: str = "manifest") -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        InputError: if the file is missing, or does not hold a JSON object.
    """
    path = Path(path)
    must_exist(path, what)
    try:
        value = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
    except (ValueError, RecursionError, OSError) as error:
        raise InputError(f"the {what} {path} is corrupt ({first_line(error)}); delete it and make it again.") from None
    if not isinstance(value, dict):
        raise InputError(f"the {what} {path} is corrupt (no JSON object); delete it and make it again.")
    return value


def _no_number(constant: str) -> None:
    raise ValueError(f"it holds {constant}")


def write_tensors(path: Path | str, tensors: "dict[str, Tensor]", header: dict[str, Any]) -> None:
    """Write named tensors with a JSON ``header`` as one safetensors file, whole or not at all."""
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as aside:
        # safetensors writes to a file of a random name first, which would stay where it is killed: it does so in a
        # folder of ours, which the next writer finds.
        _, work = _asides(Path(path))
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        try:
            save_file(tensors, work / aside.name, metadata={"prt": json.dumps(header, sort_keys=True)})
            (work / aside.name).replace(aside)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def read_tensors(path: Path | str, what: str) -> "tuple[dict[str, Tensor], dict[str, Any]]":
    """Read what :func:`write_tensors` wrote: the tensors and the header.

    Raises:
        InputError: if the file is missing, truncated or corrupt, or was not written by this project.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    must_exist(path, what)
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})["prt"])
            if not isinstance(header, dict):
                raise ValueError("its header is no JSON object")
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}, header
    except KeyError:
        raise InputError(f"the {what} {path} was not written by this project.") from None
    except (SafetensorError, ValueError, RecursionError, OSError) as error:
        raise InputError(
            f"the {what} {path} is truncated or corrupt ({first_line(error)}); delete it and make it again."
        ) from None


def check_finite(tensors: "dict[str, Tensor]", what: str) -> None:
    """Refuse NaN and infinity, which no sum and no softmax gets rid of.

    Raises:
        InputError: naming the first tensor that holds one.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.numel():
            wide = tensor if tensor.element_size() > 1 else tensor.float()
            if not all(bool(bound.isfinite()) for bound in wide.aminmax()):
                raise InputError(f"{what} hold NaN or infinity ('{name}'): make them again, if need be in fp32.")


def file_hash(path: Path | str) -> str:
    """SHA-256 of a file's bytes, as hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(*parts: Any) -> str:
    """SHA-256 of JSON-able ``parts``: equal parts, equal fingerprints."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def must_exist(path: Path, what: str) -> None:
    """Refuse a file that is missing, or that is a folder, a pipe or a device: those could be waited for without end.

    Raises:
        InputError: saying which; ``what`` it should be.
    """
    if os.path.isdir(path):
        raise InputError(f"{path} is a folder, and not the {what} that should be there; correct the path.")
    if not os.path.exists(path):
        raise InputError(f"the {what} {path} does not exist; correct the path.")
    if not os.path.isfile(path):
        raise InputError(f"{path} is a pipe or a device, and not the {what} that should be there; correct the path.")


def must_be_free(folder: Path) -> None:
    """Refuse to make a folder where there is something, if only a link: an empty folder is as none.

    Raises:
        InputError: if there is.
    """
    if os.path.lexists(folder) and (folder.is_symlink() or not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is there already; choose another folder, or remove it.")


def only_files(folder: Path) -> None:
    """Refuse a folder in which a pipe or a device lies, before what reads its files waits for it without end.

    Raises:
        InputError: naming it.
    """
    for entry in folder.iterdir():
        if os.path.exists(entry) and not os.path.isdir(entry):
            must_exist(entry, "file")
