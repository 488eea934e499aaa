"""The paper's eight data sets: their published facts, and the loaders that read their files.

The facts are data, one file for each in ``paper/``. Its ``classes`` give, in label order, the name that a class has in
the files and the name that goes into the prompts. Labels and prompts can so be compared, and are: where the files' own
name of a class is neither of its two, nothing is loaded.

The files lie in ``DOWNLOADS/paper/NAME``, which ``prt.vision.fetch`` makes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from prt.errors import InputError, first_line, known
from prt.vision.datasets import (
    SPLIT_SEED,
    Found,
    Part,
    few_shot,
    how_to_fetch,
    hub_parts,
    torchvision_classes,
    torchvision_part,
    torchvision_split,
)

FACTS = Path(__file__).parent / "paper"
NAMES = sorted(file.stem for file in FACTS.glob("*.yaml"))


@dataclass(frozen=True)
class Archive:
    """A file to download: its address and its published MD5.

    ``into`` is the folder that its content belongs to; ``inner`` names the archive in the archive that alone is needed.
    """

    url: str
    md5: str
    into: str = ""
    inner: str | None = None

    @property
    def file(self) -> str:
        """Its file's name."""
        return self.url.rsplit("/", 1)[1]


@dataclass(frozen=True)
class Hub:
    """Files of a data set repository of the Hugging Face hub.

    ``builder`` of ``datasets`` reads ``files`` (split → pattern). ``names`` is the file that has the class names, one a
    line, where the labels are mere numbers.
    """

    repository: str
    revision: str
    builder: str
    files: dict[str, str]
    names: str | None = None

    @property
    def patterns(self) -> list[str]:
        """Patterns of all files that are needed."""
        return [*self.files.values(), *([self.names] if self.names else [])]


@dataclass(frozen=True)
class Torchvision:
    """A data set of torchvision: its class, and the options that give each split."""

    kind: str
    splits: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Entry:
    """Facts of a data set; those of ``paper/NAME.yaml``.

    ``images`` is the published number of images of each split. ``train_per_class``: the source has no splits; so many
    images of each class are drawn for training with a fixed seed, the rest are for testing. ``by_hand`` is the folder
    in torchvision's layout that a user may have put there, and that is then read instead of the hub's files; these
    may lack the validation split.
    """

    name: str
    title: str
    homepage: str
    licence: str
    images: dict[str, int]
    names_from: str
    templates: list[str]
    classes: Mapping[str, str]
    archives: tuple[Archive, ...] = ()
    hub: Hub | None = None
    torchvision: Torchvision | None = None
    train_per_class: int | None = None
    by_hand: str | None = None

    def folder(self, root: Path) -> Path:
        """Where its files lie under the folder of downloads."""
        return root / "paper" / self.name

    def archive_folder(self, root: Path) -> Path:
        """Where its archives lie under the folder of downloads."""
        return root / "archives" / self.name


@cache
def entry(name: str) -> Entry:
    """The facts of one of NAMES.

    Raises:
        InputError: if there is no such data set.
    """
    known(name, NAMES, "data set of the paper")
    facts = yaml.safe_load((FACTS / f"{name}.yaml").read_text(encoding="utf-8"))
    facts["archives"] = tuple(Archive(**archive) for archive in facts.get("archives", ()))
    for key, kind in (("hub", Hub), ("torchvision", Torchvision)):
        if key in facts:
            facts[key] = kind(**facts[key])
    return Entry(name, **facts)


def load(facts: Entry, root: Path) -> Found:
    """The names for the prompts and the splits of a data set that was fetched, checked against what is published.

    Raises:
        InputError: if its files are missing or broken, or there are other classes or another number of images.
    """
    folder = facts.folder(root)
    again = f"delete {folder}; {how_to_fetch(f'paper:{facts.name}', root)}"
    if not folder.is_dir():
        raise InputError(f"{facts.title} is not in {folder}; {_ways_to_get(facts, root)}.")
    try:
        labels, parts = _read(facts, folder, root)
    except Exception as error:  # missing, truncated or changed files: the loaders raise many kinds
        raise InputError(f"{facts.title} in {folder} is not whole ({first_line(error)}); {again}.") from error
    published = list(facts.classes)
    if len(labels) != len(published):
        raise InputError(
            f"{facts.title} in {folder} has {len(labels)} classes, but {len(published)} are known; {again}."
        )
    for number, (found, expected) in enumerate(zip(labels, published, strict=True)):
        if found not in (expected, facts.classes[expected]):
            raise InputError(
                f"class {number} of {facts.title} is '{found}' in {folder}, but '{expected}' in the list that the "
                f"prompts come from; {again}."
            )
    for split, part in parts.items():
        if len(part.labels) != facts.images[split]:
            raise InputError(
                f"{facts.title} has {len(part.labels)} images in split '{split}' of {folder}, but "
                f"{facts.images[split]} are published; {again}."
            )
    return list(facts.classes.values()), parts


def _ways_to_get(facts: Entry, root: Path) -> str:
    ways = how_to_fetch(f"paper:{facts.name}", root)
    if facts.archives:
        files = ", ".join(archive.file for archive in facts.archives)
        ways += f"; or put {files} into {facts.archive_folder(root)} by hand, and do the same without a network"
    if facts.by_hand and facts.torchvision:
        ways += f"; or put the layout of torchvision's {facts.torchvision.kind} there by hand"
        ways += f", as {facts.folder(root) / facts.by_hand}"
    return ways


def _read(facts: Entry, folder: Path, root: Path) -> Found:
    """The files' own class names in label order, and the splits."""
    if facts.hub and not (facts.by_hand and (folder / facts.by_hand).is_dir()):
        return _from_hub(facts.hub, facts.name, folder, root)
    if facts.torchvision is None:
        return _cub(folder / "CUB_200_2011")
    data = {
        split: torchvision_split(facts.torchvision.kind, folder, **options)
        for split, options in facts.torchvision.splits.items()
    }
    parts = {split: torchvision_part(images, facts.name) for split, images in data.items()}
    if facts.train_per_class:
        whole = parts.pop("all")
        chosen = few_shot(np.array(whole.labels), str(facts.train_per_class), SPLIT_SEED)
        parts["train"] = whole.subset(chosen.tolist())
        parts["test"] = whole.subset(np.setdiff1d(np.arange(len(whole.labels)), chosen).tolist())
    return torchvision_classes(next(iter(data.values()))) or [], parts


def _from_hub(hub: Hub, name: str, folder: Path, root: Path) -> Found:
    import datasets

    files = {split: str(folder / pattern) for split, pattern in hub.files.items()}
    data = datasets.load_dataset(hub.builder, data_files=files, cache_dir=str(root / "huggingface"))
    labels, parts = hub_parts(data, name)
    if hub.names:
        labels = (folder / hub.names).read_text(encoding="utf-8").splitlines()
    return labels or [], parts


def _cub(top: Path) -> Found:
    """CUB-200-2011, which torchvision lacks: four lists of ``NUMBER VALUE``, and the official split."""

    def table(name: str) -> dict[int, str]:
        rows = (line.split(maxsplit=1) for line in (top / name).read_text(encoding="utf-8").splitlines())
        return {int(number): value.strip() for number, value in rows}

    classes, files = table("classes.txt"), table("images.txt")
    label_of, is_training = table("image_class_labels.txt"), table("train_test_split.txt")

    def part(flag: str) -> Part:
        chosen = [top / "images" / file for number, file in files.items() if is_training[number] == flag]
        labels = [int(label_of[number]) - 1 for number in files if is_training[number] == flag]
        return Part(labels, lambda i: (chosen[i].read_bytes(), str(chosen[i])))

    return [classes[number] for number in sorted(classes)], {"train": part("1"), "test": part("0")}
