"""Tuning small real networks of open_clip's own classes."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.vision import tuning
from torch.nn import functional as F

from prt import combine, objective
from prt.atomic import read_tensors, write_tensors
from prt.errors import InputError
from prt.recipe import Recipe
from prt.scores import Scores
from prt.vision.backbones import Classifier
from prt.vision.prepare import prepare
from prt.vision.prepared import batches_of, few_shot, read_manifest
from prt.vision.score import frozen
from prt.vision.tune import Augmented, Draws, Tuner, Tuning, tune

CPU = torch.device("cpu")


@pytest.fixture
def tuner(backbone: Path, dataset: Path, head: Path) -> Tuner:
    return Tuner(f"local-dir:{backbone}", head, read_manifest(dataset), CPU, 0)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file under ``folder``."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_algorithm_1_by_hand(tuner: Tuner, tmp_path: Path) -> None:
    """Two steps of the tuner are two steps of Algorithm 1 written out."""
    run = tuning(tmp_path / "out", alpha=0.05, seed=3, lr=1e-3, batch=6, steps=2, warmup=0)
    tuned, _ = tuner.run(run)
    theta = copy.deepcopy(tuner.pretrained).train()
    reference = copy.deepcopy(tuner.pretrained).eval()
    optimizer = torch.optim.Adam(theta.tower.parameters(), lr=1e-3)
    train = tuner.splits["train"]
    chosen = few_shot(train.images.labels, "4", 3)
    for step, indices in zip(range(2), batches_of(chosen, 6, 3, 0), strict=False):
        optimizer.param_groups[0]["lr"] = run.recipe.learning_rate(step)
        x, y = train.pixels()[indices], train.labels[indices]
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
        tuner.run(tuning(tmp_path / "out", lr=1e-3, batch=6, steps=2, warmup=0, augment=augment))
    for name, value in tuner.pretrained.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_augmented_batches_do_not_depend_on_workers_or_resumption(tuner: Tuner) -> None:
    recipe, chosen = Recipe(batch=5, steps=6, augment=True), np.arange(20)
    alone = list(tuner.batches(recipe, chosen, 1, [])(0))
    tuner.workers = 2
    for start in (0, 4):
        for (images, labels, *_), (others, truths, *_) in zip(
            tuner.batches(recipe, chosen, 1, [])(start), alone[start:], strict=True
        ):
            assert torch.equal(images, others)
            assert torch.equal(labels, truths)
    source = Augmented(tuner.splits["train"].images, tuner.backbone.preprocess_cfg)
    assert not torch.equal(source[(0, 1)][0], source[(0, 2)][0])
    assert len(Draws(chosen, 5, 1, 4, 6)) == 2


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("method", ["ft", "prt"])
def test_training_lowers_the_loss(tuner: Tuner, tmp_path: Path, method: str, precision: str) -> None:
    run = tuning(tmp_path / "o", method, shots="full", lr=2e-3, batch=12, steps=70, warmup=3, precision=precision)
    tuned, _ = tuner.run(run)
    train = tuner.splits["train"]

    def loss(classifier: Classifier) -> float:
        outputs = train.logits(classifier, precision)
        if method == "ft":
            return objective.ft_loss(outputs, train.labels).item()
        return objective.prt_loss(tuner.reference("train", precision), outputs, train.labels).item()

    assert loss(tuned) < 0.7 * loss(tuner.pretrained)


def test_scoring_does_not_touch_batch_norm_and_keeps_float32(tuner: Tuner) -> None:
    classifier = copy.deepcopy(tuner.pretrained).train()
    before = copy.deepcopy(classifier.state_dict())
    assert not frozen(classifier).training
    half, full = (tuner.splits["test"].logits(classifier, p) for p in ("bf16", "fp32"))
    assert half.dtype == torch.float32
    assert not torch.equal(half, full)
    torch.testing.assert_close(half, full, atol=0.3, rtol=0)
    assert all(torch.equal(value, before[name]) for name, value in classifier.state_dict().items())


def test_images_that_are_kept_give_the_same_scores(tuner: Tuner) -> None:
    split = tuner.splits["test"]
    read = split.logits(tuner.pretrained, "fp32")
    assert split.pixels().shape == (len(split), 3, 32, 32)
    assert torch.equal(split.logits(tuner.pretrained, "fp32"), read)


def test_what_a_tuned_folder_says(tuned: Path, dataset: Path, tuner: Tuner) -> None:
    manifest = json.loads((tuned / "prt" / "4" / "0" / "manifest.json").read_text())
    assert (manifest["method"], manifest["alpha"], manifest["seed"], manifest["shots"]) == ("prt", 0.0, 0, "4")
    assert manifest["classes"] == read_manifest(dataset).classes
    assert manifest["dataset"] == {"name": "shapes", "fingerprint": read_manifest(dataset).fingerprint}
    assert manifest["backbone"]["name"] == "tiny"
    assert manifest["recipe"] == Recipe(lr=1e-3, batch=6, steps=6, warmup=2).model_dump()
    assert set(manifest["versions"]) >= {"torch", "open_clip_torch"}
    assert (tuned / "prt" / "4" / "0" / "curve.csv").read_text().startswith("iteration,prt,reward\n0,")
    assert (tuned / "ft" / "4" / "0" / "curve.csv").read_text().startswith("iteration,ft\n0,")
    files = [path for path in tuned.rglob("*") if path.is_file()]
    assert len(files) == 10  # and no checkpoint
    assert {path.suffix for path in files} == {".json", ".csv", ".safetensors"}
    ft = Scores.load(tuned / "ft" / "4" / "0" / "test.safetensors")
    assert (ft.kind, ft.alpha) == ("log_probs", None)
    torch.testing.assert_close(ft.values.exp().sum(-1), torch.ones(len(ft.labels)))
    curve = (tuned / "prt" / "4" / "0" / "curve.csv").read_text().splitlines()
    prt = Scores.load(tuned / "prt" / "4" / "0" / "test.safetensors")
    final = combine.prt(tuner.reference("test", "fp32"), prt.values).argmax(-1)
    assert float(curve[-1].split(",")[1]) == pytest.approx((final == prt.labels).double().mean().item())


def test_a_job_of_many_runs_writes_what_one_job_for_each_writes(
    backbone: Path, dataset: Path, head: Path, tmp_path: Path
) -> None:
    """To the last byte: images kept or read anew, what came before in the process, an evaluated curve or none."""

    def runs(top: Path) -> list[Tuning]:
        recipe = {"lr": 1e-3, "batch": 6, "steps": 4, "warmup": 1}
        return [
            tuning(top / "prt" / "0", every=2, **recipe),
            tuning(top / "prt" / "1", seed=1, **recipe),
            tuning(top / "augmented", alpha=0.01, augment=True, precision="bf16", **recipe),
            tuning(top / "ft", "ft", every=3, **recipe),
            tuning(top / "full", "ft", shots="full", **recipe),
        ]

    shared = {"data": read_manifest(dataset), "head": head, "device": CPU, "workers": 0}
    for run in runs(tmp_path / "each"):
        tune(str(backbone), [run], **shared)
    tune(str(backbone), runs(tmp_path / "all"), **shared)
    each, together = contents(tmp_path / "each"), contents(tmp_path / "all")
    assert len(each) == 25
    assert each == together


def test_a_reward_is_tuned_further(backbone: Path, dataset: Path, head: Path, tuned: Path, tmp_path: Path) -> None:
    """Table 5: on noisy images with the head of the clean ones; in no step at all it stays what it was."""
    prepare(f"noise:0.3:{dataset}", tmp_path / "noisy", root=tmp_path)
    first = tuned / "prt" / "4" / "0"
    runs = [
        tuning(tmp_path / "still", "adapted", initial=first, lr=0.0, batch=6, steps=1, warmup=0),
        tuning(tmp_path / "moved", "adapted", initial=first, lr=1e-3, batch=6, steps=4, warmup=1),
        tuning(tmp_path / "again", "adapted", initial=tmp_path / "moved", lr=1e-3, batch=6, steps=1, warmup=0),
    ]
    tune(str(backbone), runs, data=read_manifest(tmp_path / "noisy"), head=head, device=CPU, workers=0)
    before = read_tensors(first / "weights.safetensors", "weights")[0]
    parameters = [name for name in before if name.startswith("tower") and "running" not in name and "num_b" not in name]
    for run, same in zip(runs, (True, False, False), strict=True):
        after = read_tensors(run.out / "weights.safetensors", "weights")[0]
        assert all(torch.equal(before[name], after[name]) for name in parameters) == same
        manifest = json.loads((run.out / "manifest.json").read_text())
        start = json.loads(((run.initial or first) / "manifest.json").read_text())
        assert (manifest["method"], manifest["alpha"]) == ("adapted", 0.0)
        assert manifest["initial_sha256"] == start["weights_sha256"]
        scores = Scores.load(run.out / "test.safetensors")
        assert (scores.method, scores.kind, scores.alpha) == ("adapted", "reward", 0.0)
    with pytest.raises(InputError, match=r"holds a run of method ft; go on from a reward"):
        wrong = tuning(tmp_path / "wrong", "adapted", initial=tuned / "ft" / "4" / "0")
        tune(str(backbone), [wrong], data=read_manifest(dataset), head=head, device=CPU, workers=0)
    for method, initial in (("prt", first), ("adapted", None)):
        with pytest.raises(InputError, match="needs a reward to start from if and only if it is 'adapted'"):
            tuning(tmp_path / "wrong", method, initial=initial)


def test_a_stopped_job_keeps_the_checkpoints_of_finished_runs(
    backbone: Path, dataset: Path, head: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Snakemake throws the outputs of a stopped job away: what was tuned is then written again, not tuned again."""
    runs = [tuning(tmp_path / str(seed), seed=seed, lr=1e-3, batch=6, steps=3, warmup=0) for seed in (0, 1)]
    write, written = Tuner.write, []

    def stopped(tuner: Tuner, run: Tuning, *result: object) -> None:
        written.append(run)
        if run is runs[1]:
            raise KeyboardInterrupt
        write(tuner, run, *result)  # type: ignore[arg-type]

    monkeypatch.setattr(Tuner, "write", stopped)
    shared = {"data": read_manifest(dataset), "head": head, "device": CPU, "workers": 0}
    with pytest.raises(KeyboardInterrupt):
        tune(str(backbone), runs, **shared)
    first = contents(runs[0].out)
    assert written == runs and all(run.checkpoint.exists() for run in runs)
    for path in runs[0].out.iterdir():
        path.unlink()
    monkeypatch.undo()
    monkeypatch.setattr(Tuner, "batches", lambda *_: lambda start: pytest.fail("it trains") if start < 3 else [])
    tune(str(backbone), runs, **shared)
    assert contents(runs[0].out) == first
    assert not any(run.checkpoint.exists() for run in runs)


def test_bad_tuning(backbone: Path, dataset: Path, head: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def refused(sentence: str, data: Path = dataset, head: Path = head, out: Path = out, **changes: object) -> None:
        with pytest.raises(InputError) as complaint:
            run = tuning(out, **({"steps": 2} | changes))
            tune(str(backbone), [run], data=read_manifest(data), head=head, device=CPU, workers=0)
        assert sentence in str(complaint.value)
        assert not (tmp_path / "out").exists()

    refused("alpha is -0.1, but the weight of entropy maximisation cannot be negative", alpha=-0.1)
    refused("the number of shots is '0'; use a whole number above 0, or 'full'", shots="0")
    refused("unknown key of a training recipe 'step': did you mean 'steps'?", step=2)
    refused("99 shots were asked for", shots="99")
    refused("the loss of prt_0 tiny shapes 4/0 (1 of 1) is", lr=1e30, steps=40, warmup=0, batch=6)
    refused("does not exist", data=tmp_path / "none")
    refused("does not exist", head=tmp_path / "none")
    tensors, header = read_tensors(head, "head")
    write_tensors(tmp_path / "h", tensors, header | {"classes": ["a", "b", "c"]})
    refused("have different labels", head=tmp_path / "h")
    write_tensors(tmp_path / "h", tensors | {"head": tensors["head"][:2]}, header)
    refused("has shapes [(2, 64), ()], not [(3, 64), ()]", head=tmp_path / "h")
    (tmp_path / "h").write_bytes(head.read_bytes()[:-9])
    refused("truncated or corrupt", head=tmp_path / "h")
    (tmp_path / "file").write_text("")
    refused("a file stands where a folder is needed", out=tmp_path / "file" / "out")
