"""The published facts of the paper's eight data sets, which are data: one file for each in ``paper/``.

Its ``classes`` give, in label order, the name that a class has in the publisher's files and the name that goes into the
prompts. Labels and prompts can so be compared, and are: where the files' own name of a class is neither of its two,
nothing is loaded.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from prt.errors import known

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
    may lack the validation split. ``stand_in``: the files are the rehearsal's, of no published numbers and checksums.
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
    stand_in: bool = False

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
