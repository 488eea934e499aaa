"""Arrow files, whole or not at all."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from prt.atomic import replacing


@contextmanager
def writing(path: Path, schema: pa.Schema, *, stream: bool = False) -> Iterator[Callable[..., None]]:
    """Yield a function that adds a record batch to the file ``path``, given its columns in the schema's order.

    Args:
        stream: the format that ``datasets.Dataset.from_file`` reads; else the one with random access.

    Raises:
        InputError: if the file cannot be written.
    """
    kind = pa.ipc.new_stream if stream else pa.ipc.new_file
    with replacing(path) as aside, pa.OSFile(str(aside), "wb") as file, kind(file, schema) as writer:

        def add(*columns: list[Any]) -> None:
            arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
            writer.write_batch(pa.record_batch(arrays, schema=schema))

        yield add
