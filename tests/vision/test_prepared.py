"""Prepared image data sets: damage is found when they are read, and what is drawn from them is a pure function."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prt.errors import InputError
from prt.vision.prepared import Images, batches_of, few_shot, read_manifest


def test_damaged_data(dataset: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(dataset, tmp_path / "copy"))
    manifest = read_manifest(copy)
    whole = (copy / "test.arrow").read_bytes()
    (copy / "test.arrow").write_bytes(whole[:-50])
    with pytest.raises(InputError, match="truncated or corrupt"):
        Images(manifest, "test")
    shutil.copy(copy / "train.arrow", copy / "test.arrow")
    with pytest.raises(InputError, match="does not fit its manifest"):
        Images(manifest, "test")
    (copy / "test.arrow").unlink()
    with pytest.raises(InputError, match="does not exist"):
        Images(manifest, "test")
    facts = json.loads((copy / "manifest.json").read_text())
    for damage, said in (
        ({"classes": []}, "classes: List should have at least 1 item"),
        ({"classes": "abc"}, "classes: Input should be a valid list"),
        ({"classes": ["a", "a"]}, "classes: has the class name 'a' twice"),
        ({"templates": []}, "templates: List should have at least 1 item"),
        ({"train": {"images": "5"}}, "train.images: Input should be a valid integer"),
        ({"kind": "sounds"}, "kind: Input should be 'vision'"),
    ):
        (copy / "manifest.json").write_text(json.dumps(facts | damage))
        with pytest.raises(InputError, match=f"manifest.json is damaged .{said}.*delete the folder and prepare"):
            read_manifest(copy)
    (copy / "manifest.json").write_text(json.dumps(facts | {"kind": "language"}))
    with pytest.raises(InputError, match="copy holds no images, but data of kind language; name a data set of images"):
        read_manifest(copy)


@given(st.integers(1, 60), st.integers(1, 70), st.integers(0, 5), st.integers(0, 40))
def test_batches_are_a_pure_function(n: int, batch: int, seed: int, start: int) -> None:
    indices = np.arange(100, 100 + n)
    whole, late = batches_of(indices, batch, seed, 0), batches_of(indices, batch, seed, start)
    for _ in range(start):
        next(whole)
    for _ in range(5):
        np.testing.assert_array_equal(next(whole), next(late))
    epoch = [next(b) for b in [batches_of(indices, batch, seed, 0)] for _ in range(max(1, n // batch))]
    drawn = np.concatenate(epoch)
    assert len(set(drawn)) == len(drawn) == max(1, n // batch) * min(batch, n)


@given(st.integers(1, 6), st.integers(0, 9))
def test_few_shot_is_balanced_and_seeded(shots: int, seed: int) -> None:
    labels = np.array([0, 1, 2] * 6)
    chosen = few_shot(labels, str(shots), seed)
    np.testing.assert_array_equal(chosen, few_shot(labels, str(shots), seed))
    assert np.bincount(labels[chosen]).tolist() == [shots] * 3
    assert len(set(chosen)) == len(chosen)
    np.testing.assert_array_equal(few_shot(labels, "full", seed), np.arange(18))
    with pytest.raises(InputError, match="7 shots were asked for"):
        few_shot(labels, "7", seed)
