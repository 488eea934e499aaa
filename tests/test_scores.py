"""Score files, and what may be combined with what."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.scores import scores
from safetensors.torch import load_file, save_file

from prt.atomic import read_tensors, write_tensors
from prt.errors import InputError
from prt.scores import Scores, check_same_examples, check_same_labels


@pytest.mark.parametrize("method", ["prt", "adapted"])
def test_scores_come_back(tmp_path: Path, method: str) -> None:
    one = scores(method=method)
    one.save(tmp_path / "s.safetensors")
    other = Scores.load(tmp_path / "s.safetensors")
    assert torch.equal(one.values, other.values)
    assert torch.equal(one.labels, other.labels)
    assert replace(one, values=None, labels=None) == replace(other, values=None, labels=None)


def test_damaged_scores(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    with pytest.raises(InputError, match=r"score file .* does not exist"):
        Scores.load(path)
    scores(values=torch.randn(4, 2)).save(path)
    with pytest.raises(InputError, match=r"has shape \(4, 2\), not \(4, 3\)"):
        Scores.load(path)
    broken = torch.full((4, 3), float("nan"))
    with pytest.raises(InputError, match=r"hold NaN; use precision fp32"):
        scores(values=broken).save(tmp_path / "none.safetensors")
    assert not (tmp_path / "none.safetensors").exists()
    scores().save(path)
    tensors, header = read_tensors(path, "score file")
    write_tensors(path, tensors | {"scores": broken}, header)
    with pytest.raises(InputError, match=r"holds NaN"):
        Scores.load(path)
    save_file(load_file(path), path)
    with pytest.raises(InputError, match=r"not written by this project"):
        Scores.load(path)


def test_other_labels_are_named() -> None:
    with pytest.raises(InputError, match=r"only the reward has 'dog'; only the target has 'cow', 'hen'"):
        check_same_labels(["cat", "dog"], ["cat", "cow", "hen"], "the reward", "the target")
    with pytest.raises(InputError, match=r"same labels in another order .number 0 is 'cat' here and 'dog' there"):
        check_same_labels(["cat", "dog"], ["dog", "cat"], "the reward", "the target")


def test_other_examples_are_refused() -> None:
    check_same_examples(scores(), scores(backbone="rn", method="ft"))
    for other in (
        scores(split="validation"),
        scores(fingerprint="g"),
        scores(labels=torch.zeros(4, dtype=torch.int64)),
    ):
        with pytest.raises(InputError, match=r"different examples"):
            check_same_examples(scores(), other)
