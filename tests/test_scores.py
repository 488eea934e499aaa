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
    scores().save(path)
    tensors, header = read_tensors(path, "score file")
    for number in (float("nan"), float("inf"), -float("inf")):
        broken = tensors["scores"].clone()
        broken[1, 2] = number
        with pytest.raises(InputError, match=r"the scores of vit \(prt\) on digits hold NaN or infinity"):
            scores(values=broken).save(tmp_path / "none.safetensors")
        assert not (tmp_path / "none.safetensors").exists()
        write_tensors(path, tensors | {"scores": broken}, header)
        with pytest.raises(InputError, match=r"the scores in .* hold NaN or infinity"):
            Scores.load(path)
    for labels in (torch.tensor([0, 1, 2, 3]), torch.tensor([0, -1, 2, 0])):
        write_tensors(path, tensors | {"labels": labels}, header)
        with pytest.raises(InputError, match="has a label that is none of its classes"):
            Scores.load(path)
    write_tensors(path, tensors | {"scores": tensors["scores"].to(torch.int8)}, header)
    with pytest.raises(InputError, match=r"holds torch.int8 and torch.int64; make it again"):
        Scores.load(path)
    for damage, said in (
        ({"kind": "logits"}, "kind: Input should be 'log_probs' or 'reward'"),
        ({"kind": "log_probs"}, "log_probs of a run of method prt"),
        ({"method": "dpo"}, "method: Input should be"),
        ({"alpha": None}, "alpha None and seed 1 of a run of method prt"),
        ({"seed": "1"}, "seed: Input should be a valid integer"),
        ({"classes": ["a", "b", "b"]}, "has the class name 'b' twice"),
        ({"classes": "abc"}, "classes: Input should be a valid list"),
        ({"precision": "fp32"}, "precision: Extra inputs are not permitted"),
    ):
        write_tensors(path, tensors, header | damage)
        with pytest.raises(InputError, match=f"s.safetensors is no score file .*{said}.*delete it"):
            Scores.load(path)
    scores().save(path)
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
