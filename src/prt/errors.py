"""Bad input, told in one sentence that names the culprit and the remedy."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path


class InputError(Exception):
    """Something the user can mend; the command line prints its message alone and exits with 1."""

    def __str__(self) -> str:
        """One line, whatever the files that it quotes hold: line ends and what else cannot be seen become spaces."""
        return "".join(c if c.isprintable() else " " for c in super().__str__())


def known(name: object, names: Iterable[object], what: str) -> None:
    """Refuse a ``name`` that is not among ``names``, and say which of them is nearest.

    Raises:
        InputError: if ``name`` is unknown.
    """
    right = [str(n) for n in names]
    if str(name) in right:
        return
    near = get_close_matches(str(name), right, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else f"choose one of: {', '.join(sorted(right))}."
    raise InputError(f"unknown {what} '{name}': {hint}")


def first_line(error: Exception) -> str:
    """The kind of an error and the first line of what it says: enough for one sentence."""
    if callable(several := getattr(error, "errors", None)):  # pydantic's, whose first line counts them
        first = several()[0]
        place = ".".join(str(part) for part in first["loc"] if part != "[key]")
        return f"{place or 'as a whole'}: {first['msg'].removeprefix('Value error, ')}"
    said = re.sub(r" at 0x[0-9a-f]+", "", str(error)).strip()  # where an object lies in memory helps nobody
    return f"{type(error).__name__}: {said.splitlines()[0] if said else 'no message'}"


def last_words(logs: Iterable[str]) -> list[str]:
    """The last line of each log of a job that ended with an error: its sentence, or what a traceback comes to."""
    found = []
    for log in map(Path, logs):
        text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
        lines = [line for line in text.splitlines() if line.strip()]
        sentences = [line for line in lines if line.startswith("prt: error: ")]
        if sentences or "Traceback (most recent call last):" in lines:
            found.append(f"{(sentences or lines)[-1].removeprefix('prt: error: ')} ({log})")
    return found
