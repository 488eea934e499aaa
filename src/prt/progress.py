"""Progress of long work: a bar on a terminal, a plain line every ten seconds in a log."""

import io
import sys
from typing import NoReturn

from tqdm import tqdm


class _Lines(io.TextIOBase):
    """Turns a bar's redrawing (carriage returns) into lines of their own."""

    def write(self, text: str) -> int:
        text = text.strip("\r\n ")
        if text:
            sys.stderr.write(text + "\n")
        return len(text)

    def flush(self) -> None:
        sys.stderr.flush()


def progress(name: str, total: int, unit: str, start: int = 0) -> "tqdm[NoReturn]":
    """A progress bar over ``total`` units with rate and remaining time, at ``start``; a context manager."""
    if sys.stderr.isatty():
        return tqdm(initial=start, total=total, desc=name, unit=unit, mininterval=0.1)
    return tqdm(initial=start, total=total, desc=name, unit=unit, mininterval=10, file=_Lines(), ascii=True, ncols=100)
