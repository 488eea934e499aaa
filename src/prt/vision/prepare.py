"""Image data sets are made once, into three splits of one Arrow file each, then read by everything else."""

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

from prt.arrow import writing
from prt.atomic import fingerprint, remove, write_json
from prt.errors import InputError, first_line, known
from prt.hub import drop_copy
from prt.progress import progress
from prt.vision.parts import Part
from prt.vision.prepared import SCHEMA, SPLIT_SEED, decode
from prt.vision.sources import check_prompts, find, own_templates, prompt_names

CHUNK = 256  # images of a record batch: memory while writing


def prepare(
    source: str,
    out: Path,
    *,
    root: Path,
    classes: list[str] | dict[str, str] | None = None,
    templates: list[str] | None = None,
    validation: float = 0.1,
    test: float = 0.2,
) -> None:
    """Make ``out`` from ``source``.

    Args:
        source: ``paper:NAME`` (one of ``prt.vision.catalogue``), ``miniature:NAME`` (digits, mnist), ``folder:PATH``,
            ``torchvision:CLASS``, ``huggingface:REPOSITORY``, or ``noise:STD:FOLDER`` (a prepared data set with noise
            on its pixels). Nothing is downloaded: ``prt.vision.fetch`` does that.
        root: where downloads are kept.
        classes: names for the prompts, in label order, or the source's own name → name for some of them; default:
            the source's own, with spaces for the underscores of folders.
        templates: prompts with ``{}`` for the class name; default: the source's own, or 'a photo of a {}.'.
        validation: share of the training images held out where the source has no validation split.
        test: share of all images held out where the source has no test split.

    Raises:
        InputError: for an unknown source, an empty class, an unreadable image, a wrong number of class names, …
    """
    own, parts = find(source, root)
    templates = templates or own_templates(source)
    names = _names(source, own, classes)
    check_prompts(names, templates, source)
    manifest: dict[str, Any] = {"kind": "vision", "source": source, "classes": names, "templates": templates}
    for split, part in parts.items():
        if wrong := sorted({label for label in part.labels if not 0 <= label < len(names)}):
            raise InputError(
                f"{source} has the label {wrong[0]} in split '{split}', but {len(names)} classes; "
                "a test set with hidden labels cannot be scored: use another source."
            )
    digest = hashlib.sha256()
    remove(out / "manifest.json")  # a folder with a manifest is whole
    for split, part in _all_splits(names, parts, validation, test).items():
        if missing := sorted(set(range(len(names))) - set(part.labels)) if split == "train" else []:
            raise InputError(f"{source} has no training image of class '{names[missing[0]]}'; add some or drop it.")
        _write(out / f"{split}.arrow", part, split, digest)
        manifest[split] = {"images": len(part.labels), "bytes": (out / f"{split}.arrow").stat().st_size}
    manifest["fingerprint"] = fingerprint(digest.hexdigest(), names)
    write_json(out / "manifest.json", manifest)
    drop_copy(source, root)


def _names(source: str, own: list[str], given: list[str] | dict[str, str] | None) -> list[str]:
    """The classes' names for the prompts, in label order."""
    names = prompt_names(source, own)
    if isinstance(given, dict):
        for name in given:
            known(name, own, f"class of {source} in 'classes'")
        names = [given.get(name, spoken) for name, spoken in zip(own, names, strict=True)]
    elif given:
        names = given
    if len(names) != len(own):
        raise InputError(f"'classes' has {len(names)} names, but {source} has {len(own)} classes.")
    for name, said in zip(own, names, strict=True):
        if not said.strip():
            raise InputError(f"the class '{name}' of {source} has no name for the prompts; give it one in 'classes'.")
    return names


def _all_splits(names: list[str], parts: dict[str, Part], validation: float, test: float) -> dict[str, Part]:
    """Train, validation and test; what the source lacks is held out by class with a fixed seed."""
    train = parts.get("train") or parts["all"]
    held = {}
    for split, share in (("test", test), ("validation", validation)):
        if split in parts:
            held[split] = parts[split]
        else:
            train, held[split] = _hold_out(names, train, share, split)
    return {"train": train} | held


def _hold_out(names: list[str], part: Part, share: float, split: str) -> tuple[Part, Part]:
    from sklearn.model_selection import train_test_split

    if not 0 < share < 1:
        raise InputError(f"the share '{split}' is {share}, but must lie between 0 and 1.")
    counts = Counter(part.labels)
    if few := [label for label, count in counts.items() if count < 2]:
        raise InputError(f"class '{names[few[0]]}' has one image only, so none can be held out for {split}; add some.")
    # Every class keeps an image, and every class gives one.
    held = min(max(len(counts), round(share * len(part.labels))), len(part.labels) - len(counts))
    kept, held = train_test_split(
        range(len(part.labels)), test_size=held, random_state=SPLIT_SEED, stratify=part.labels
    )
    return part.subset(sorted(kept)), part.subset(sorted(held))


def _write(path: Path, part: Part, split: str, digest: Any) -> None:
    """Write one split, checking that every image can be decoded."""
    with writing(path, SCHEMA) as add, progress(f"prepare {split}", len(part.labels), "image") as bar:
        for start in range(0, len(part.labels), CHUNK):
            labels = part.labels[start : start + CHUNK]
            images = []
            for i, label in enumerate(labels, start):
                try:
                    content, name = part.read(i)
                except OSError as error:
                    raise InputError(
                        f"image {i} of split '{split}' cannot be read ({first_line(error)}); mend the source."
                    ) from None
                decode(content, name)
                digest.update(f"{split} {label} ".encode() + hashlib.sha256(content).digest())
                images.append(content)
                bar.update()
            add(images, labels)
