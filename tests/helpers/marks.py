"""Python that leaves a mark if anything runs it."""

import json
from pathlib import Path
from typing import Any


def leave(folder: Path, mark: Path, module: str = "marking") -> None:
    """A ``module`` in ``folder``, with a class ``Marking``, that makes the file ``mark`` when it is imported."""
    (folder / f"{module}.py").write_text(f"open({str(mark)!r}, 'w').close()\nclass Marking: ...\n")


def edit(file: Path, **changes: Any) -> None:
    """Change keys of a JSON object in a file."""
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
