"""Differences of weights on networks of one architecture."""

from pathlib import Path

import pytest
import torch
from helpers.scores import scores

from prt.cell import Cell
from prt.errors import InputError
from prt.miniature.pretrain import pretrain
from prt.recipe import Recipe
from prt.scores import Scores
from prt.vision.backbones import load_backbone
from prt.vision.head import make_head
from prt.vision.merge import Merged, added, merge
from prt.vision.prepared import read_manifest
from prt.vision.zero_shot import ZeroShot, zero_shot

CPU = torch.device("cpu")


def test_the_sum() -> None:
    """target + scale · (tuned − pretrained); variances stay possible, counts as they are."""
    names = {"w": 1.0, "bn.running_var": 0.5, "bn.num_batches_tracked": 3}
    own, tuned, before = (
        {k: torch.tensor(f * v).to(torch.tensor(v).dtype) for k, v in names.items()} for f in (1, 3, 5)
    )
    added(own, tuned, before, 0.25)
    assert own["w"] == 0.5
    assert own["bn.num_batches_tracked"] == 3
    added(own, tuned, before, 1.0)
    assert own["bn.running_var"] == 0
    with pytest.raises(InputError, match=r"the target's 'w' has shape \(\), and the source's \(2,\)"):
        added(own, tuned | {"w": torch.zeros(2)}, before, 1.0)
    with pytest.raises(InputError, match="the target's 'x' has shape None"):
        added(own, tuned | {"x": torch.zeros(2)}, before | {"x": torch.zeros(2)}, 1.0)


def test_scored(backbone: Path, dataset: Path, head: Path, tuned: Path, tmp_path: Path) -> None:
    """At scale 0 it is the target; on the source itself at scale 1 the fine-tuned model."""
    data, source = read_manifest(dataset), f"local-dir:{backbone}"
    recipe = Recipe(optimizer="adamw", lr=1e-3, batch=8, steps=2, warmup=1)
    for name, architecture in (("other", "rn12"), ("vit", "vit-s")):
        pretrain(architecture, "rich", recipe, 1, tmp_path / name, tmp_path / "checkpoint")
    other, its = f"local-dir:{tmp_path / 'other'}", tmp_path / "other.head"
    zero_shot(other, "other", [ZeroShot("shapes", data, its, tmp_path / "alone")], device=CPU, workers=0)
    ft = tuned / "ft" / "4" / "0"

    def scored(target: str, at: Path, scale: float, name: str) -> Scores:
        cell = Cell(
            dataset="shapes", shots="4", source="tiny", target=name, method="difference", strength=scale, seed=0
        )
        one, options = Merged(cell, ft, tmp_path / "out"), {"precision": "fp32", "device": CPU, "workers": 0}
        merge(source, target, at, [one], data=data, **options)
        return Scores.load(tmp_path / "out" / "test.safetensors")

    alone = Scores.load(tmp_path / "alone" / "test.safetensors")
    nothing, half = scored(other, its, 0.0, "other"), scored(other, its, 0.5, "other")
    assert torch.equal(nothing.values, alone.values)
    assert not torch.equal(half.values, alone.values)
    assert (half.method, half.backbone, half.source, half.strength) == ("difference", "other", "tiny", 0.5)
    itself = scored(source, head, 1.0, "tiny")
    torch.testing.assert_close(itself.values, Scores.load(ft / "test.safetensors").values, atol=1e-4, rtol=1e-4)
    make_head(load_backbone(str(tmp_path / "vit")), data.classes, data.templates, tmp_path / "vit.head")
    with pytest.raises(InputError, match="take a target of the source's architecture"):
        scored(f"local-dir:{tmp_path / 'vit'}", tmp_path / "vit.head", 1.0, "vit")
    source = other
    with pytest.raises(InputError, match="was tuned from tiny, whose weights are not those of"):
        scored(other, its, 1.0, "other")


def test_a_score_file_says_what_was_added(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"source None and strength 1.0 of a run of method difference"):
        scores(method="difference", kind="log_probs", alpha=None, strength=1.0).save(tmp_path / "s.safetensors")
        Scores.load(tmp_path / "s.safetensors")
