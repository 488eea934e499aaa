"""A prepared image data set: what it is, how it is read, and which of its examples are drawn.

It is a folder with ``train.arrow``, ``validation.arrow``, ``test.arrow`` (columns ``image``, the encoded bytes, and
``label``) and ``manifest.json`` (class names in order, prompt templates, counts, fingerprint).
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
from PIL import EpsImagePlugin, Image, UnidentifiedImageError
from pydantic import BaseModel, Field, ValidationError
from torch.utils.data import Dataset

from prt.atomic import read_json
from prt.class_names import ClassNames, Templates
from prt.errors import InputError, first_line

SPLITS = ("train", "validation", "test")
SPLIT_SEED = 0  # of whatever is drawn once and for all
EpsImagePlugin.gs_binary = False  # else a picture may be a program in PostScript, which Pillow has Ghostscript run
SCHEMA = pa.schema([("image", pa.binary()), ("label", pa.int32())])


@dataclass(frozen=True)
class Manifest:
    """What a prepared data set holds; ``sizes`` are images and bytes of each split's file."""

    folder: Path
    classes: list[str]
    templates: list[str]
    fingerprint: str
    sizes: dict[str, tuple[int, int]]


class _Size(BaseModel, strict=True):
    images: Annotated[int, Field(ge=0)]
    bytes: int


class _Content(BaseModel, strict=True):
    kind: Literal["vision"]
    classes: ClassNames
    templates: Templates
    fingerprint: str
    train: _Size
    validation: _Size
    test: _Size


def read_manifest(folder: Path) -> Manifest:
    """Read and check ``manifest.json``.

    Raises:
        InputError: if it is missing, corrupt or incomplete.
    """
    path = folder / "manifest.json"
    found = read_json(path, "data set manifest")
    if (kind := found.get("kind")) == "language":
        raise InputError(f"{folder} holds no images, but data of kind {kind}; name a data set of images.")
    try:
        content = _Content.model_validate(found)
    except ValidationError as error:
        raise InputError(
            f"the data set manifest {path} is damaged ({first_line(error)}); delete the folder and prepare it again."
        ) from None
    sizes = {split: (of.images, of.bytes) for split in SPLITS for of in [getattr(content, split)]}
    return Manifest(folder, content.classes, content.templates, content.fingerprint, sizes)


class Images(Dataset[tuple[bytes, int]]):
    """One split: N (encoded bytes, label) pairs, memory-mapped.

    Raises:
        InputError: if the file is missing, truncated or corrupt, or does not fit the manifest.
    """

    def __init__(self, manifest: Manifest, split: str) -> None:
        self.path = manifest.folder / f"{split}.arrow"
        try:
            table = pa.ipc.open_file(pa.memory_map(str(self.path))).read_all()
            table.validate(full=True)  # else a wrong offset is an address that the process ends at
        except FileNotFoundError:
            raise InputError(f"the split {self.path} does not exist; prepare the data set first.") from None
        except (pa.ArrowException, OSError) as error:
            raise InputError(
                f"the split {self.path} is truncated or corrupt ({first_line(error)}); prepare it again."
            ) from None
        if (table.num_rows, self.path.stat().st_size) != manifest.sizes[split] or table.schema != SCHEMA:
            raise InputError(f"the split {self.path} does not fit its manifest; prepare the data set again.")
        self._images = table["image"]
        self.labels = table["label"].to_numpy().astype(np.int64)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[bytes, int]:
        return self._images[index].as_py(), int(self.labels[index])

    def picture(self, index: int) -> Image.Image:
        """The decoded picture of one example."""
        return decode(self[index][0], f"{self.path}[{index}]")


def decode(content: bytes, name: str) -> Image.Image:
    """An RGB picture from encoded bytes, as the field reads them.

    Raises:
        InputError: if they cannot be decoded; ``name`` says which picture it is.
    """
    try:
        return Image.open(io.BytesIO(content)).convert("RGB")
    except Exception as error:  # Pillow raises many kinds for broken pictures
        raise unreadable(name, error) from None


def unreadable(name: str, error: Exception) -> InputError:
    """What to answer if Pillow cannot read a picture."""
    why = "it is of no kind that Pillow knows" if isinstance(error, UnidentifiedImageError) else first_line(error)
    return InputError(f"the image {name} cannot be read ({why}); replace or remove it.")


def few_shot(labels: np.ndarray, shots: str, seed: int) -> np.ndarray:
    """Indices of ``shots`` examples of every class ('full': of all), drawn by ``seed``.

    Raises:
        InputError: if a class has fewer.
    """
    if shots == "full":
        return np.arange(len(labels))
    rng = np.random.default_rng(seed)
    chosen = []
    for label in range(labels.max() + 1):
        here = np.flatnonzero(labels == label)
        if len(here) < int(shots):
            raise InputError(f"{shots} shots were asked for, but class number {label} has {len(here)} training images.")
        chosen.append(rng.choice(here, int(shots), replace=False))
    return np.sort(np.concatenate(chosen))


def batches_of(indices: np.ndarray, batch: int, seed: int, start: int) -> Iterator[np.ndarray]:
    """Endless shuffled batches from iteration ``start`` on: a pure function of (indices, batch, seed, start)."""
    per_epoch = max(1, len(indices) // batch)
    step = start
    while True:
        epoch, position = divmod(step, per_epoch)
        order = np.random.default_rng([seed, epoch]).permutation(indices)
        yield order[position * batch : (position + 1) * batch]
        step += 1
