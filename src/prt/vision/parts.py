"""What a source of images gives, and how torchvision's and Hugging Face's data sets give it."""

import inspect
import io
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from prt.errors import InputError, known

# What splits are called, whatever their case: in image folders, torchvision and the hub.
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True)
class Part:
    """Some examples of a source: their labels, and ``read(i)``, the i-th one's encoded bytes and name."""

    labels: list[int]
    read: Callable[[int], tuple[bytes, str]]

    def subset(self, indices: list[int]) -> "Part":
        """The examples of ``indices``, in that order."""
        return Part([self.labels[i] for i in indices], lambda i: self.read(indices[i]))


Found = tuple[list[str], dict[str, Part]]  # class names; the splits that the source itself has, or 'all'


def split_of(name: str) -> str | None:
    """The split that a folder or a part of a data set is by its name: train, validation, test, or none of them."""
    return SPLIT_NAMES.get(name.lower())


def splits_among(names: Iterable[str], where: str) -> dict[str, str]:
    """Which of ``names`` is which split: split → name.

    Raises:
        InputError: if two are for one; ``where`` says of what they are names.
    """
    found: dict[str, str] = {}
    for name in names:
        if split := split_of(name):
            if split in found:
                raise InputError(f"{where} has both '{found[split]}' and '{name}' for the split '{split}'; keep one.")
            found[split] = name
    return found


def encoded(file: Path) -> bytes:
    """The bytes of a picture's file.

    Raises:
        InputError: for a pipe, a device or a folder, which could be waited for without end.
    """
    if file.exists() and not file.is_file():
        raise InputError(f"the image {file} is no file, but a pipe, a device or a folder; replace or remove it.")
    return file.read_bytes()


def png(image: Image.Image) -> bytes:
    """The picture as the bytes of a PNG file, without loss."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def torchvision_splits(name: str, folder: Path, download: bool) -> dict[str, Any]:
    """The splits that a data set of torchvision has ('all' where it has none), by its class name."""
    import torchvision.datasets as module

    kinds: dict[str, Any] = {
        n: k for n, k in vars(module).items() if inspect.isclass(k) and issubclass(k, module.VisionDataset)
    }
    known(name, kinds, "torchvision data set")
    parameters = inspect.signature(kinds[name]).parameters
    options: dict[str, Any] = {"download": download} if "download" in parameters else {}
    if "split" in parameters:
        wanted: dict[str, dict[str, Any]] = {name: {"split": name} for name in ("train", "val", "valid", "test")}
    elif "train" in parameters:
        wanted = {"train": {"train": True}, "test": {"train": False}}
    else:
        wanted = {"all": {}}
    data = {}
    for split, chosen in wanted.items():
        try:
            data[split_of(split) or split] = torchvision_split(name, folder, **options, **chosen)
        except ValueError:
            if split not in ("val", "valid"):
                raise  # else this data set has no split of that name
    return data


def torchvision_split(name: str, folder: Path, *, checked: bool = True, **options: Any) -> Any:
    """One split of a data set of torchvision; its files keep their own encoding where it lets them.

    Args:
        checked: compare checksums with those of the published files, where torchvision knows them.
    """
    import torchvision.datasets as module

    kind = getattr(module, name)
    if not checked:
        meta = getattr(kind, "meta", {}) | {"md5": None}
        kind = type(name, (kind,), {"_check_integrity": lambda _self: True, "meta": meta})
    if "loader" in inspect.signature(kind).parameters:
        options["loader"] = lambda path: encoded(Path(path))
    return kind(root=str(folder), **options)


def torchvision_parts(data: dict[str, Any], name: str) -> tuple[list[str] | None, dict[str, Part]]:
    """The class names in label order, if it has any, and the splits of a data set of torchvision."""
    first = next(iter(data.values()))
    classes = getattr(first, "classes", getattr(first, "categories", None))
    names = None if classes is None else [str(c) for c in classes]
    return names, {split: _torchvision_part(images, name) for split, images in data.items()}


def _torchvision_part(images: Any, name: str) -> Part:
    labels = next((getattr(images, a) for a in ("targets", "_labels", "y") if hasattr(images, a)), None)
    if labels is None:
        labels = [images[i][1] for i in range(len(images))]

    def read(i: int) -> tuple[bytes, str]:
        image = images[i][0]
        if isinstance(image, bytes):
            return image, f"{name}[{i}]"
        if file := getattr(image, "filename", ""):
            image.close()
            return encoded(Path(file)), file
        return png(image), f"{name}[{i}]"

    return Part([int(label) for label in labels], read)


def hub_parts(data: Any, name: str) -> tuple[list[str] | None, dict[str, Part]]:
    """The class names, if it has any, and the splits of a loaded data set of the Hugging Face hub.

    Raises:
        InputError: if it has no image column, no label column of class numbers, no split 'train', or two for one.
    """
    import datasets

    features = next(iter(data.values())).features
    image = next((c for c, f in features.items() if isinstance(f, datasets.Image)), None)
    label = next((c for c in ("label", "labels", "cls", "fine_label") if c in features), None)
    if image is None or label is None:
        raise InputError(f"'{name}' needs an image column and a label column; it has {', '.join(features)}.")

    def part(rows: Any) -> Part:
        pictures = rows.cast_column(image, datasets.Image(decode=False))

        def read(i: int) -> tuple[bytes, str]:
            picture = pictures[i][image]
            return picture["bytes"] or encoded(Path(picture["path"])), f"{name}[{i}]"

        return Part([int(v) for v in pictures[label]], read)

    if not isinstance(features[label], datasets.ClassLabel) and not str(features[label].dtype).startswith("int"):
        raise InputError(f"the column '{label}' of '{name}' holds {features[label].dtype}; it must hold class numbers.")
    found = splits_among(data, f"'{name}'")
    if "train" not in found:
        raise InputError(f"'{name}' has no split 'train'; it has {', '.join(data)}.")
    if others := [split for split in data if split not in found.values()]:
        print(f"'{name}': not used, as neither train, validation nor test: {', '.join(others)}.", file=sys.stderr)
    parts = {split: part(data[own]) for split, own in found.items()}
    return list(features[label].names) if isinstance(features[label], datasets.ClassLabel) else None, parts
