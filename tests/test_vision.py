"""Backbones, heads, tuning and scoring on small real networks of open_clip's own classes."""

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from prt import combine, objective
from prt.atomic import read_tensors, write_tensors
from prt.errors import InputError
from prt.scores import Scores
from prt.training import Recipe
from prt.vision.backbones import Classifier, build_tower, load_backbone, preprocess
from prt.vision.datasets import Images, read_manifest
from prt.vision.head import load_head, zero_shot_head
from prt.vision.score import frozen
from prt.vision.tune import Augmented, Draws, Tuner

Prt = Callable[..., tuple[int, str, str]]


@pytest.fixture
def tuner(backbone: Path, dataset: Path, head: Path) -> Tuner:
    return Tuner(f"local-dir:{backbone}", head, read_manifest(dataset), torch.device("cpu"), 0)


def test_the_classifier_is_open_clip_s(backbone: Path, dataset: Path, head: Path) -> None:
    """Own transform, normalisation, tower and head give what open_clip's own calls give."""
    clip, _, transform = open_clip.create_model_and_transforms(f"local-dir:{backbone}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{backbone}")
    clip.eval()
    loaded = load_backbone(f"local-dir:{backbone}")
    classifier, header = load_head(head, loaded)
    images = Images(read_manifest(dataset), "test")
    pixels = torch.stack([preprocess(loaded.preprocess_cfg)(images.picture(i)) for i in range(4)])
    assert pixels.dtype == torch.uint8
    with torch.no_grad():
        theirs = clip.encode_image(torch.stack([transform(images.picture(i)) for i in range(4)]), normalize=True)
        text = clip.encode_text(tokenizer([f"a photo of a {c}." for c in header["classes"]]), normalize=True)
        expected = clip.logit_scale.exp() * theirs @ text.T
        torch.testing.assert_close(classifier(pixels), expected, atol=1e-4, rtol=1e-4)


def test_the_head_is_the_mean_of_the_prompts(backbone: Path) -> None:
    loaded = load_backbone(f"local-dir:{backbone}")
    templates, classes = ["the digit {}", "a {}", "{} {}"], ["one", "two"]
    found = zero_shot_head(loaded, classes, templates)
    with torch.no_grad():
        for row, name in zip(found, classes, strict=True):
            embeddings = [
                F.normalize(loaded.clip.encode_text(loaded.tokenizer([t.replace("{}", name)]))[0], dim=0)
                for t in templates
            ]
            torch.testing.assert_close(row, F.normalize(torch.stack(embeddings).mean(0), dim=0))


@pytest.mark.parametrize("model", ["RN50-quickgelu", "ViT-B-16", "ViT-B-16-quickgelu", "convnext_base"])
def test_real_architectures(model: str, tmp_path: Path) -> None:
    """A reward of a real architecture (random weights) is built again from its configuration alone."""
    clip = open_clip.create_model(model)
    cfg = open_clip.get_model_config(model)
    tower = build_tower(cfg)
    tower.load_state_dict(clip.visual.state_dict())
    pixels = torch.randint(0, 256, (1, 3, 224, 224), dtype=torch.uint8)
    head, scale = torch.randn(5, cfg["embed_dim"]), torch.tensor(10.0)
    with torch.no_grad():
        ours = Classifier(tower.eval(), head, scale, clip.visual.preprocess_cfg)(pixels)
        theirs = Classifier(clip.visual.eval(), head, scale, clip.visual.preprocess_cfg)(pixels)
    torch.testing.assert_close(ours, theirs)


def test_a_local_checkpoint(tmp_path: Path) -> None:
    """MODEL/PATH: a real architecture with weights from a file of the user's own."""
    clip = open_clip.create_model("ViT-S-32-alt", precision="fp32")
    path = tmp_path / "vit.pt"
    torch.save(clip.state_dict(), path)
    loaded = load_backbone(f"ViT-S-32-alt/{path}")
    assert torch.equal(loaded.clip.visual.proj, clip.visual.proj)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="could not be loaded"):
        load_backbone(f"ViT-S-32-alt/{path}")


def test_bad_backbones(backbone: Path, tmp_path: Path) -> None:
    for spec, sentence in {
        "ViT-B-61/openai": r"unknown open_clip model 'ViT-B-61': did you mean 'ViT-B-16'\?",
        "ViT-B-16": "names no weights",
        "ViT-B-16/laion2b": r"unknown pretrained tag or checkpoint file of ViT-B-16 'laion2b'",
        "RN50/openai": "need the model RN50-quickgelu: write RN50-quickgelu/openai",
        "ViT-B-16/openai": "need the model ViT-B-16-quickgelu: write ViT-B-16-quickgelu/openai",
        "ViT-B-16/datacomp_xl_s13b_b90k": "could not be loaded",  # not on this machine, and no network
        f"local-dir:{tmp_path}": "does not exist",
    }.items():
        with pytest.raises(InputError, match=sentence):
            load_backbone(spec)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "open_clip_config.json").write_bytes((backbone / "open_clip_config.json").read_bytes())
    whole = (backbone / "open_clip_model.safetensors").read_bytes()
    weights = broken / "open_clip_model.safetensors"
    weights.write_bytes(whole[:-100])
    with pytest.raises(InputError, match="could not be loaded"):
        load_backbone(f"local-dir:{broken}")
    weights.unlink()
    with pytest.raises(InputError, match="could not be loaded"):
        load_backbone(str(broken))


def test_algorithm_1_by_hand(tuner: Tuner, tmp_path: Path) -> None:
    """Two steps of the tuner are two steps of Algorithm 1 written out."""
    recipe = Recipe(lr=1e-3, batch=6, steps=2, warmup=0)
    tuned, _ = tuner.run("t", "prt", 0.05, "4", 3, recipe, tmp_path / "c", 0)

    from prt.vision.datasets import batches_of, few_shot

    theta = copy.deepcopy(tuner.pretrained).train()
    reference = copy.deepcopy(tuner.pretrained).eval()
    optimizer = torch.optim.Adam(theta.tower.parameters(), lr=1e-3)
    labels = tuner.splits["train"].labels
    for step, indices in zip(range(2), batches_of(few_shot(labels, "4", 3), 6, 3, 0), strict=False):
        optimizer.param_groups[0]["lr"] = recipe.learning_rate(step)
        x, y = tuner.pixels("train")[indices], torch.from_numpy(labels[indices])
        with torch.no_grad():
            log_pt = torch.log_softmax(reference(x), -1)
        r = theta(x)
        rho = torch.softmax(r, -1)
        loss = F.cross_entropy(log_pt + r, y) + 0.05 * (rho * rho.log()).sum(-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for (name, ours), theirs in zip(tuned.state_dict().items(), theta.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=1e-3, msg=name)
    assert torch.equal(tuned.head, tuner.pretrained.head)


def test_the_pretrained_network_is_left_alone(tuner: Tuner, tmp_path: Path) -> None:
    before = copy.deepcopy(tuner.pretrained.state_dict())
    for augment in (False, True):
        recipe = Recipe(lr=1e-3, batch=6, steps=2, warmup=0, augment=augment)
        tuner.run("t", "prt", 0.0, "4", 0, recipe, tmp_path / "c", 0)
    for name, value in tuner.pretrained.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_augmented_batches_do_not_depend_on_workers_or_resumption(tuner: Tuner) -> None:
    recipe, chosen = Recipe(batch=5, steps=6, augment=True), np.arange(20)
    alone = list(tuner.batches(recipe, chosen, 1, None)(0))
    tuner.workers = 2
    for start in (0, 4):
        for (images, labels, _), (others, truths, _) in zip(
            tuner.batches(recipe, chosen, 1, None)(start), alone[start:], strict=True
        ):
            assert torch.equal(images, others)
            assert torch.equal(labels, truths)
    source = Augmented(tuner.splits["train"], tuner.backbone.preprocess_cfg)
    assert not torch.equal(source[(0, 1)][0], source[(0, 2)][0])
    assert len(Draws(chosen, 5, 1, 4, 6)) == 2


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("method", ["ft", "prt"])
def test_training_lowers_the_loss(tuner: Tuner, tmp_path: Path, method: str, precision: str) -> None:
    recipe = Recipe(lr=2e-3, batch=12, steps=70, warmup=3, precision=precision)
    tuned, _ = tuner.run("t", method, 0.0, "full", 0, recipe, tmp_path / "c", 0)
    truth = torch.from_numpy(tuner.splits["train"].labels)

    def loss(classifier: Classifier) -> float:
        outputs = tuner.score(classifier, "train", recipe)
        if method == "ft":
            return objective.ft_loss(outputs, truth).item()
        return objective.prt_loss(tuner.reference("train", recipe), outputs, truth).item()

    assert loss(tuned) < 0.7 * loss(tuner.pretrained)


def test_scoring_does_not_touch_batch_norm_and_keeps_float32(tuner: Tuner) -> None:
    classifier = copy.deepcopy(tuner.pretrained).train()
    before = copy.deepcopy(classifier.state_dict())
    assert not frozen(classifier).training
    half, full = (tuner.score(classifier, "test", Recipe(precision=p)) for p in ("bf16", "fp32"))
    assert half.dtype == torch.float32
    assert not torch.equal(half, full)
    torch.testing.assert_close(half, full, atol=0.3, rtol=0)
    assert all(torch.equal(value, before[name]) for name, value in classifier.state_dict().items())


def test_what_a_tuned_folder_says(tuned: Path, dataset: Path, tuner: Tuner) -> None:
    import json

    manifest = json.loads((tuned / "prt" / "4" / "0" / "manifest.json").read_text())
    assert (manifest["method"], manifest["alpha"], manifest["seed"], manifest["shots"]) == ("prt", 0.0, 0, "4")
    assert manifest["classes"] == read_manifest(dataset).classes
    assert manifest["dataset"]["fingerprint"] == read_manifest(dataset).fingerprint
    assert manifest["recipe"]["steps"] == 6
    assert set(manifest["versions"]) >= {"torch", "open_clip_torch"}
    assert (tuned / "prt" / "4" / "0" / "curve.csv").read_text().startswith("iteration,prt,reward\n0,")
    assert (tuned / "ft" / "4" / "0" / "curve.csv").read_text().startswith("iteration,ft\n0,")
    for path in tuned.rglob("*"):
        assert path.suffix in ("", ".json", ".csv", ".safetensors")
    ft = Scores.load(tuned / "ft" / "4" / "0" / "test.safetensors")
    torch.testing.assert_close(ft.values.exp().sum(-1), torch.ones(len(ft.labels)))
    curve = (tuned / "prt" / "4" / "0" / "curve.csv").read_text().splitlines()
    prt = Scores.load(tuned / "prt" / "4" / "0" / "test.safetensors")
    final = combine.prt(tuner.reference("test", Recipe()), prt.values).argmax(-1)
    assert float(curve[-1].split(",")[1]) == pytest.approx((final == prt.labels).double().mean().item())


def test_bad_tuning(prt: Prt, backbone: Path, dataset: Path, head: Path, tmp_path: Path) -> None:
    good = {
        "spec": f"local-dir:{backbone}", "backbone": "tiny", "dataset": "shapes", "data": dataset, "head": head,
        "seed": 0, "method": "prt", "regimes": '{"4": {"steps": 2}}',
        "out": tmp_path / "out", "checkpoints": tmp_path / "c",
    }  # fmt: skip

    def refused(sentence: str, **changes: object) -> None:
        options = [str(x) for name, value in (good | changes).items() for x in (f"--{name}", value)]
        code, _, complaint = prt("vision", "tune", *options)
        assert code == 1
        assert sentence in complaint.splitlines()[-1]
        assert not (tmp_path / "out").exists()

    refused("unknown tuning method 'ptr': did you mean 'prt'?", method="ptr")
    refused("alpha is -0.1, but the weight of entropy maximisation cannot be negative", alpha=-0.1)
    refused("unknown key of a training recipe 'step': did you mean 'steps'?", regimes='{"4": {"step": 2}}')
    refused("99 shots were asked for", regimes='{"99": {}}')
    refused("the loss of prt", regimes='{"4": {"lr": 1e30, "steps": 40, "warmup": 0, "batch": 6}}')
    refused("does not exist", data=tmp_path / "none")
    refused("does not exist", head=tmp_path / "none")
    refused("no GPU that torch can use", device="cuda") if not torch.cuda.is_available() else None
    tensors, header = read_tensors(head, "head")
    write_tensors(tmp_path / "h", tensors, header | {"classes": ["a", "b", "c"]})
    refused("have different labels", head=tmp_path / "h")
    write_tensors(tmp_path / "h", tensors | {"head": tensors["head"][:2]}, header)
    refused("has shape (2, 64), not (3, 64)", head=tmp_path / "h")
    (tmp_path / "h").write_bytes(head.read_bytes()[:-9])
    refused("truncated or corrupt", head=tmp_path / "h")
    (tmp_path / "file").write_text("")
    refused("a file stands where a folder is needed", out=tmp_path / "file" / "out")


def test_a_head_of_other_weights(head: Path, tmp_path: Path) -> None:
    from prt.miniature.pretrain import pretrain

    recipe = Recipe(lr=1e-3, batch=8, steps=1, warmup=0)
    pretrain("rn12", "poor", recipe, 1, tmp_path / "other", tmp_path / "checkpoint")
    with pytest.raises(InputError, match="is not a zero-shot head of"):
        load_head(head, load_backbone(str(tmp_path / "other")))


def test_an_image_of_any_mode(backbone: Path, tmp_path: Path) -> None:
    from prt.vision.datasets import decode

    transform = preprocess(load_backbone(str(backbone)).preprocess_cfg)
    for mode in ("L", "RGB", "RGBA", "P", "CMYK", "I;16"):
        path = tmp_path / "image.tif"
        Image.new(mode, (50, 20)).save(path)
        assert transform(decode(path.read_bytes(), "image")).shape == (3, 32, 32)
