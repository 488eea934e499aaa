"""Sources of images: a name ``KIND:NAME`` becomes class names and splits, without a network."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from prt import hub
from prt.class_names import spoken, told_apart
from prt.errors import InputError, first_line, known
from prt.vision.catalogue import Entry, Hub, entry
from prt.vision.folders import find_folder
from prt.vision.parts import (
    Found,
    Part,
    encoded,
    hub_parts,
    png,
    torchvision_parts,
    torchvision_split,
    torchvision_splits,
)
from prt.vision.prepared import SPLIT_SEED, SPLITS, Images, few_shot, read_manifest

TEMPLATES = ("a photo of a {}.",)
WHAT = "kind of data set source"
# A receipt's key, where the files are the rehearsal's: their numbers of images, in place of the published.
STAND_IN = "stand_in"


def find(source: str, root: Path, *, streaming: bool = False) -> Found:
    """The class names and the splits of a source, without a network.

    Args:
        streaming: for the labels alone: what the hub has is read where it lies, and no working copy is made.

    Raises:
        InputError: for an unknown source, or one whose files are not there or are not whole.
    """
    kind, name = hub.kind_of(source, KINDS, WHAT)
    return KINDS[kind](name, root, streaming)


def own_templates(source: str) -> list[str]:
    """The prompts that belong to a source."""
    kind, _, name = source.partition(":")
    if kind == "noise":
        return read_manifest(Path(name.partition(":")[2])).templates
    return entry(name).templates if kind == "paper" else list(TEMPLATES)


def prompt_names(source: str, names: list[str]) -> list[str]:
    """What the prompts call the classes that a source calls ``names``.

    Names that stand for folders or columns have underscores where people write spaces. The others were written for
    prompts.
    """
    named_by_files = source.partition(":")[0] in ("folder", "huggingface", "torchvision")
    return [name.replace("_", " ") if named_by_files else name for name in names]


def _miniature(name: str, _root: Path, _streaming: bool) -> Found:
    from prt.miniature import data

    makers = {"digits": data.digits, "mnist": data.mnist}
    known(name, makers, "miniature data set")

    def part(images: np.ndarray, labels: np.ndarray) -> Part:
        return Part(labels.tolist(), lambda i: (png(Image.fromarray(images[i])), f"{name}[{i}]"))

    return list(data.CLASS_NAMES), {split: part(*arrays) for split, arrays in makers[name]().items()}


def _torchvision(name: str, root: Path, _streaming: bool) -> Found:
    folder = root / name
    try:
        data = torchvision_splits(name, folder, download=False)
    except InputError:
        raise
    except Exception as error:  # missing, broken or half the files: torchvision raises many kinds
        raise InputError(
            f"torchvision finds no whole {name} in {folder} ({first_line(error)}); "
            f"{hub.FETCH}, or put its files there by hand."
        ) from error
    classes, parts = torchvision_parts(data, name)
    if classes is None:
        raise InputError(f"torchvision's {name} has no class names, so it is no classification data set.")
    return classes, parts


def _huggingface(name: str, root: Path, streaming: bool) -> Found:
    names, parts = hub_parts(hub.load_dataset(name, root, streaming=streaming), name)
    return names or [str(c) for c in range(max(max(p.labels) for p in parts.values()) + 1)], parts


def _noise(name: str, _root: Path, _streaming: bool) -> Found:
    """``STD:FOLDER``: the prepared data set FOLDER with Gaussian noise on its pixels, as in Table 5.

    The noise has standard deviation STD on a scale where pixels lie between 0 and 1, is drawn at the images' own
    size, once, with a fixed seed, and what leaves the scale is clipped.
    """
    text, _, folder = name.partition(":")
    try:
        std = float(text)
    except ValueError:
        std = -1.0
    if not 0 < std < float("inf"):
        raise InputError(f"the noise is '{text}', but its standard deviation must be a number above 0, as 0.1 is.")
    manifest = read_manifest(Path(folder))

    def part(number: int, split: str) -> Part:
        images = Images(manifest, split)

        def read(i: int) -> tuple[bytes, str]:
            pixels = np.asarray(images.picture(i)) / 255
            noisy = pixels + np.random.default_rng([SPLIT_SEED, number, i]).normal(0, std, pixels.shape)
            picture = Image.fromarray((255 * noisy.clip(0, 1)).round().astype(np.uint8))
            return png(picture), f"{images.path}[{i}]"

        return Part(images.labels.tolist(), read)

    return manifest.classes, {split: part(number, split) for number, split in enumerate(SPLITS)}


def load_paper(facts: Entry, root: Path, streaming: bool = False) -> Found:
    """The names for the prompts and the splits of a data set that was fetched, checked against what is published.

    Raises:
        InputError: if its files are missing or broken, or there are other classes or another number of images.
    """
    folder = facts.folder(root)
    again = f"delete {folder}; {hub.FETCH}"
    if told := hub.origin(folder).get(STAND_IN):
        facts = replace(facts, stand_in=True, **told)
    if not folder.is_dir():
        raise InputError(f"{facts.title} is not in {folder}; {_ways_to_get(facts, root)}.")
    try:
        labels, parts = _paper_files(facts, folder, root, streaming)
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
    ways = hub.FETCH
    if facts.archives:
        files = ", ".join(archive.file for archive in facts.archives)
        ways += f"; or put {files} into {facts.archive_folder(root)} by hand, and do the same without a network"
    if facts.by_hand and facts.torchvision:
        ways += f"; or put the layout of torchvision's {facts.torchvision.kind} there by hand"
        ways += f", as {facts.folder(root) / facts.by_hand}"
    return ways


def _paper_files(facts: Entry, folder: Path, root: Path, streaming: bool) -> Found:
    """The files' own class names in label order, and the splits."""
    if facts.hub and not (facts.by_hand and (folder / facts.by_hand).is_dir()):
        return _from_hub(facts.hub, facts.name, folder, root, streaming)
    if facts.torchvision is None:
        return _cub(folder / "CUB_200_2011")
    data = {
        split: torchvision_split(facts.torchvision.kind, folder, checked=not facts.stand_in, **options)
        for split, options in facts.torchvision.splits.items()
    }
    names, parts = torchvision_parts(data, facts.name)
    if facts.train_per_class:
        whole = parts.pop("all")
        chosen = few_shot(np.array(whole.labels), str(facts.train_per_class), SPLIT_SEED)
        parts["train"] = whole.subset(chosen.tolist())
        parts["test"] = whole.subset(np.setdiff1d(np.arange(len(whole.labels)), chosen).tolist())
    return names or [], parts


def _from_hub(facts: Hub, name: str, folder: Path, root: Path, streaming: bool) -> Found:
    import datasets

    files = {split: str(folder / pattern) for split, pattern in facts.files.items()}
    copy = str(hub.working_copy(f"paper:{name}", root))
    data = datasets.load_dataset(facts.builder, data_files=files, cache_dir=copy, streaming=streaming)
    labels, parts = hub_parts(data, name)
    if facts.names:
        labels = (folder / facts.names).read_text(encoding="utf-8").splitlines()
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
        return Part(labels, lambda i: (encoded(chosen[i]), str(chosen[i])))

    return [classes[number] for number in sorted(classes)], {"train": part("1"), "test": part("0")}


KINDS: dict[str, Callable[[str, Path, bool], Found]] = {
    "miniature": _miniature,
    "folder": lambda name, _root, _streaming: find_folder(Path(name)),
    "huggingface": _huggingface,
    "noise": _noise,
    "paper": lambda name, root, streaming: load_paper(entry(name), root, streaming),
    "torchvision": _torchvision,
}


def check_prompts(classes: list[str], templates: list[str], what: str) -> None:
    """Refuse names and templates of which no head can be made.

    Raises:
        InputError: for a class without a name or with another's, and a template without {}; ``what`` has these.
    """
    try:
        told_apart(classes)
        spoken(templates)
    except ValueError as error:
        raise InputError(f"{what} {error}.") from None
