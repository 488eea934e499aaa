"""Task files of lm-evaluation-harness as they are written: what they include, and whether they bring code.

This module needs no lm-eval, and runs nothing that a file names.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from prt.errors import InputError


class _Python(str):
    """What a file names by !function."""

    __slots__ = ()


class _Loader(yaml.SafeLoader):
    """Reads a task file without its Python."""


_Loader.add_constructor("!function", lambda _, node: _Python(node.value))


def files(task: Path) -> list[Path]:
    """A task file, what it includes, if it is a group all others of its folder, and the Python beside them.

    Raises:
        InputError: if a file is missing, or is no YAML with keys.
    """
    read = _read(task)
    modules = [
        file.parent / f"{name.rpartition('.')[0].replace('.', '/')}.py"
        for file, content in read.items()
        for name in _values(content)
        if isinstance(name, _Python)
    ]
    return [*read, *sorted({module for module in modules if module.is_file()})]


def runs_answers(task: Path) -> bool:
    """Whether a task file says that it runs programs that a model wrote.

    Raises:
        InputError: as for :func:`files`.
    """
    return any(isinstance(v, dict) and v.get("unsafe_code") for c in _read(task).values() for v in _values(c))


def drawn(task: Path) -> dict[str, Path]:
    """How a task file, or one of a group's, says that answers are drawn: the keys of generation_kwargs, and the file.

    Raises:
        InputError: as for :func:`files`.
    """
    read = _read(task)
    if "group" not in read[task]:
        return _drawn(task, read, ())
    inner = [(file, value) for file, content in read.items() for value in _values(content) if isinstance(value, dict)]
    return {key: file for file, value in inner for key in _keys(value)}


def _drawn(file: Path, read: dict[Path, dict[str, Any]], by: tuple[Path, ...]) -> dict[str, Path]:
    """Of one task: the file's own, else those of the last that it includes."""
    if file in by:  # in a circle, which lm-eval refuses
        return {}
    found: dict[str, Path] = {}
    for name in _included(read[file]):
        found = _drawn(file.parent / name, read, (*by, file)) or found
    return dict.fromkeys(_keys(read[file]), file) if "generation_kwargs" in read[file] else found


def _keys(content: dict[str, Any]) -> list[str]:
    said = content.get("generation_kwargs")
    return [str(key) for key in said] if isinstance(said, dict) else []


def code(task: Path) -> str | None:
    """What of a task file, or of those that belong to it, is code that would run with the user's rights; None: nothing.

    Raises:
        InputError: as for :func:`files`.
    """
    for file, content in _read(task).items():
        for value in _values(content):
            if isinstance(value, _Python):
                return f"the Python '{value}' of {file}"
            if isinstance(value, dict) and value.get("hf_evaluate"):
                return f"the program of the metric '{value.get('metric')}' of {file}, which the library evaluate loads"
            if isinstance(value, dict) and value.get("dataset_path") == "pandas":
                return f"pickled data of {file}, which can hold any program"
    return None


def _read(task: Path) -> dict[Path, dict[str, Any]]:
    """File → content, of a task file and all that belong to it."""
    found: dict[Path, dict[str, Any]] = {}
    content = _load(task, None)
    if "task" not in content and "group" not in content:
        raise InputError(f"{task} is no task file of lm-eval: it has no key 'task' or 'group'; add one.")
    _add(task, content, found)
    if "group" in content:
        for file in sorted(task.parent.glob("**/*.yaml")):
            if file.resolve() != task.resolve():
                _add(file, _load(file, None), found)
    return found


def _add(file: Path, content: dict[str, Any], found: dict[Path, dict[str, Any]]) -> None:
    if file in found:
        return
    found[file] = content
    for name in _included(content):
        inner = file.parent / name
        _add(inner, _load(inner, file), found)


def _included(content: dict[str, Any]) -> list[str]:
    names = content.get("include", [])
    return [str(name) for name in (names if isinstance(names, list) else [names])]


def _load(file: Path, by: Path | None) -> dict[str, Any]:
    if by is not None and not file.is_file():
        raise InputError(
            f"{by} includes {file.relative_to(by.parent) if file.is_relative_to(by.parent) else file}, which is not "
            f"there: a relative path in it is relative to its folder, {by.parent.resolve()}."
        )
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), _Loader)
        list(_values(content))  # without end in a file that holds itself
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:  # also of dates and long numbers
        problem = " ".join(str(error).split())
        raise InputError(f"the task file {file} is no YAML ({problem}); correct it.") from error
    if not isinstance(content, dict):
        raise InputError(f"the task file {file} is no YAML with keys, such as 'task: NAME'; correct it.")
    return content


def _values(value: Any) -> Iterator[Any]:
    """A value and all that is in it."""
    yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _values(inner)
