"""Work in a process of its own that is killed in the middle, at a place that is the same each time."""

import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink")  # what Python tells of what it does to files


def killed(work: Callable[[], Any], after: int) -> bool:
    """Do ``work`` in a process that gets SIGKILL where it has changed files or folders ``after`` times.

    Returns:
        whether it got so far.
    """
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) or status == 0, "it failed by itself; see above"
        return os.WIFSIGNALED(status)
    left = after

    def watch(event: str, given: tuple[Any, ...]) -> None:
        nonlocal left
        writes = event == "open" and given[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and given[0] != os.devnull
        if event in CHANGES or writes:
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

    code = 1
    try:
        sys.addaudithook(watch)
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def tree(top: Path) -> set[str]:
    """All that is below a folder, at any depth."""
    return {str(path.relative_to(top)) for path in top.rglob("*")}
