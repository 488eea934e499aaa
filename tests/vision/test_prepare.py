"""Preparing image data sets, from sources of every kind that can be had without a network."""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CLASSES, draw
from PIL import ExifTags, Image

from prt.config import Dataset
from prt.errors import InputError
from prt.vision.parts import hub_parts
from prt.vision.prepare import prepare
from prt.vision.prepared import Images, read_manifest


def test_a_folder_of_the_user_s_own(dataset: Path, pictures: Path) -> None:
    manifest = read_manifest(dataset)
    assert manifest.classes == sorted(CLASSES)
    assert {s: n for s, (n, _) in manifest.sizes.items()} == {"train": 36, "validation": 12, "test": 12}
    seen = []
    for split in ("train", "validation", "test"):
        images = Images(manifest, split)
        assert set(images.labels) == {0, 1, 2}
        for i in range(len(images)):
            content, label = images[i]
            seen.append(content)
            folder = pictures / manifest.classes[label]
            assert content in [f.read_bytes() for f in folder.iterdir()]
    assert len(set(seen)) == 60
    assert images.picture(0).size == (40, 30)
    assert images.picture(0).mode == "RGB"


def test_a_folder_with_splits_and_names(pictures: Path, tmp_path: Path) -> None:
    for split in ("train", "test"):
        shutil.copytree(pictures, tmp_path / "own" / split)
    prepare(
        f"folder:{tmp_path / 'own'}", tmp_path / "out", root=tmp_path, classes=["a", "b", "c"], templates=["a {} shape"]
    )
    manifest = read_manifest(tmp_path / "out")
    assert (manifest.classes, manifest.templates) == (["a", "b", "c"], ["a {} shape"])
    assert {s: n for s, (n, _) in manifest.sizes.items()} == {"train": 54, "validation": 6, "test": 60}


def test_preparing_again_gives_the_same(dataset: Path, pictures: Path, tmp_path: Path) -> None:
    prepare(f"folder:{pictures}", tmp_path / "again", root=tmp_path, validation=0.25, test=0.2)
    for file in ("train.arrow", "validation.arrow", "test.arrow"):
        assert (tmp_path / "again" / file).read_bytes() == (dataset / file).read_bytes()
    ours, theirs = (json.loads((d / "manifest.json").read_text()) for d in (tmp_path / "again", dataset))
    assert ours == theirs


def test_torchvision(tmp_path: Path) -> None:
    """EuroSAT's own layout on disk (class folders), found by torchvision's loader without a download."""
    for kind in CLASSES:
        folder = tmp_path / "EuroSAT" / "eurosat" / "2750" / kind
        folder.mkdir(parents=True)
        for i in range(10):
            draw(kind, i).save(folder / f"{kind}_{i}.jpg")
    prepare("torchvision:EuroSAT", tmp_path / "out", root=tmp_path)
    manifest = read_manifest(tmp_path / "out")
    assert manifest.classes == sorted(CLASSES)
    assert sum(n for n, _ in manifest.sizes.values()) == 30
    originals = {f.read_bytes() for f in (tmp_path / "EuroSAT").rglob("*.jpg")}
    assert Images(manifest, "train")[0][0] in originals  # the file's own encoding, not a second one


def test_torchvision_arrays(tmp_path: Path) -> None:
    """CIFAR-10's own layout on disk (pickled arrays), its checksums set aside, becomes PNG without loss."""
    import pickle
    from unittest.mock import patch

    base = tmp_path / "CIFAR10" / "cifar-10-batches-py"
    base.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 3072), dtype=np.uint8)
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        (base / name).write_bytes(pickle.dumps({"data": pixels, "labels": [0, 1] * 10}))
    (base / "batches.meta").write_bytes(pickle.dumps({"label_names": ["airplane", "bird"]}))
    with patch("torchvision.datasets.cifar.check_integrity", return_value=True):
        prepare("torchvision:CIFAR10", tmp_path / "out", root=tmp_path)
    images = Images(read_manifest(tmp_path / "out"), "test")
    np.testing.assert_array_equal(np.asarray(images.picture(3)), pixels[3].reshape(3, 32, 32).transpose(1, 2, 0))


def test_hugging_face(pictures: Path, tmp_path: Path) -> None:
    """A data set folder in the hub's own layout (Parquet with an image feature)."""
    import datasets

    rows = datasets.load_dataset("imagefolder", data_dir=str(pictures), cache_dir=str(tmp_path / "cache"))["train"]
    (tmp_path / "hub").mkdir()
    rows.to_parquet(tmp_path / "hub" / "train-00000-of-00001.parquet")
    prepare(f"huggingface:{tmp_path / 'hub'}", tmp_path / "out", root=tmp_path)
    manifest = read_manifest(tmp_path / "out")
    assert manifest.classes == sorted(CLASSES)
    assert sum(n for n, _ in manifest.sizes.values()) == 60
    assert Images(manifest, "train")[0][0] in {f.read_bytes() for f in pictures.rglob("*.png")}


def test_a_data_set_that_names_a_pipe(pictures: Path, tmp_path: Path) -> None:
    """It is not waited for."""
    import datasets

    os.mkfifo(tmp_path / "pipe")
    names = [str(file) for file in sorted(pictures.rglob("*.png"))]
    columns = {"image": [*names[:-1], str(tmp_path / "pipe")], "label": [i % 3 for i in range(len(names))]}
    kinds = datasets.Features({"image": datasets.Value("string"), "label": datasets.ClassLabel(names=CLASSES)})
    rows = datasets.Dataset.from_dict(columns, kinds).cast_column("image", datasets.Image())
    part = hub_parts({"train": rows}, "x")[1]["train"]
    assert part.read(0)[0] == Path(names[0]).read_bytes()
    with pytest.raises(InputError, match=r"the image .*pipe is no file, but a pipe, a device or a folder; replace"):
        part.read(len(names) - 1)


def test_pictures_are_kept_as_they_are_seen(tmp_path: Path) -> None:
    """What everything else decodes from a data set is what people see; other files stay as they are."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    for kind in CLASSES:
        (tmp_path / "own" / kind).mkdir(parents=True)
        for i in range(4):
            draw(kind, i).save(tmp_path / "own" / kind / f"{i}.png", **({"exif": exif} if i == 0 else {}))
    prepare(f"folder:{tmp_path / 'own'}", tmp_path / "out", root=tmp_path, validation=0.25, test=0.25)
    manifest = read_manifest(tmp_path / "out")
    seen = []
    for split in ("train", "validation", "test"):
        images = Images(manifest, split)
        for i in range(len(images)):
            kind = manifest.classes[images.labels[i]]
            seen += [(kind, images.picture(i).size, np.asarray(images.picture(i)).tobytes())]
    expected = [
        (kind, picture.size, picture.tobytes())
        for kind in CLASSES
        for i in range(4)
        for picture in [(draw(kind, i).rotate(-90, expand=True) if i == 0 else draw(kind, i)).convert("RGB")]
    ]
    assert sorted(seen) == sorted(expected)


def birds(top: Path) -> str:
    """Folders as those of CUB are called."""
    for i, name in enumerate(("001.Black_footed_Albatross", "002.Crested-Auklet", "barn_swallow")):
        (top / name).mkdir(parents=True)
        for j in range(4):
            draw(CLASSES[i], j).save(top / name / f"{j}.png")
    return f"folder:{top}"


def test_names_of_folders_become_names_for_prompts(tmp_path: Path) -> None:
    def names(classes: Any = None) -> list[str]:
        prepare(source, tmp_path / "out", root=tmp_path, classes=classes)
        return read_manifest(tmp_path / "out").classes

    source = birds(tmp_path / "own")
    own = ["001.Black footed Albatross", "002.Crested-Auklet", "barn swallow"]
    assert names() == own
    some = {"barn_swallow": "swallow_of_barns", "001.Black_footed_Albatross": "albatross"}
    assert names(some) == ["albatross", own[1], "swallow_of_barns"]
    assert names(["a_b", "c", "d"]) == ["a_b", "c", "d"]  # what is given is not changed

    def refused(sentence: str, classes: Any) -> None:
        with pytest.raises(InputError, match=re.escape(sentence)):
            names(classes)

    refused("in 'classes' 'barn swallow': did you mean 'barn_swallow'?", {"barn swallow": "swallow"})
    refused("has the class name 'barn swallow' twice", {"002.Crested-Auklet": "barn swallow"})
    refused("the class 'barn_swallow' of", {"barn_swallow": " "})
    (tmp_path / "own" / "barn_swallow").rename(tmp_path / "own" / "_")
    refused("the class '_' of", None)
    (tmp_path / "own" / "_").rename(tmp_path / "own" / "barn_swallow")
    prepare(f"noise:0.1:{tmp_path / 'out'}", tmp_path / "noisy", root=tmp_path)
    assert read_manifest(tmp_path / "noisy").classes == ["a_b", "c", "d"]


def test_names_in_a_configuration() -> None:
    def given(classes: Any) -> Any:
        return Dataset(source="folder:x", shots={"4": {}}, classes=classes).classes

    for classes in (None, ["a", "b"], {"a_b": "a"}):
        assert given(classes) == classes
    for classes in ("ab", ["a"], [1, 2], {}, {"a": 1}, {0: "a", 1: "b"}):
        with pytest.raises(ValueError, match="must be a list of two names or more, or a mapping of folders to names"):
            given(classes)


def test_splits_of_the_hub(pictures: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import datasets

    rows = datasets.load_dataset("imagefolder", data_dir=str(pictures), cache_dir=str(tmp_path / "cache"))["train"]
    few = rows.select(range(2))
    capfd.readouterr()
    _, parts = hub_parts(datasets.DatasetDict({"Training": rows, "dev": few, "testing": few}), "birds")
    assert {split: len(part.labels) for split, part in parts.items()} == {"train": 60, "validation": 2, "test": 2}
    assert capfd.readouterr().err == ""
    _, parts = hub_parts(datasets.DatasetDict({"train": rows, "extra": few, "unlabelled": few}), "birds")
    assert list(parts) == ["train"]
    told = "'birds': not used, as neither train, validation nor test: extra, unlabelled.\n"
    assert capfd.readouterr().err == told
    with pytest.raises(InputError, match="'birds' has both 'val' and 'validation' for the split 'validation'"):
        hub_parts(datasets.DatasetDict({"train": rows, "val": few, "validation": few}), "birds")
    with pytest.raises(InputError, match="'birds' has no split 'train'; it has all, test"):
        hub_parts(datasets.DatasetDict({"all": rows, "test": few}), "birds")


def test_bad_sources(pictures: Path, tmp_path: Path) -> None:
    def refused(source: str, sentence: str, **options: Any) -> None:
        with pytest.raises(InputError, match=re.escape(sentence)):
            prepare(source, tmp_path / "out", root=tmp_path, **options)
        assert not (tmp_path / "out" / "manifest.json").exists()

    refused("minature:digits", "unknown kind of data set source 'minature': did you mean 'miniature'?")
    refused("embedded:digits", "the source 'embedded:digits' has a new name: write 'miniature:digits'.")
    refused("miniature:digit", "unknown miniature data set 'digit': did you mean 'digits'?")
    refused("torchvision:Flower102", "unknown torchvision data set 'Flower102': did you mean 'Flowers102'?")
    refused("huggingface:no/such", "where there is a network, run `snakemake fetch`")
    refused(f"folder:{tmp_path / 'none'}", "does not exist; correct 'source'")
    refused(f"folder:{pictures}", "'classes' has 2 names, but", classes=["a", "b"])
    refused(f"folder:{pictures}", "has the class name 'a' twice", classes=["a", "b", "a"])
    refused(f"folder:{pictures}", "has the template 'a photo' without {}", templates=["a photo"])

    own = tmp_path / "own"
    shutil.copytree(pictures, own)
    (own / "cross" / "07.png").write_bytes(b"no picture")
    refused(f"folder:{own}", "cross/07.png cannot be read")
    (own / "cross" / "07.png").unlink()
    (own / "empty").mkdir()
    refused(f"folder:{own}", "empty holds no images; add some or remove the class")
    draw("cross", 0).save(own / "empty" / "one.png")
    refused(f"folder:{own}", "class 'empty' has one image only")
    shutil.copytree(pictures, tmp_path / "split" / "test")
    refused(f"folder:{tmp_path / 'split'}", "no folder 'train'")
    shutil.copytree(pictures, tmp_path / "split" / "train")
    shutil.rmtree(tmp_path / "split" / "train" / "square")
    refused(f"folder:{tmp_path / 'split'}", "train/square holds no images")


def test_a_class_without_training_images(tmp_path: Path, pictures: Path) -> None:
    """A hub data set may name a class in its features of which the training split has nothing."""
    import datasets

    rows = datasets.load_dataset("imagefolder", data_dir=str(pictures), cache_dir=str(tmp_path / "cache"))["train"]
    (tmp_path / "hub").mkdir()
    rows.filter(lambda row: row["label"] != 1).to_parquet(tmp_path / "hub" / "train.parquet")
    rows.to_parquet(tmp_path / "hub" / "test.parquet")
    with pytest.raises(InputError, match="has no training image of class 'cross'"):
        prepare(f"huggingface:{tmp_path / 'hub'}", tmp_path / "out", root=tmp_path)


def test_official_validation_splits_are_used(pictures: Path, tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        shutil.copytree(pictures, tmp_path / "own" / split)
    prepare(f"folder:{tmp_path / 'own'}", tmp_path / "out", root=tmp_path)
    assert {n for n, _ in read_manifest(tmp_path / "out").sizes.values()} == {60}


def test_hidden_labels_and_links_to_nowhere(pictures: Path, tmp_path: Path) -> None:
    import datasets

    rows = datasets.load_dataset("imagefolder", data_dir=str(pictures), cache_dir=str(tmp_path / "cache"))["train"]
    (tmp_path / "hub").mkdir()
    rows.to_parquet(tmp_path / "hub" / "train.parquet")
    hidden = rows.map(lambda row: {"label": -1}, features=rows.features)
    hidden.to_parquet(tmp_path / "hub" / "test.parquet")
    with pytest.raises(InputError, match="has the label -1 in split 'test', but 3 classes"):
        prepare(f"huggingface:{tmp_path / 'hub'}", tmp_path / "out", root=tmp_path)
    own = Path(shutil.copytree(pictures, tmp_path / "own"))
    (own / "cross" / "00.png").unlink()
    (own / "cross" / "00.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(InputError, match=r"cannot be read .*00\.png"):
        prepare(f"folder:{own}", tmp_path / "out", root=tmp_path)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_shares_leave_every_class_an_image(pictures: Path, tmp_path: Path) -> None:
    prepare(f"folder:{pictures}", tmp_path / "out", root=tmp_path, test=0.8, validation=0.001)
    manifest = read_manifest(tmp_path / "out")
    for split in ("train", "validation", "test"):
        assert set(Images(manifest, split).labels) == {0, 1, 2}
    with pytest.raises(InputError, match="must lie between 0 and 1"):
        prepare(f"folder:{pictures}", tmp_path / "out", root=tmp_path, test=1.5)
