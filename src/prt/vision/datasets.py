"""Image data sets: made once into three splits of one Arrow file each, then read by everything else.

A prepared data set is a folder with ``train.arrow``, ``validation.arrow``, ``test.arrow`` (columns ``image``, the
encoded bytes, and ``label``) and ``manifest.json`` (class names in order, prompt templates, counts, fingerprint).
"""

import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image
from torch.utils.data import Dataset

from prt.atomic import fingerprint, read_json, remove, replacing, write_json
from prt.errors import InputError, first_line, known
from prt.progress import progress

SPLITS = ("train", "validation", "test")
SPLIT_NAMES = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}
SCHEMA = pa.schema([("image", pa.binary()), ("label", pa.int32())])
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm"})
SPLIT_SEED = 0
CHUNK = 256  # images of a record batch: memory while writing
TEMPLATES = ("a photo of a {}.",)


@dataclass(frozen=True)
class Part:
    """Some examples of a source: their labels, and ``read(i)``, the i-th one's encoded bytes and name."""

    labels: list[int]
    read: Callable[[int], tuple[bytes, str]]

    def subset(self, indices: list[int]) -> "Part":
        """The examples of ``indices``, in that order."""
        return Part([self.labels[i] for i in indices], lambda i: self.read(indices[i]))


Found = tuple[list[str], dict[str, Part]]  # class names; the splits that the source itself has, or 'all'


def prepare(
    source: str,
    out: Path,
    *,
    root: Path,
    classes: list[str] | None = None,
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
        classes: names for the prompts, in label order; default: the source's own.
        templates: prompts with ``{}`` for the class name; default: the source's own, or 'a photo of a {}.'.
        validation: share of the training images held out where the source has no validation split.
        test: share of all images held out where the source has no test split.

    Raises:
        InputError: for an unknown source, an empty class, an unreadable image, a wrong number of class names, …
    """
    own, parts = find(source, root)
    templates = templates or own_templates(source)
    names = classes or own
    if len(names) != len(own):
        raise InputError(f"'classes' has {len(names)} names, but {source} has {len(own)} classes.")
    if twice := sorted({n for n in names if names.count(n) > 1}):
        raise InputError(f"class names of {source} must differ, but '{twice[0]}' occurs twice.")
    for template in templates:
        if "{}" not in template:
            raise InputError(f"the template '{template}' has no {{}} for the class name.")
    manifest: dict[str, Any] = {
        "kind": "vision",
        "source": source,
        "classes": names,
        "templates": templates,
    }
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


def find(source: str, root: Path) -> Found:
    """The class names and the splits of a source, without a network.

    Raises:
        InputError: for an unknown source, or one whose files are not there or are not whole.
    """
    kind, name = kind_of(source)
    return KINDS[kind](name, root)


def kind_of(source: str) -> tuple[str, str]:
    """The two halves of ``KIND:NAME``.

    Raises:
        InputError: for an unknown kind.
    """
    kind, _, name = source.partition(":")
    known(kind, KINDS, "kind of data set source")
    return kind, name


def own_templates(source: str) -> list[str]:
    """The prompts that belong to a source."""
    kind, name = kind_of(source)
    if kind == "noise":
        return read_manifest(Path(name.partition(":")[2])).templates
    if kind != "paper":
        return list(TEMPLATES)
    from prt.vision.catalogue import entry

    return entry(name).templates


def how_to_fetch(source: str, root: Path) -> str:
    """What to do where the files of a source are missing."""
    return (
        f"where there is a network, run `snakemake fetch`, or `prt vision fetch --source {source} --downloads {root} "
        "--out FILE`"
    )


def _paper(name: str, root: Path) -> Found:
    from prt.vision.catalogue import entry, load

    return load(entry(name), root)


def _miniature(name: str, _root: Path) -> Found:
    from prt.miniature import data

    makers = {"digits": data.digits, "mnist": data.mnist}
    known(name, makers, "miniature data set")

    def part(images: np.ndarray, labels: np.ndarray) -> Part:
        return Part(labels.tolist(), lambda i: (_png(Image.fromarray(images[i])), f"{name}[{i}]"))

    return list(data.CLASS_NAMES), {split: part(*arrays) for split, arrays in makers[name]().items()}


def _folder(name: str, _root: Path) -> Found:
    """``PATH/CLASS/*`` or ``PATH/{train,validation,test}/CLASS/*``."""
    top = Path(name)
    if not top.is_dir():
        raise InputError(f"the image folder {top} does not exist; correct 'source'.")
    folders = {split: top / name for name, split in SPLIT_NAMES.items() if (top / name).is_dir()} or {"all": top}
    if not {"train", "all"} & set(folders):
        raise InputError(f"the image folder {top} has '{next(iter(folders))}', but no folder 'train'; add it.")
    classes = sorted({p.name for folder in folders.values() for p in folder.iterdir() if p.is_dir()})
    if len(classes) < 2:
        raise InputError(f"the image folder {top} needs two class folders or more, as in {top}/CLASS/IMAGE.")

    def part(folder: Path) -> Part:
        files, labels = [], []
        for label, class_name in enumerate(classes):
            here = sorted(f for f in (folder / class_name).rglob("*") if f.suffix.lower() in IMAGE_SUFFIXES)
            if not here:
                raise InputError(
                    f"the class folder {folder / class_name} holds no images; add some or remove the class."
                )
            files += here
            labels += [label] * len(here)
        return Part(labels, lambda i: (files[i].read_bytes(), str(files[i])))

    return classes, {split: part(folder) for split, folder in folders.items()}


def _torchvision(name: str, root: Path) -> Found:
    folder = root / name
    try:
        data = torchvision_splits(name, folder, download=False)
    except InputError:
        raise
    except Exception as error:  # missing, broken or half the files: torchvision raises many kinds
        raise InputError(
            f"torchvision finds no whole {name} in {folder} ({first_line(error)}); "
            f"{how_to_fetch(f'torchvision:{name}', root)}, or put its files there by hand."
        ) from error
    classes = torchvision_classes(next(iter(data.values())))
    if classes is None:
        raise InputError(f"torchvision's {name} has no class names, so it is no classification data set.")
    return classes, {split: torchvision_part(images, name) for split, images in data.items()}


def torchvision_splits(name: str, folder: Path, download: bool) -> dict[str, Any]:
    """The splits that a data set of torchvision has ('all' where it has none), by its class name."""
    import inspect

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
            data[SPLIT_NAMES.get(split, split)] = torchvision_split(name, folder, **options, **chosen)
        except ValueError:
            if split not in ("val", "valid"):
                raise  # else this data set has no split of that name
    return data


def torchvision_split(name: str, folder: Path, **options: Any) -> Any:
    """One split of a data set of torchvision; its files keep their own encoding where it lets them."""
    import inspect

    import torchvision.datasets as module

    kind = getattr(module, name)
    if "loader" in inspect.signature(kind).parameters:
        options["loader"] = lambda path: Path(path).read_bytes()
    return kind(root=str(folder), **options)


def torchvision_classes(images: Any) -> list[str] | None:
    """The class names of a data set of torchvision in label order, if it has any."""
    classes = getattr(images, "classes", getattr(images, "categories", None))
    return None if classes is None else [str(c) for c in classes]


def torchvision_part(images: Any, name: str) -> Part:
    """The examples of a data set of torchvision."""
    labels = next((getattr(images, a) for a in ("targets", "_labels", "y") if hasattr(images, a)), None)
    if labels is None:
        labels = [images[i][1] for i in range(len(images))]

    def read(i: int) -> tuple[bytes, str]:
        image = images[i][0]
        if isinstance(image, bytes):
            return image, f"{name}[{i}]"
        if file := getattr(image, "filename", ""):
            image.close()
            return Path(file).read_bytes(), file
        return _png(image), f"{name}[{i}]"

    return Part([int(label) for label in labels], read)


def _huggingface(name: str, root: Path) -> Found:
    """A data set of the Hugging Face hub that was fetched, or a local folder that ``datasets.load_dataset`` takes."""
    import datasets

    folder = Path(name) if Path(name).is_dir() else root / "hub" / name
    if not folder.is_dir():
        raise InputError(f"'{name}' is not in {folder}; {how_to_fetch(f'huggingface:{name}', root)}.")
    try:
        data = datasets.load_dataset(str(folder), cache_dir=str(root / "huggingface"))
    except Exception as error:  # broken files, no data: datasets raises many kinds
        raise InputError(
            f"Hugging Face datasets cannot read {folder} ({first_line(error)}); delete the folder and make it again."
        ) from error
    names, parts = hub_parts(data, name)
    return names or [str(c) for c in range(max(max(p.labels) for p in parts.values()) + 1)], parts


def hub_parts(data: Any, name: str) -> tuple[list[str] | None, dict[str, Part]]:
    """The class names, if it has any, and the splits of a loaded data set of the Hugging Face hub.

    Raises:
        InputError: if it has no image column, no label column of class numbers, or no split 'train'.
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
            return picture["bytes"] or Path(picture["path"]).read_bytes(), f"{name}[{i}]"

        return Part([int(v) for v in rows[label]], read)

    if not isinstance(features[label], datasets.ClassLabel) and not str(features[label].dtype).startswith("int"):
        raise InputError(f"the column '{label}' of '{name}' holds {features[label].dtype}; it must hold class numbers.")
    parts = {SPLIT_NAMES[split]: part(rows) for split, rows in data.items() if split in SPLIT_NAMES}
    if "train" not in parts:
        raise InputError(f"'{name}' has no split 'train'; it has {', '.join(data)}.")
    return list(features[label].names) if isinstance(features[label], datasets.ClassLabel) else None, parts


def _noise(name: str, _root: Path) -> Found:
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
            return _png(picture), f"{images.path}[{i}]"

        return Part(images.labels.tolist(), read)

    return manifest.classes, {split: part(number, split) for number, split in enumerate(SPLITS)}


KINDS: dict[str, Callable[[str, Path], Found]] = {
    "miniature": _miniature,
    "folder": _folder,
    "huggingface": _huggingface,
    "noise": _noise,
    "paper": _paper,
    "torchvision": _torchvision,
}


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
    with (
        replacing(path) as aside,
        pa.OSFile(str(aside), "wb") as file,
        pa.ipc.new_file(file, SCHEMA) as writer,
        progress(f"prepare {split}", len(part.labels), "image") as bar,
    ):
        for start in range(0, len(part.labels), CHUNK):
            labels = part.labels[start : start + CHUNK]
            images = []
            for i, label in enumerate(labels, start):
                try:
                    content, name = part.read(i)
                except OSError as error:
                    raise InputError(
                        f"image {i} of split '{split}' cannot be read ({error}); mend the source."
                    ) from None
                decode(content, name)
                digest.update(f"{split} {label} ".encode() + hashlib.sha256(content).digest())
                images.append(content)
                bar.update()
            writer.write_batch(pa.record_batch([images, pa.array(labels, pa.int32())], schema=SCHEMA))


def decode(content: bytes, name: str) -> Image.Image:
    """An RGB picture from encoded bytes.

    Raises:
        InputError: if they cannot be decoded; ``name`` says which picture it is.
    """
    try:
        return Image.open(io.BytesIO(content)).convert("RGB")
    except Exception as error:  # Pillow raises many kinds for broken pictures
        raise InputError(f"the image {name} cannot be read ({error}); replace or remove it.") from None


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


@dataclass(frozen=True)
class Manifest:
    """What a prepared data set holds; ``sizes`` are images and bytes of each split's file."""

    folder: Path
    classes: list[str]
    templates: list[str]
    fingerprint: str
    sizes: dict[str, tuple[int, int]]


def read_manifest(folder: Path) -> Manifest:
    """Read and check ``manifest.json``.

    Raises:
        InputError: if it is missing, corrupt or incomplete.
    """
    content = read_json(folder / "manifest.json", "data set manifest")
    try:
        sizes = {split: (int(content[split]["images"]), int(content[split]["bytes"])) for split in SPLITS}
        return Manifest(folder, content["classes"], content["templates"], content["fingerprint"], sizes)
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f"the data set manifest {folder / 'manifest.json'} is incomplete; delete the folder and prepare it again."
        ) from None


class Images(Dataset[tuple[bytes, int]]):
    """One split: N (encoded bytes, label) pairs, memory-mapped.

    Raises:
        InputError: if the file is missing, truncated or corrupt, or does not fit the manifest.
    """

    def __init__(self, manifest: Manifest, split: str) -> None:
        self.path = manifest.folder / f"{split}.arrow"
        try:
            table = pa.ipc.open_file(pa.memory_map(str(self.path))).read_all()
        except FileNotFoundError:
            raise InputError(f"the split {self.path} does not exist; prepare the data set first.") from None
        except pa.ArrowException as error:
            raise InputError(f"the split {self.path} is truncated or corrupt ({error}); prepare it again.") from None
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
