"""Rewards that are tuned beside more or less of a pretrained model, or beside several."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.vision import tuning
from torch.nn import functional as F

from prt.errors import InputError
from prt.miniature.pretrain import pretrain
from prt.recipe import Recipe
from prt.reference import drawn
from prt.vision.backbones import load_backbone
from prt.vision.head import make_head
from prt.vision.prepared import batches_of, few_shot, read_manifest
from prt.vision.score import frozen
from prt.vision.tune import Augmented, Draws, Further, Tuner, tune

CPU = torch.device("cpu")


@pytest.fixture
def tuner(backbone: Path, dataset: Path, head: Path) -> Tuner:
    return Tuner(f"local-dir:{backbone}", head, read_manifest(dataset), CPU, 0)


@pytest.fixture(scope="module")
def other(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Further:
    """A further pretrained model, of another architecture."""
    out = tmp_path_factory.mktemp("other") / "vit"
    recipe = Recipe(optimizer="adamw", lr=1e-3, batch=8, steps=3, warmup=1)
    pretrain("vit-s", "poor", recipe, 1, out, out.parent / "checkpoint.safetensors")
    data, made = read_manifest(dataset), out.parent / "head.safetensors"
    make_head(load_backbone(f"local-dir:{out}"), data.classes, data.templates, made)
    return Further(f"local-dir:{out}", made)


@pytest.mark.parametrize("reference", [0.5, [0.25, 1.5]])
@pytest.mark.parametrize("mixed", [False, True])
def test_by_hand(tuner: Tuner, other: Further, tmp_path: Path, reference: object, mixed: bool) -> None:
    """Two steps are two steps of v = β·log π_pt + r written out, each example with its own β and model."""
    facts = {"reference": reference, "references": ["other"] if mixed else [], "lr": 1e-3, "batch": 6, "steps": 2}
    run = tuning(tmp_path / "out", seed=3, warmup=0, further=(other,) if mixed else (), **facts)
    tuned, _ = tuner.run(run)
    theta = copy.deepcopy(tuner.pretrained).train()
    optimizer = torch.optim.Adam(theta.tower.parameters(), lr=1e-3)
    train = tuner.splits["train"]
    models = [copy.deepcopy(tuner.pretrained).eval(), tuner.further(other)[0]]
    with torch.no_grad():
        log_pt = [torch.log_softmax(model(train.pixels()), -1) for model in models]
    chosen, seen = few_shot(train.images.labels, "4", 3), set()
    for step, indices in zip(range(2), batches_of(chosen, 6, 3, 0), strict=False):
        optimizer.param_groups[0]["lr"] = run.recipe.learning_rate(step)
        beta, model = drawn(run.recipe, 3, step, indices, len(train))
        seen |= set(model.tolist())
        v = theta(train.pixels()[indices])
        v = torch.stack([v[i] + beta[i] * log_pt[model[i]][indices[i]] for i in range(len(indices))])
        optimizer.zero_grad()
        F.cross_entropy(v, train.labels[indices]).backward()
        optimizer.step()
    assert seen == ({0, 1} if mixed else {0})
    for (name, ours), theirs in zip(tuned.state_dict().items(), theta.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=1e-3, msg=name)


def test_none_of_the_reference_is_fine_tuning(tuner: Tuner, tmp_path: Path) -> None:
    """β = 0, to the last bit; and the paper's β, said or drawn from around it, is no other run than without."""
    recipe = {"lr": 1e-3, "batch": 6, "steps": 3, "warmup": 1}
    ft, nothing = (
        tuner.run(tuning(tmp_path / "a", "ft", **recipe))[0],
        tuner.run(tuning(tmp_path / "b", reference=0.0, **recipe))[0],
    )
    assert all(torch.equal(value, ft.state_dict()[name]) for name, value in nothing.state_dict().items())
    assert Recipe(reference=1, references=[]).model_dump() == Recipe().model_dump()


def test_draws() -> None:
    """Uniform, each example's own, and the same in whatever parts and from whatever iteration they are asked for."""
    recipe, every = Recipe(reference=[0.5, 2.0], references=["a", "b"]), np.arange(3000)
    beta, model = drawn(recipe, 7, 5, every, 3000)
    assert (beta.min() >= 0.5, beta.max() <= 2.0) == (True, True)
    assert beta.mean().item() == pytest.approx(1.25, abs=0.03)
    assert np.bincount(model.numpy()) == pytest.approx([1000, 1000, 1000], abs=100)
    some = np.array([17, 4, 2999])
    for part in (some, torch.from_numpy(some)):
        again = drawn(recipe, 7, 5, part, 3000)
        assert torch.equal(again[0], beta[some]) and torch.equal(again[1], model[some])
    for other in (drawn(recipe, 7, 6, every, 3000), drawn(recipe, 8, 5, every, 3000)):
        assert not torch.equal(other[0], beta)


def test_augmented_images_are_one_crop_to_all_models(tuner: Tuner, other: Further) -> None:
    """Each example's log π_pt is of the model that was drawn, on its view; and resuming changes nothing."""
    recipe, chosen = Recipe(reference=[0, 1], references=["o"], batch=6, steps=6, augment=True), np.arange(18)
    whole = list(tuner.batches(recipe, chosen, 1, [], [other])(0))
    tuner.workers = 2
    resumed = list(tuner.batches(recipe, chosen, 1, [], [other])(3))
    for one, two in zip(whole[3:], resumed, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    classifier, cfg, _ = tuner.further(other)
    source = Augmented(tuner.splits["train"].images, tuner.backbone.preprocess_cfg, cfg)
    assert torch.equal(source[(0, 1)][0], source[(0, 1)][1])  # both see 32 × 32 pixels
    models = [frozen(tuner.pretrained), frozen(classifier)]
    for step, (items, (images, _, log_pt, beta)) in enumerate(zip(Draws(chosen, 6, 1, 0, 6), whole, strict=True)):
        betas, model = drawn(recipe, 1, step, np.array([i for i, _ in items]), len(tuner.splits["train"]))
        assert torch.equal(beta[:, 0], betas)
        with torch.no_grad():
            both = torch.stack([torch.log_softmax(m(images), -1) for m in models])
        torch.testing.assert_close(log_pt, both[model, torch.arange(6)])


def test_a_manifest_says_how(backbone: Path, dataset: Path, head: Path, other: Further, tmp_path: Path) -> None:
    run = tuning(
        tmp_path / "o", reference=[0, 1], references=["o"], further=(other,), lr=1e-3, batch=6, steps=2, warmup=0
    )
    tune(str(backbone), [run], data=read_manifest(dataset), head=head, device=CPU, workers=0)
    manifest = json.loads((run.out / "manifest.json").read_text())
    assert (manifest["recipe"]["reference"], manifest["recipe"]["references"]) == ([0.0, 1.0], ["o"])
    assert manifest["references"] == {"o": load_backbone(other.spec).fingerprint}
    with pytest.raises(InputError, match="names 1 further models, but 0 were given; give each"):
        tuning(tmp_path / "o", references=["o"])
    with pytest.raises(InputError, match="does not exist"):
        wrong = tuning(tmp_path / "w", references=["o"], further=(Further(other.spec, tmp_path / "none"),), steps=2)
        tune(str(backbone), [wrong], data=read_manifest(dataset), head=head, device=CPU, workers=0)


@pytest.mark.parametrize("wrong", [-1, [1], [1, 0.5], [0, 1, 2], "all", True, [0, float("inf")], None, [0, True]])
def test_no_reference(wrong: object) -> None:
    with pytest.raises(InputError, match=r"'reference' of a training recipe is .*; it should be a number from 0, or a"):
        Recipe(reference=wrong)
