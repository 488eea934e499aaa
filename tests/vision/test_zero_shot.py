"""Zero-shot heads, and the pretrained model's scores with them."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from prt.errors import InputError
from prt.miniature.pretrain import pretrain
from prt.recipe import Recipe
from prt.scores import Scores
from prt.vision import backbones
from prt.vision.backbones import load_backbone
from prt.vision.head import load_head, zero_shot_head
from prt.vision.prepare import prepare
from prt.vision.prepared import read_manifest
from prt.vision.zero_shot import ZeroShot, zero_shot

CPU = torch.device("cpu")


@pytest.mark.parametrize("count", [2, 25])
def test_the_head_is_the_mean_of_the_prompts(backbone: Path, count: int) -> None:
    """Braces in names and templates are letters; classes are encoded several at a time."""
    loaded = load_backbone(f"local-dir:{backbone}")
    templates = ["the digit {}", "a {}", "{} {}", "{0} and {{}} of {}"]
    classes = ["one {0}", "two {}", *(f"class {i}" for i in range(count - 2))]
    found = zero_shot_head(loaded, classes, templates)
    assert found.shape == (count, 64)
    with torch.no_grad():
        for row, name in zip(found, classes, strict=True):
            embeddings = [
                F.normalize(loaded.clip.encode_text(loaded.tokenizer([t.replace("{}", name)]))[0], dim=0)
                for t in templates
            ]
            torch.testing.assert_close(row, F.normalize(torch.stack(embeddings).mean(0), dim=0), atol=1e-6, rtol=0)


def test_a_head_of_other_weights(head: Path, tmp_path: Path) -> None:
    recipe = Recipe(lr=1e-3, batch=8, steps=1, warmup=0)
    pretrain("rn12", "poor", recipe, 1, tmp_path / "other", tmp_path / "checkpoint")
    with pytest.raises(InputError, match="is not a zero-shot head of"):
        load_head(head, load_backbone(str(tmp_path / "other")))


def test_several_data_sets_at_once(
    backbone: Path, dataset: Path, head: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The backbone is loaded and hashed once; noisy images take the head of the clean ones."""
    prepare(f"noise:0.3:{dataset}", tmp_path / "noisy", root=tmp_path)
    clean, noisy = read_manifest(dataset), read_manifest(tmp_path / "noisy")
    hashed, sha256 = [], backbones.hashlib.sha256
    monkeypatch.setattr(backbones.hashlib, "sha256", lambda: hashed.append(1) or sha256())
    sets = [
        ZeroShot("shapes", clean, tmp_path / "head", tmp_path / "clean"),
        ZeroShot("shapes-noise", noisy, tmp_path / "head", tmp_path / "scores", make_head=False),
    ]
    zero_shot(f"local-dir:{backbone}", "tiny", sets, device=CPU, workers=0)
    assert len(hashed) == 1
    monkeypatch.undo()
    assert (tmp_path / "head").read_bytes() == head.read_bytes()
    for on in sets:
        for split in ("validation", "test"):
            scores = Scores.load(on.out / f"{split}.safetensors")
            assert (scores.backbone, scores.method, scores.kind) == ("tiny", "pretrained", "log_probs")
            assert (scores.dataset, scores.fingerprint, scores.split) == (on.dataset, on.data.fingerprint, split)
            assert (scores.seed, scores.alpha) == (None, None)
            torch.testing.assert_close(scores.values.exp().sum(-1), torch.ones(len(scores.labels)))
    clean_scores, noisy_scores = (Scores.load(on.out / "test.safetensors").values for on in sets)
    assert not torch.equal(clean_scores, noisy_scores)
    # One data set alone, its head made elsewhere: the same scores.
    alone = ZeroShot("shapes-noise", noisy, head, tmp_path / "alone", make_head=False)
    zero_shot(str(backbone), "tiny", [alone], device=CPU, workers=0)
    assert torch.equal(Scores.load(tmp_path / "alone" / "test.safetensors").values, noisy_scores)


def test_what_cannot_be(backbone: Path, dataset: Path, head: Path, tmp_path: Path) -> None:
    on = ZeroShot("shapes", read_manifest(dataset), tmp_path / "none", tmp_path / "out", make_head=False)
    with pytest.raises(InputError, match="does not exist"):
        zero_shot(str(backbone), "tiny", [on], device=CPU, workers=0)
    with pytest.raises(InputError, match=r"unknown precision 'bf61': did you mean 'bf16'\?"):
        zero_shot(str(backbone), "tiny", [on], precision="bf61", device=CPU, workers=0)
    other = replace(on, data=replace(on.data, classes=["circle", "square", "star"]), head=head)
    with pytest.raises(InputError, match="have different labels"):
        zero_shot(str(backbone), "tiny", [other], device=CPU, workers=0)
    assert not (tmp_path / "out").exists()
