"""Using a portable reward: in Python and on the command line."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from prt.errors import InputError
from prt.files import read_tensors, write_tensors
from prt.vision.predict import load_reward

Prt = Callable[..., tuple[int, str, str]]


@pytest.fixture
def images(pictures: Path) -> list[Path]:
    return sorted((pictures / "cross").iterdir())[:3]


def test_it_is_the_sum_of_target_and_reward(reward: Path, backbone: Path, images: list[Path], tuned: Path) -> None:
    model = load_reward(reward).on(f"local-dir:{backbone}", strength=0.7)
    with_reward, without = model.predict(images), model.predict(images, without=True)
    torch.testing.assert_close(with_reward.sum(-1), torch.ones(3))
    raw, _ = read_tensors(reward / "weights.safetensors", "weights")
    assert raw["head"].shape == (3, 64)
    from prt.vision.backbones import preprocess
    from prt.vision.datasets import decode

    pixels = [preprocess(model.preprocess_cfg)(decode(p.read_bytes(), "")) for p in images]
    r = model.reward.classifier(torch.stack(pixels))
    torch.testing.assert_close(with_reward, torch.softmax(without.log() + 0.7 * r, -1), atol=1e-5, rtol=1e-4)


def test_the_command_line(prt: Prt, reward: Path, backbone: Path, images: list[Path]) -> None:
    model = load_reward(reward).on(f"local-dir:{backbone}")
    expected = model.predict(list(images))
    arguments = ["predict", "--reward", reward, "--target", f"local-dir:{backbone}", *images]
    code, out, _ = prt(*arguments, "--json", "--without", "--top", 3)
    assert code == 0
    for entry, row, path in zip(json.loads(out), expected, images, strict=True):
        assert entry["image"] == str(path)
        probabilities = {x["label"]: x["probability"] for x in entry["with_reward"]}
        assert probabilities == pytest.approx(dict(zip(model.reward.classes, row.tolist(), strict=True)))
        assert sum(x["probability"] for x in entry["without_reward"]) == pytest.approx(1)
    code, out, _ = prt(*arguments)
    best = model.reward.classes[expected[0].argmax()]
    assert out.splitlines()[0] == str(images[0])
    assert out.splitlines()[1].split()[:3] == ["with", "reward", best]


def test_other_labels_are_refused(
    prt: Prt, reward: Path, backbone: Path, head: Path, images: list[Path], tmp_path: Path
) -> None:
    tensors, header = read_tensors(head, "head")
    arguments = ["predict", "--reward", reward, "--target", backbone, images[0], "--head", tmp_path / "h"]
    write_tensors(tmp_path / "h", tensors, header | {"classes": ["circle", "cross", "star"]})
    code, _, complaint = prt(*arguments)
    assert code == 1
    assert "only the reward has 'square'; only the target's head" in complaint
    assert "has 'star'" in complaint
    write_tensors(tmp_path / "h", tensors, header | {"classes": header["classes"][::-1]})
    code, _, complaint = prt(*arguments)
    assert code == 1
    assert "in another order" in complaint
    write_tensors(tmp_path / "h", tensors, header)
    assert prt(*arguments)[0] == 0


def test_damaged_rewards(reward: Path) -> None:
    weights, manifest = reward / "weights.safetensors", reward / "manifest.json"
    whole, facts = weights.read_bytes(), json.loads(manifest.read_text())
    tensors, header = read_tensors(weights, "weights")

    def refused(sentence: str) -> None:
        with pytest.raises(InputError, match=sentence):
            load_reward(reward)
        weights.write_bytes(whole)
        manifest.write_text(json.dumps(facts))

    weights.write_bytes(whole[:-1])
    refused("truncated or corrupt")
    flipped = bytearray(whole)
    flipped[-1] ^= 1
    weights.write_bytes(flipped)
    refused("is not the one its manifest describes")
    weights.unlink()
    refused("does not exist")
    manifest.write_text(manifest.read_text()[:-20])
    refused("manifest.json is corrupt")
    manifest.unlink()
    refused("does not exist")
    manifest.write_text(json.dumps({k: v for k, v in facts.items() if k != "classes"}))
    refused("lacks 'classes'")
    manifest.write_text(json.dumps(facts | {"kind": "language"}))
    refused("holds a language reward")
    manifest.write_text(json.dumps(facts | {"method": "ft"}))
    refused("holds a fine-tuned model")
    write_tensors(weights, tensors | {"scale": torch.zeros(2)}, header)
    from prt.files import file_hash

    manifest.write_text(json.dumps(facts | {"weights_sha256": file_hash(weights)}))
    refused(r"'scale' has shape \(2,\), not \(\)")
    manifest.write_text(json.dumps(facts | {"classes": ["a", "b"]}))
    refused(r"'head' has shape \(3, 64\), not \(2, 64\)")
    assert load_reward(reward).classes == facts["classes"]


def test_bad_images(prt: Prt, reward: Path, backbone: Path, tmp_path: Path) -> None:
    arguments = ["predict", "--reward", reward, "--target", backbone]
    assert "none.png does not exist" in prt(*arguments, tmp_path / "none.png")[2]
    (tmp_path / "bad.png").write_bytes(b"\x89PNG half")
    code, out, complaint = prt(*arguments, tmp_path / "bad.png")
    assert (code, out) == (1, "")
    assert "bad.png cannot be read" in complaint
