"""Stand-ins for the paper's image data sets: each in its publisher's layout, all classes, few and small pictures."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from pickle import dumps  # CIFAR-100 is published as pickles
from typing import Any

import numpy as np
from PIL import Image

from prt.atomic import fingerprint, write_json
from prt.errors import InputError
from prt.hub import ORIGIN
from prt.rehearsal import remaking
from prt.vision.catalogue import Entry, entry
from prt.vision.sources import STAND_IN

# Pictures of each class. Where a split is held out of another, every class gives one picture and keeps one.
EACH = {"train": 3, "validation": 1, "test": 2}

Pictures = dict[str, list[tuple[Image.Image, int]]]  # split → pictures and their labels


def make(source: str, root: Path) -> None:
    """Write a stand-in for ``paper:NAME`` where its download lies.

    Its receipt has the numbers of images that take the place of the published ones.

    Raises:
        InputError: for a source of another kind.
    """
    kind, _, name = source.partition(":")
    if kind != "paper":
        raise InputError(f"there is no stand-in for {source}: take 'stand_ins' out, or a data set of the paper.")
    facts = entry(name)
    images = {split: EACH[split] * len(facts.classes) for split in facts.images}
    told = {"images": images} | ({"train_per_class": EACH["train"]} if facts.train_per_class else {})
    with remaking(facts.folder(root)) as folder:
        LAYOUTS[name](folder, facts, _pictures(facts))
        write_json(folder / ORIGIN, {STAND_IN: told})


def _pictures(facts: Entry) -> Pictures:
    """Pictures of all classes, in no order of classes: a class's colours, blurred, and noise."""
    rng = np.random.default_rng(int(fingerprint(facts.name)[:8], 16))
    colours = rng.integers(0, 256, (len(facts.classes), 4, 4, 3), dtype=np.uint8)

    def drawn(label: int) -> Image.Image:
        size = (32, 32) if facts.name == "cifar100" else tuple(rng.integers(28, 48, 2).tolist())
        plain = np.asarray(Image.fromarray(colours[label]).resize(size, Image.Resampling.BICUBIC))
        picture = Image.fromarray((plain + rng.normal(0, 30, plain.shape)).clip(0, 255).astype(np.uint8))
        grey = facts.name != "cifar100" and rng.random() < 0.05  # as some are in most of these data sets
        return picture.convert("L") if grey else picture

    labels = {split: rng.permutation(np.repeat(np.arange(len(facts.classes)), EACH[split])) for split in facts.images}
    return {split: [(drawn(label), label) for label in of.tolist()] for split, of in labels.items()}


def _save(picture: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def _encoded(picture: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format=kind)
    return buffer.getvalue()


def _write(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _aircraft(folder: Path, facts: Entry, pictures: Pictures) -> None:
    """A list of variants, and for each split a list of ``IMAGE VARIANT``."""
    data, names = folder / "fgvc-aircraft-2013b" / "data", list(facts.classes)
    _write(data / "variants.txt", names)
    number = 0
    for split, pairs in pictures.items():
        lines = []
        for picture, label in pairs:
            number += 1
            _save(picture, data / "images" / f"{number:07}.jpg")
            lines.append(f"{number:07} {names[label]}")
        _write(data / f"images_variant_{split.replace('validation', 'val')}.txt", lines)


def _caltech101(folder: Path, facts: Entry, pictures: Pictures) -> None:
    """A folder for each class, and one for the background, which is none; no splits."""
    top, names = folder / "caltech101" / "101_ObjectCategories", list(facts.classes)
    counts = dict.fromkeys(names, 0)
    for picture, label in [pair for pairs in pictures.values() for pair in pairs]:
        counts[names[label]] += 1
        _save(picture, top / names[label] / f"image_{counts[names[label]]:04}.jpg")
    _save(pictures["train"][0][0], top / "BACKGROUND_Google" / "image_0001.jpg")


def _shards(folder: Path, facts: Entry, pictures: Pictures, kind: str = "jpeg") -> None:
    """CLIP benchmark's tar files: two for training and one for testing, and the names of the classes."""
    _write(folder / "classnames.txt", list(facts.classes.values()))
    for split, shards in (("train", 2), ("test", 1)):
        _write(folder / split / "nshards.txt", [str(shards)])
        numbered = list(enumerate(pictures[split]))
        for shard in range(shards):
            with tarfile.open(folder / split / f"{shard}.tar", "w") as tar:
                for i, (picture, label) in numbered[shard::shards]:
                    contents = {"cls": str(label).encode(), kind.replace("jpeg", "jpg"): _encoded(picture, kind)}
                    for ending, content in contents.items():
                        member = tarfile.TarInfo(f"s{i:07}.{ending}")
                        member.size = len(content)
                        tar.addfile(member, io.BytesIO(content))


def _cars(folder: Path, facts: Entry, pictures: Pictures) -> None:
    _shards(folder, facts, pictures, "webp")


def _cifar100(folder: Path, facts: Entry, pictures: Pictures) -> None:
    """Pickled arrays: for each split a row of 3 · 32 · 32 pixels an image."""
    top = folder / "cifar-100-python"
    top.mkdir()
    (top / "meta").write_bytes(dumps({"fine_label_names": list(facts.classes), "coarse_label_names": ["thing"]}))
    for split, pairs in pictures.items():
        pixels = np.stack([np.asarray(picture).transpose(2, 0, 1).reshape(-1) for picture, _ in pairs])
        labels = [label for _, label in pairs]
        content = {"data": pixels, "fine_labels": labels, "coarse_labels": [0] * len(labels)}
        (top / split).write_bytes(dumps(content))


def _cub(folder: Path, facts: Entry, pictures: Pictures) -> None:
    """Four lists of ``NUMBER VALUE``, and a folder for each class."""
    top, names = folder / "CUB_200_2011", list(facts.classes)
    lists: dict[str, list[str]] = {"images": [], "image_class_labels": [], "train_test_split": []}
    numbered = enumerate(((split, *pair) for split, pairs in pictures.items() for pair in pairs), 1)
    for number, (split, picture, label) in numbered:
        file = f"{names[label]}/{names[label][4:]}_{number:04}.jpg"
        _save(picture, top / "images" / file)
        lists["images"].append(f"{number} {file}")
        lists["image_class_labels"].append(f"{number} {label + 1}")
        lists["train_test_split"].append(f"{number} {int(split == 'train')}")
    lists["classes"] = [f"{i} {name}" for i, name in enumerate(names, 1)]
    for name, lines in lists.items():
        _write(top / f"{name}.txt", lines)


def _flowers(folder: Path, _facts: Entry, pictures: Pictures) -> None:
    """Numbered images, and two MATLAB files: the images' labels, and the numbers of the images of each split."""
    from scipy.io import savemat

    top = folder / "flowers-102"
    labels: list[int] = []
    splits = {}
    for split, name in (("test", "tstid"), ("train", "trnid"), ("validation", "valid")):
        splits[name] = list(range(len(labels) + 1, len(labels) + 1 + len(pictures[split])))
        for picture, label in pictures[split]:
            labels.append(label + 1)
            _save(picture, top / "jpg" / f"image_{len(labels):05}.jpg")
    savemat(top / "imagelabels.mat", {"labels": labels})
    savemat(top / "setid.mat", splits)


def _resisc45(folder: Path, facts: Entry, pictures: Pictures) -> None:
    """A Parquet file for each split, the names of the classes in its features."""
    import datasets

    kinds: dict[str, Any] = {
        "image": datasets.Image(),
        "label": datasets.ClassLabel(names=list(facts.classes)),
        "image_id": datasets.Value("string"),
    }
    (folder / "data").mkdir()
    for split, pairs in pictures.items():
        rows = {
            "image": [{"bytes": _encoded(picture, "jpeg"), "path": None} for picture, _ in pairs],
            "label": [label for _, label in pairs],
            "image_id": [f"{split}_{i}" for i in range(len(pairs))],
        }
        table = datasets.Dataset.from_dict(rows, features=datasets.Features(kinds))
        table.to_parquet(str(folder / "data" / f"{split}-00000-of-00001.parquet"))


LAYOUTS: dict[str, Callable[[Path, Entry, Pictures], None]] = {
    "aircraft": _aircraft,
    "caltech101": _caltech101,
    "cars": _cars,
    "cifar100": _cifar100,
    "country211": _shards,
    "cub": _cub,
    "flowers": _flowers,
    "resisc45": _resisc45,
}
