"""Table 5's noisy copies of a data set, and rewards scored on them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from prt.errors import InputError
from prt.scores import Scores
from prt.vision.predict import load_reward, score_rewards
from prt.vision.prepare import prepare
from prt.vision.prepared import SPLITS, Images, read_manifest

STD, FAINT = 0.1, 0.02


def copied(dataset: Path, out: Path, std: float) -> Path:
    prepare(f"noise:{std}:{dataset}", out, root=out.parent)
    return out


@pytest.fixture(scope="module")
def noisy(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copied(dataset, tmp_path_factory.mktemp("noisy") / "shapes-noise", STD)


def pixels(folder: Path, split: str) -> np.ndarray:
    images = Images(read_manifest(folder), split)
    return np.stack([np.asarray(images.picture(i)) for i in range(len(images))]).astype(float) / 255


def test_noise_is_gaussian_and_clipped(dataset: Path, noisy: Path, tmp_path: Path) -> None:
    clean, other = read_manifest(dataset), read_manifest(noisy)
    assert (other.classes, clean.templates) == (clean.classes, other.templates)
    assert other.fingerprint != clean.fingerprint
    faint = copied(dataset, tmp_path / "faint", FAINT)
    for split in SPLITS:
        assert (Images(clean, split).labels == Images(other, split).labels).all()
        before, after = pixels(dataset, split), pixels(faint, split)
        added = (after - before)[(before > 5 * FAINT) & (before < 1 - 5 * FAINT)]  # where nothing is clipped
        assert len(added) > 1000
        rounding = 1 / 255 / 12**0.5
        assert abs(added.mean()) < 4 * FAINT / len(added) ** 0.5 + rounding / 10
        assert added.std() == pytest.approx(np.hypot(FAINT, rounding), rel=0.05)
    # Dark pixels: what would be negative is black.
    dark = pixels(noisy, "train")[pixels(dataset, "train") < 0.01]
    assert 0.3 < (dark == 0).mean() < 0.6
    # No two images, nor the splits' first ones, share their noise.
    first = [pixels(noisy, s)[0] - pixels(dataset, s)[0] for s in ("train", "test")]
    assert abs(np.corrcoef(first[0].ravel(), first[1].ravel())[0, 1]) < 0.1


def test_noise_is_drawn_once(dataset: Path, noisy: Path, tmp_path: Path) -> None:
    again = copied(dataset, tmp_path / "again", STD)
    assert json.loads((again / "manifest.json").read_text()) == json.loads((noisy / "manifest.json").read_text())


@pytest.mark.parametrize("std", ["0", "-1", "much", "inf", "nan", ""])
def test_wrong_noise(std: str, dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"the noise is '{std}', but its standard deviation"):
        prepare(f"noise:{std}:{dataset}", tmp_path / "out", root=tmp_path)
    assert not (tmp_path / "out").exists()


def test_noise_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"manifest.*does not exist"):
        prepare(f"noise:0.1:{tmp_path / 'nowhere'}", tmp_path / "out", root=tmp_path)


def scored(run: Path, data: Path, out: Path) -> None:
    on = read_manifest(data)
    score_rewards([run], "shapes-noise", on, [out], device=torch.device("cpu"), workers=0)


def test_a_reward_is_scored_on_other_data(tuned: Path, noisy: Path, backbone: Path, tmp_path: Path) -> None:
    run = tuned / "prt" / "4" / "0"
    scored(run, noisy, tmp_path)
    found = Scores.load(tmp_path / "test.safetensors")
    assert (found.kind, found.method, found.shots, found.seed) == ("reward", "prt", "4", 0)
    images = Images(read_manifest(noisy), "test")
    assert torch.equal(found.labels, torch.from_numpy(images.labels))
    # The same as the reward in use: its difference from the target alone, up to a constant per image.
    files = []
    for i in range(len(images)):
        files.append(tmp_path / f"{i}.png")
        files[-1].write_bytes(images[i][0])
    rewarded, plain = load_reward(run).on(f"local-dir:{backbone}").both(files)
    expected = torch.softmax(plain.log() + found.values, -1)
    torch.testing.assert_close(rewarded, expected, atol=1e-4, rtol=1e-3)


def test_other_labels_are_refused(tuned: Path, pictures: Path, tmp_path: Path) -> None:
    prepare(f"folder:{pictures}", tmp_path / "other", root=tmp_path, classes=["circle", "cross", "star"])
    with pytest.raises(InputError, match="have different labels"):
        scored(tuned / "prt" / "4" / "0", tmp_path / "other", tmp_path / "out")
    assert not (tmp_path / "out").exists()
