"""The rehearsal: small networks and data where downloads would lie, in the downloads' own form, made without a network.

A configuration asks for them by ``stand_ins: true``. Only the jobs that fetch know: they make a stand-in first, and
then fetch, which finds it there, as it would find what somebody has put there by hand. All other jobs run as always.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prt.atomic import making


@contextmanager
def remaking(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``folder`` to work in; on success it takes its place.

    Raises:
        InputError: if it cannot be written (no space, no permission, …).
    """
    shutil.rmtree(folder, ignore_errors=True)
    with making(folder) as aside:
        yield aside
