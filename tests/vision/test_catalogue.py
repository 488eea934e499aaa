"""The paper's data sets: their facts, and their loaders over small files in each one's own layout."""

import hashlib
import io
import pickle
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import yaml
from conftest import CLASSES, draw
from torchvision import datasets as torchvision_datasets

from prt.errors import InputError
from prt.vision import catalogue
from prt.vision.catalogue import NAMES, Entry, entry
from prt.vision.parts import Found, Part
from prt.vision.prepare import prepare
from prt.vision.prepared import Images, read_manifest
from prt.vision.sources import load_paper

# Split → the images (encoded, or pixels) and labels that the test put there.
Made = dict[str, list[tuple[Any, int]]]


def picture(seed: int, kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    draw(CLASSES[seed % 3], seed).save(buffer, format=kind)
    return buffer.getvalue()


def write(path: Path, content: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def plan(images: dict[str, int], classes: int) -> dict[str, list[tuple[bytes, int]]]:
    """Pictures for each split, their labels taking turns."""
    numbers = iter(range(10_000))
    return {split: [(picture(next(numbers)), i % classes) for i in range(n)] for split, n in images.items()}


def small(name: str, classes: int, **changes: Any) -> Entry:
    """The facts of a data set with its first classes only, and 6 (train), 4 (validation), 5 (test) images."""
    whole = entry(name)
    sizes = {"train": 6, "validation": 4, "test": 5}
    facts = {"classes": dict(list(whole.classes.items())[:classes]), "images": {s: sizes[s] for s in whole.images}}
    return replace(whole, **(facts | changes))


def make_aircraft(folder: Path, facts: Entry, _patch: pytest.MonkeyPatch) -> Made:
    data = folder / "fgvc-aircraft-2013b" / "data"
    variants = list(facts.classes)
    write(data / "variants.txt", "".join(f"{variant}\n" for variant in variants))
    made = plan(facts.images, len(variants))
    for split, pairs in made.items():
        lines = []
        for i, (content, label) in enumerate(pairs):
            write(data / "images" / f"{split}{i:07}.jpg", content)
            lines.append(f"{split}{i:07} {variants[label]}\n")
        write(data / f"images_variant_{split.replace('validation', 'val')}.txt", "".join(lines))
    return made


def make_caltech101(folder: Path, facts: Entry, _patch: pytest.MonkeyPatch) -> Made:
    """Four images of each class, and the background, which is none."""
    top = folder / "caltech101" / "101_ObjectCategories"
    write(top / "BACKGROUND_Google" / "image_0001.jpg", picture(0))
    pairs = []
    for label, category in enumerate(facts.classes):
        for i in range(1, 5):
            pairs.append((picture(10 * label + i), label))
            write(top / category / f"image_{i:04}.jpg", pairs[-1][0])
    return {"all": pairs}


def make_shards(folder: Path, facts: Entry, _patch: pytest.MonkeyPatch) -> Made:
    """The hub's shards of Cars and Country211: two for training, one for testing."""
    kind = {"cars": "WEBP", "country211": "JPEG"}[facts.name]
    made: Made = {
        split: [(picture(i + 50 * len(split), kind), i % len(facts.classes)) for i in range(facts.images[split])]
        for split in ("train", "test")
    }
    write(folder / "classnames.txt", "\n".join(facts.classes.values()) + "\n")
    for split, shards in (("train", 2), ("test", 1)):
        write(folder / split / "nshards.txt", str(shards))
        per_shard = -(-len(made[split]) // shards)
        for shard in range(shards):
            with tarfile.open(folder / split / f"{shard}.tar", "w") as tar:
                for i in range(shard * per_shard, min((shard + 1) * per_shard, len(made[split]))):
                    content, label = made[split][i]
                    suffix = kind.lower().replace("jpeg", "jpg")
                    for ending, body in (("cls", str(label).encode()), (suffix, content)):
                        member = tarfile.TarInfo(f"s{i:07}.{ending}")
                        member.size = len(body)
                        tar.addfile(member, io.BytesIO(body))
    return made


def make_cars_by_hand(folder: Path, facts: Entry, _patch: pytest.MonkeyPatch) -> Made:
    """The layout of torchvision's StanfordCars."""
    top = folder / "stanford_cars"
    made = plan(facts.images, len(facts.classes))
    write(top / "devkit" / "README.txt", "")
    scipy.io.savemat(top / "devkit" / "cars_meta.mat", {"class_names": np.array(list(facts.classes), dtype=object)})
    kind = [("bbox_x1", "O"), ("class", "O"), ("fname", "O")]
    for split, file in (("train", "devkit/cars_train_annos.mat"), ("test", "cars_test_annos_withlabels.mat")):
        rows = []
        for i, (content, label) in enumerate(made[split]):
            write(top / f"cars_{split}" / f"{i:05}.jpg", content)
            rows.append((1, label + 1, f"{i:05}.jpg"))
        scipy.io.savemat(top / file, {"annotations": np.array(rows, dtype=kind)})
    return made


def make_cifar100(folder: Path, facts: Entry, patch: pytest.MonkeyPatch) -> Made:
    """Pickled arrays, whose checksums torchvision gets."""
    top = folder / "cifar-100-python"
    rng = np.random.default_rng(0)
    made: Made = {}
    kind = torchvision_datasets.CIFAR100
    write(top / "meta", pickle.dumps({"fine_label_names": list(facts.classes), "coarse_label_names": ["thing"]}))
    patch.setattr(kind, "meta", kind.meta | {"md5": md5(top / "meta")})
    for split, n in facts.images.items():
        pixels = rng.integers(0, 256, (n, 3072), dtype=np.uint8)
        labels = [i % len(facts.classes) for i in range(n)]
        write(top / split, pickle.dumps({"data": pixels, "fine_labels": labels, "coarse_labels": [0] * n}))
        patch.setattr(kind, f"{split}_list", [[split, md5(top / split)]])
        made[split] = list(zip(pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels, strict=True))
    return made


def make_country211_by_hand(folder: Path, facts: Entry, _patch: pytest.MonkeyPatch) -> Made:
    """OpenAI's archive: folders, in whose order the images come."""
    codes = list(facts.classes)
    made = plan(facts.images, len(codes))
    for split, pairs in made.items():
        pairs.sort(key=lambda pair: pair[1])
        for i, (content, label) in enumerate(pairs):
            write(folder / "country211" / split.replace("validation", "valid") / codes[label] / f"{i:04}.jpg", content)
    return made


def make_cub(folder: Path, facts: Entry, _patch: pytest.MonkeyPatch) -> Made:
    top = folder / "CUB_200_2011"
    names = list(facts.classes)
    made = plan(facts.images, len(names))
    lists: dict[str, list[str]] = {"images": [], "image_class_labels": [], "train_test_split": []}
    number = 0
    for split, pairs in made.items():
        for content, label in pairs:
            number += 1
            file = f"{names[label]}/{names[label][4:]}_{number:04}.jpg"
            write(top / "images" / file, content)
            lists["images"].append(f"{number} {file}")
            lists["image_class_labels"].append(f"{number} {label + 1}")
            lists["train_test_split"].append(f"{number} {int(split == 'train')}")
    lists["classes"] = [f"{i} {name}" for i, name in enumerate(names, 1)]
    for name, lines in lists.items():
        write(top / f"{name}.txt", "\n".join(lines) + "\n")
    return made


def make_flowers(folder: Path, facts: Entry, patch: pytest.MonkeyPatch) -> Made:
    """Numbered images and two MATLAB files, whose checksums torchvision gets."""
    top = folder / "flowers-102"
    made = plan(facts.images, len(facts.classes))
    labels, splits, number = [], {}, 0
    for split, name in (("test", "tstid"), ("train", "trnid"), ("validation", "valid")):
        splits[name] = list(range(number + 1, number + 1 + len(made[split])))
        for content, label in made[split]:
            number += 1
            labels.append(label + 1)
            write(top / "jpg" / f"image_{number:05}.jpg", content)
    scipy.io.savemat(top / "imagelabels.mat", {"labels": labels})
    scipy.io.savemat(top / "setid.mat", splits)
    known = dict(torchvision_datasets.Flowers102._file_dict)
    known |= {
        "label": ("imagelabels.mat", md5(top / "imagelabels.mat")),
        "setid": ("setid.mat", md5(top / "setid.mat")),
    }
    patch.setattr(torchvision_datasets.Flowers102, "_file_dict", known)
    return made


def make_resisc45(folder: Path, facts: Entry, _patch: pytest.MonkeyPatch) -> Made:
    """The hub's Parquet files, their features with the class names inside."""
    import datasets

    made = plan(facts.images, len(facts.classes))
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=list(facts.classes)),
            "image_id": datasets.Value("string"),
        }
    )
    for split, pairs in made.items():
        rows = {
            "image": [{"bytes": content, "path": None} for content, _ in pairs],
            "label": [label for _, label in pairs],
            "image_id": [f"{split}_{i}" for i in range(len(pairs))],
        }
        (folder / "data").mkdir(parents=True, exist_ok=True)
        table = datasets.Dataset.from_dict(rows, features=features)
        table.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return made


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


LAYOUTS: dict[str, tuple[Callable[[Path, Entry, pytest.MonkeyPatch], Made], Entry]] = {
    "aircraft": (make_aircraft, small("aircraft", 3)),
    "caltech101": (make_caltech101, small("caltech101", 6, images={"train": 12, "test": 12}, train_per_class=2)),
    "cars": (make_shards, small("cars", 3)),
    "cars by hand": (make_cars_by_hand, small("cars", 3)),
    "cifar100": (make_cifar100, small("cifar100", 3)),
    "country211": (make_shards, small("country211", 3)),
    "country211 by hand": (make_country211_by_hand, small("country211", 3)),
    "cub": (make_cub, small("cub", 3)),
    "flowers": (make_flowers, small("flowers", 102)),
    "resisc45": (make_resisc45, small("resisc45", 3)),
}


def made_and_loaded(layout: str, root: Path, patch: pytest.MonkeyPatch) -> tuple[Made, Found]:
    make, facts = LAYOUTS[layout]
    made = make(facts.folder(root), facts, patch)
    return made, load_paper(facts, root)


def contents(part: Part) -> list[tuple[bytes, int]]:
    return [(part.read(i)[0], label) for i, label in enumerate(part.labels)]


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name not in ("caltech101", "cifar100")])
def test_images_labels_splits_and_names(layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, (names, parts) = made_and_loaded(layout, tmp_path, monkeypatch)
    assert names == list(LAYOUTS[layout][1].classes.values())
    assert {split: contents(part) for split, part in parts.items()} == made  # the files' own bytes, not encoded again
    streamed, labels = load_paper(LAYOUTS[layout][1], tmp_path, streaming=True)  # as after fetching
    assert streamed == names
    assert {split: part.labels for split, part in labels.items()} == {
        split: part.labels for split, part in parts.items()
    }


def test_cifar100_keeps_every_pixel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    made, (names, parts) = made_and_loaded("cifar100", tmp_path, monkeypatch)
    assert names == ["apple", "aquarium fish", "baby"]
    assert parts.keys() == made.keys()
    for split, part in parts.items():
        assert part.labels == [label for _, label in made[split]]
        for (content, _), (pixels, _) in zip(contents(part), made[split], strict=True):
            np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content))), pixels)


def test_caltech101_is_split_by_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many images a class for training, drawn the same way each time; the rest for testing; no background."""
    made, (names, parts) = made_and_loaded("caltech101", tmp_path, monkeypatch)
    assert names == ["off-center face", "centered face", "leopard", "motorbike", "accordion", "airplane"]
    train, test = contents(parts["train"]), contents(parts["test"])
    assert np.bincount([label for _, label in train]).tolist() == [2] * 6
    assert sorted(train + test) == sorted(made["all"])
    again = load_paper(LAYOUTS["caltech101"][1], tmp_path)[1]
    assert contents(again["train"]) == train


def test_what_is_published() -> None:
    """Numbers of classes and of images, as the papers of the data sets give them; and facts that none may lack."""
    published = {
        "aircraft": (100, 10_000),
        "caltech101": (101, 8_677),
        "cars": (196, 16_185),
        "cifar100": (100, 60_000),
        "country211": (211, 63_300),
        "cub": (200, 11_788),
        "flowers": (102, 8_189),
        "resisc45": (45, 31_500),
    }
    assert list(published) == NAMES
    for name, (classes, images) in published.items():
        facts = entry(name)
        assert (len(facts.classes), sum(facts.images.values())) == (classes, images)
        prompts = list(facts.classes.values())
        assert len(set(prompts)) == len(prompts)
        assert all(prompt == prompt.strip() and "_" not in prompt for prompt in prompts)
        assert all(template.count("{}") == 1 for template in facts.templates)
        assert bool(facts.archives) != bool(facts.hub)
        assert facts.licence and facts.homepage.startswith("https://") and facts.names_from
        assert all(len(archive.md5) == 32 for archive in facts.archives)


def test_the_order_of_labels() -> None:
    """The loaders sort the classes of these by their own names; Flowers' names torchvision has itself."""
    for name in ("aircraft", "caltech101", "cifar100", "country211", "cub", "resisc45"):
        own = list(entry(name).classes)
        assert own == sorted(own)
    assert list(entry("flowers").classes) == torchvision_datasets.Flowers102.classes
    # Where the two names say the same in letters, they stand beside each other.
    for name in ("aircraft", "cars", "cifar100", "cub", "resisc45"):
        for own, prompt in entry(name).classes.items():
            assert own.split(".", 1)[-1 if name == "cub" else 0].replace("_", " ") in (prompt, prompt.split(".")[0])


def test_too_few_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, facts = LAYOUTS["cub"]
    make(facts.folder(tmp_path), facts, monkeypatch)
    more = replace(facts, images={"train": 6, "test": 6})
    with pytest.raises(
        InputError,
        match=r"has 5 images in split 'test' of .*/paper/cub, but 6 are published; delete .*/paper/cub; where",
    ):
        load_paper(more, tmp_path)


def test_too_few_images_to_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, facts = LAYOUTS["caltech101"]
    make(facts.folder(tmp_path), facts, monkeypatch)
    with pytest.raises(InputError, match=r"Caltech-101 in .* is not whole .*class number 0 has 4 .*; delete"):
        load_paper(replace(facts, train_per_class=5), tmp_path)


def test_other_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names in another order than the prompts', or fewer of them, are refused."""
    for layout, file in (
        ("aircraft", "fgvc-aircraft-2013b/data/variants.txt"),
        ("cars", "classnames.txt"),
        ("cub", "CUB_200_2011/classes.txt"),
    ):
        make, facts = LAYOUTS[layout]
        path = facts.folder(tmp_path) / file
        make(facts.folder(tmp_path), facts, monkeypatch)
        lines = path.read_text().splitlines()
        if layout == "cub":
            swapped = [lines[0], f"2 {lines[2].split()[1]}", f"3 {lines[1].split()[1]}"]
        else:
            swapped = [lines[0], lines[2], lines[1]]
        path.write_text("\n".join(swapped) + "\n")
        own = list(facts.classes)
        with pytest.raises(InputError, match=f"class 1 of .* is '{own[2]}' in .*, but '{own[1]}' in the list"):
            load_paper(facts, tmp_path)
        with pytest.raises(InputError, match=f"has 3 classes, but {len(entry(facts.name).classes)} are known"):
            load_paper(entry(facts.name), tmp_path)


def test_half_a_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = {
        "aircraft": "fgvc-aircraft-2013b/data/images_variant_val.txt",
        "caltech101": "caltech101/101_ObjectCategories",
        "cars": "test/0.tar",
        "cifar100": "cifar-100-python/test",
        "country211": "classnames.txt",
        "country211 by hand": "country211/valid",
        "cub": "CUB_200_2011/train_test_split.txt",
        "flowers": "flowers-102/setid.mat",
        "resisc45": "data/test-00000-of-00001.parquet",
    }
    for layout, file in missing.items():
        make, facts = LAYOUTS[layout]
        folder = facts.folder(tmp_path)
        make(folder, facts, monkeypatch)
        shutil.rmtree(folder / file) if (folder / file).is_dir() else (folder / file).unlink()
        with pytest.raises(InputError, match=f"in {folder} is not whole .*; delete {folder}; where there is a network"):
            load_paper(facts, tmp_path)


def test_prepare_says_how_to_get_what_is_missing(tmp_path: Path) -> None:
    def said(source: str) -> str:
        with pytest.raises(InputError) as error:
            prepare(source, tmp_path / "out", root=tmp_path / "downloads")
        assert not (tmp_path / "out").exists()
        assert "\n" not in str(error.value)
        return str(error.value)

    cub = said("paper:cub")
    assert "where there is a network, run `snakemake fetch`; or put CUB_200_2011.tgz" in cub
    assert f"or put CUB_200_2011.tgz into {tmp_path}/downloads/archives/cub by hand" in cub
    cars = said("paper:cars")
    assert f"torchvision's StanfordCars there by hand, as {tmp_path}/downloads/paper/cars/stanford_cars" in cars
    assert "Flowers102 in" in (flowers := said("torchvision:Flowers102")) and "run `snakemake fetch`" in flowers
    assert "'no/such' is not in" in (none := said("huggingface:no/such")) and "run `snakemake fetch`" in none
    assert "unknown data set of the paper 'cubs': did you mean 'cub'?" in said("paper:cubs")


def test_prepared_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the facts on disk to the three splits."""
    make, facts = LAYOUTS["cub"]
    whole = yaml.safe_load((catalogue.FACTS / "cub.yaml").read_text())
    write(
        tmp_path / "facts" / "cub.yaml",
        yaml.safe_dump(whole | {"classes": facts.classes, "images": facts.images}, sort_keys=False),
    )
    monkeypatch.setattr(catalogue, "FACTS", tmp_path / "facts")
    entry.cache_clear()
    try:
        made = make(facts.folder(tmp_path), facts, monkeypatch)
        prepare("paper:cub", tmp_path / "out", root=tmp_path)
    finally:
        entry.cache_clear()
    manifest = read_manifest(tmp_path / "out")
    assert manifest.classes == ["Black footed Albatross", "Laysan Albatross", "Sooty Albatross"]
    assert manifest.templates == ["a photo of a {}, a type of bird."]
    assert {split: n for split, (n, _) in manifest.sizes.items()} == {"train": 3, "validation": 3, "test": 5}
    images = Images(manifest, "test")
    assert [images[i] for i in range(5)] == made["test"]
