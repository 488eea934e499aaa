"""Table 5: noisy copies of a data set, rewards scored on them and tuned further, and the table made of the scores."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from test_scores import scores

from prt import reward as reward_files
from prt.errors import InputError
from prt.noise import noise_table
from prt.scores import Scores
from prt.training import Recipe
from prt.vision.datasets import Images, prepare, read_manifest
from prt.vision.predict import load_reward
from prt.vision.tune import tune

Prt = Callable[..., tuple[int, str, str]]
STD = 0.1


@pytest.fixture(scope="module")
def noisy(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("noisy") / "shapes-noise"
    prepare(f"noise:{STD}:{dataset}", out, root=out.parent)
    return out


def pixels(folder: Path, split: str) -> np.ndarray:
    images = Images(read_manifest(folder), split)
    return np.stack([np.asarray(images.picture(i)) for i in range(len(images))]).astype(float) / 255


def test_noise_is_gaussian_and_clipped(dataset: Path, noisy: Path) -> None:
    clean, other = read_manifest(dataset), read_manifest(noisy)
    assert (other.classes, clean.templates) == (clean.classes, other.templates)
    assert other.fingerprint != clean.fingerprint
    for split in ("train", "validation", "test"):
        assert (Images(clean, split).labels == Images(other, split).labels).all()
        before, after = pixels(dataset, split), pixels(noisy, split)
        added = (after - before)[(before > 5 * STD) & (before < 1 - 5 * STD)]  # where nothing is clipped
        if len(added) > 1000:
            assert abs(added.mean()) < 4 * STD / len(added) ** 0.5
            assert abs(added.std() / STD - 1) < 0.1
    # Dark pixels: what would be negative is black.
    dark = pixels(noisy, "train")[pixels(dataset, "train") < 0.01]
    assert 0.3 < (dark == 0).mean() < 0.6
    # No two images, nor the splits' first ones, share their noise.
    first = [pixels(noisy, s)[0] - pixels(dataset, s)[0] for s in ("train", "test")]
    assert abs(np.corrcoef(first[0].ravel(), first[1].ravel())[0, 1]) < 0.1


def test_noise_is_drawn_once(dataset: Path, noisy: Path, tmp_path: Path) -> None:
    prepare(f"noise:{STD}:{dataset}", tmp_path / "again", root=tmp_path)
    assert json.loads((tmp_path / "again" / "manifest.json").read_text()) == json.loads(
        (noisy / "manifest.json").read_text()
    )


@pytest.mark.parametrize("std", ["0", "-1", "much", "inf", "nan", ""])
def test_wrong_noise(std: str, dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"the noise is '{std}', but its standard deviation"):
        prepare(f"noise:{std}:{dataset}", tmp_path / "out", root=tmp_path)
    assert not (tmp_path / "out").exists()


def test_noise_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"manifest.*does not exist"):
        prepare(f"noise:0.1:{tmp_path / 'nowhere'}", tmp_path / "out", root=tmp_path)


def test_a_reward_is_scored_on_other_data(
    prt: Prt, tuned: Path, noisy: Path, backbone: Path, pictures: Path, tmp_path: Path
) -> None:
    arguments = ["--dataset", "shapes-noise", "--data", noisy, "--out", tmp_path, "--device", "cpu"]
    code, _, complaint = prt("vision", "score-rewards", tuned / "prt" / "4" / "0", *arguments)
    assert code == 0, complaint
    found = Scores.load(tmp_path / "4" / "0" / "test.safetensors")
    assert (found.kind, found.method, found.shots, found.seed) == ("reward", "prt", "4", 0)
    images = Images(read_manifest(noisy), "test")
    assert torch.equal(found.labels, torch.from_numpy(images.labels))
    # The same as the reward in use: its difference from the target alone, up to a constant per image.
    files = []
    for i in range(len(images)):
        files.append(tmp_path / f"{i}.png")
        files[-1].write_bytes(images[i][0])
    rewarded, plain = load_reward(tuned / "prt" / "4" / "0").on(f"local-dir:{backbone}").both(files)
    expected = torch.softmax(plain.log() + found.values, -1)
    torch.testing.assert_close(rewarded, expected, atol=1e-4, rtol=1e-3)


def test_other_labels_are_refused(prt: Prt, tuned: Path, pictures: Path, tmp_path: Path) -> None:
    prepare(f"folder:{pictures}", tmp_path / "other", root=tmp_path, classes=["circle", "cross", "star"])
    run = tuned / "prt" / "4" / "0"
    code, _, complaint = prt(
        "vision", "score-rewards", run, "--dataset", "x", "--data", tmp_path / "other", "--out", tmp_path / "out"
    )
    assert code == 1
    assert "have different labels" in complaint
    assert not (tmp_path / "out").exists()


def retuned(tuned: Path, backbone: Path, head: Path, noisy: Path, out: Path, method: str, lr: float) -> Path:
    tune(
        f"local-dir:{backbone}",
        backbone="tiny",
        dataset="shapes-noise",
        data=read_manifest(noisy),
        head=head,
        method=method,
        alpha=0.0,
        regimes={"4": Recipe(lr=lr, batch=6, steps=1, warmup=0)},
        seeds=[0],
        out=out,
        checkpoints=out / "checkpoints",
        device=torch.device("cpu"),
        workers=0,
        initial=tuned,
    )
    return out / "4" / "0"


def test_tuning_further_starts_at_the_run(tuned: Path, backbone: Path, head: Path, noisy: Path, tmp_path: Path) -> None:
    """With a learning rate of almost nought the weights are those it started from, batch statistics aside."""
    start = tuned / "prt" / "4" / "0"
    still = retuned(tuned / "prt", backbone, head, noisy, tmp_path / "still", "prt", 1e-12)
    moved = retuned(tuned / "prt", backbone, head, noisy, tmp_path / "moved", "prt", 1e-2)
    manifests = [reward_files.read_manifest(folder) for folder in (start, still, moved)]
    weights = [reward_files.read_weights(f, m) for f, m in zip((start, still, moved), manifests, strict=True)]
    names = [name for name in weights[0] if "running" not in name and "num_batches" not in name]
    assert all(torch.allclose(weights[0][n], weights[1][n], atol=1e-7) for n in names)
    assert not all(torch.allclose(weights[0][n], weights[2][n], atol=1e-4) for n in names)
    assert manifests[1]["initial_sha256"] == manifests[0]["weights_sha256"]
    assert manifests[0]["initial_sha256"] is None


def test_tuning_further_needs_a_run_of_its_kind(
    tuned: Path, backbone: Path, head: Path, noisy: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="holds a run of method ft; go on from one of prt"):
        retuned(tuned / "ft", backbone, head, noisy, tmp_path, "prt", 1e-3)
    with pytest.raises(InputError, match=r"reward manifest .* does not exist"):
        retuned(tmp_path / "nowhere", backbone, head, noisy, tmp_path, "prt", 1e-3)


N, CLASSES = 30, ["a", "b", "c"]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, list[Path]]:
    """Two targets and two seeds of a reward, on clean and noisy images."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 3, (N,), generator=generator)
    made: dict[str, list[Path]] = {"pretrained": [], "untuned": [], "tuned": []}

    def write(role: str, dataset: str, backbone: str, seed: int | None) -> None:
        path = tmp_path / f"{role}.{dataset}.{backbone}.{seed}.safetensors"
        prt = role != "pretrained"
        values = torch.randn(N, 3, generator=generator)
        facts = {"dataset": dataset, "fingerprint": dataset, "labels": labels, "classes": CLASSES, "seed": seed}
        facts |= {"backbone": backbone, "method": "prt" if prt else "pretrained", "alpha": 0.0 if prt else None}
        scores(values=values, kind="reward" if prt else "log_probs", shots="16", **facts).save(path)
        made[role].append(path)

    for dataset in ("shapes", "shapes-noise"):
        for backbone in ("old", "new"):
            write("pretrained", dataset, backbone, None)
        for seed in (0, 1):
            write("untuned", dataset, "old", seed)
    for seed in (0, 1):
        write("tuned", "shapes-noise", "old", seed)
    return made


def test_the_table_against_sums_by_hand(files: dict[str, list[Path]], prt: Prt, tmp_path: Path) -> None:
    arguments = [x for role, paths in files.items() for path in paths for x in (f"--{role}", path)]
    code, _, complaint = prt("noise", *arguments, "--out", tmp_path / "table5.csv")
    assert code == 0, complaint
    table = pd.read_csv(tmp_path / "table5.csv")
    top1 = table[table.metric == "top1"].set_index(["dataset", "target", "reward"])
    assert len(top1) == 2 * (1 + 1) + 2 * (1 + 1 + 1)
    assert set(table.source) == {"old"}
    for (dataset, target, reward), row in top1.iterrows():
        here = [p for p in files["pretrained"] if f".{dataset}.{target}." in p.name]
        model = Scores.load(here[0])
        if reward == "none":
            expected = [(model.values.argmax(-1) == model.labels).double().mean().item()]
        else:
            rewards = [Scores.load(p).values for p in files[reward] if f".{dataset}." in p.name]
            expected = [((model.values + r).argmax(-1) == model.labels).double().mean().item() for r in rewards]
        assert row["value"] == pytest.approx(np.mean(expected))
        assert row["seeds"] == len(expected)
        assert row["low"] <= row["value"] <= row["high"]


def test_scores_of_different_images_are_refused(files: dict[str, list[Path]], tmp_path: Path) -> None:
    wrong = Scores.load(files["tuned"][0])
    other = scores(**(vars(wrong) | {"labels": wrong.labels.roll(1)}))
    other.save(tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="were scored on different examples"):
        noise_table(files["pretrained"], files["untuned"], [tmp_path / "other.safetensors"])
    with pytest.raises(InputError, match="both needed"):
        noise_table([], files["untuned"], files["tuned"])
