"""Using a portable reward: in Python and on the command line."""

import copy
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import ExifTags, Image

from prt.atomic import file_hash, read_tensors, write_tensors
from prt.errors import InputError
from prt.scores import Scores
from prt.vision import predict
from prt.vision.backbones import Classifier, preprocess
from prt.vision.predict import Reward, Rewarded, load_reward, put_on, score_rewards
from prt.vision.prepared import Images, decode, read_manifest

Prt = Callable[..., tuple[int, str, str]]


@pytest.fixture
def images(pictures: Path) -> list[Path]:
    return sorted((pictures / "cross").iterdir())[:3]


def pixels_of(model: Rewarded, images: list[Path]) -> torch.Tensor:
    return torch.stack([preprocess(model.preprocess_cfg)(decode(p.read_bytes(), "")) for p in images])


def test_it_is_the_sum_of_target_and_reward(reward: Path, backbone: Path, images: list[Path], tuned: Path) -> None:
    model = load_reward(reward).on(f"local-dir:{backbone}", strength=0.7)
    with_reward, without = model.both(images)
    assert torch.equal(with_reward, model.predict(images))
    torch.testing.assert_close(without, torch.softmax(model.target(pixels_of(model, images)), -1))
    torch.testing.assert_close(with_reward.sum(-1), torch.ones(3))
    raw, _ = read_tensors(reward / "weights.safetensors", "weights")
    assert raw["head"].shape == (3, 64)
    r = load_reward(reward).classifier(pixels_of(model, images))
    torch.testing.assert_close(with_reward, torch.softmax(without.log() + 0.7 * r, -1), atol=1e-5, rtol=1e-4)


def test_pictures_are_read_as_they_are_seen(reward: Path, backbone: Path, images: list[Path], tmp_path: Path) -> None:
    """A picture that its camera turned gives the answer of the upright one."""
    upright = Image.open(images[0])
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    model = load_reward(reward).on(f"local-dir:{backbone}")
    one, other = model.predict([images[0], tmp_path / "turned.png"])
    assert torch.equal(one, other)


def test_batches_give_what_one_batch_gives(
    reward: Path, backbone: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = sorted(pictures.rglob("*.png"))[:7]
    model = load_reward(reward, "cpu").on(f"local-dir:{backbone}")
    whole = model.both(images)
    monkeypatch.setattr(predict, "BATCH", 3)
    calls = []
    model.target.tower.register_forward_hook(lambda *_: calls.append(1))
    for one, other in zip(model.both([str(i) for i in images]), whole, strict=True):
        torch.testing.assert_close(one, other)
    assert len(calls) == 3  # the target runs once for both views


def test_what_both_networks_see_alike_is_made_once(
    reward: Path, backbone: Path, images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Path(shutil.copytree(backbone, tmp_path / "other"))
    config = json.loads((other / "open_clip_config.json").read_text())
    config["preprocess_cfg"]["interpolation"] = "bilinear"
    (other / "open_clip_config.json").write_text(json.dumps(config))
    made: list[torch.Tensor] = []
    normalised = Classifier.normalised
    monkeypatch.setattr(Classifier, "normalised", lambda self, x: made.append(x) or normalised(self, x))
    load_reward(reward).on(f"local-dir:{backbone}").predict(images)
    assert len(made) == 1
    made.clear()
    model = load_reward(reward).on(f"local-dir:{other}")
    with_reward, without = model.both(images)
    assert len(made) == 2
    assert not torch.equal(made[0], made[1])
    alone = load_reward(reward)
    own = preprocess(alone.manifest["backbone"]["preprocess_cfg"])
    rewards = alone.classifier(torch.stack([own(decode(p.read_bytes(), "")) for p in images]))
    torch.testing.assert_close(without, torch.softmax(model.target(pixels_of(model, images)), -1))
    torch.testing.assert_close(with_reward, torch.softmax(without.log() + rewards, -1), atol=1e-5, rtol=1e-4)


def test_a_target_works_in_the_precision_of_its_reward(reward: Path, backbone: Path, images: list[Path]) -> None:
    """As on a GPU, where a reward that was tuned in bf16 is loaded so."""
    whole = load_reward(reward)
    expected = whole.on(f"local-dir:{backbone}").predict(images)
    whole.classifier.tower.bfloat16()
    model = whole.on(f"local-dir:{backbone}")
    assert model.target.dtype == torch.bfloat16
    torch.testing.assert_close(model.predict(images), expected, atol=0.02, rtol=0)


def test_the_command_line(prt: Prt, reward: Path, backbone: Path, images: list[Path]) -> None:
    model = load_reward(reward).on(f"local-dir:{backbone}")
    expected = model.predict(list(images))
    arguments = ["predict", "--reward", reward, "--target", f"local-dir:{backbone}", *images]
    code, out, _ = prt(*arguments, "--json", "--without", "--top", 3)
    assert code == 0
    for entry, row, path in zip(json.loads(out), expected, images, strict=True):
        assert entry["image"] == str(path)
        probabilities = {x["label"]: x["probability"] for x in entry["with_reward"]}
        assert probabilities == pytest.approx(dict(zip(model.classes, row.tolist(), strict=True)))
        assert sum(x["probability"] for x in entry["without_reward"]) == pytest.approx(1)
    code, out, _ = prt(*arguments, "--device", "cpu")
    best = model.classes[expected[0].argmax()]
    assert out.splitlines()[0] == str(images[0])
    assert out.splitlines()[1].split()[:3] == ["with", "reward", best]


def changed(reward: Reward, seed: int) -> Reward:
    """Another reward: the same one with another head."""
    torch.manual_seed(seed)
    other = replace(reward, classifier=copy.deepcopy(reward.classifier))
    with torch.no_grad():
        other.classifier.head.copy_(torch.randn_like(other.classifier.head))
    return other


def test_several_rewards_are_their_weighted_sum(reward: Path, backbone: Path, images: list[Path]) -> None:
    one = load_reward(reward)
    other, target = changed(one, 1), f"local-dir:{backbone}"
    both = put_on(target, [one, other], [0.7, 0.4])
    found, without = both.both(images)
    pixels = pixels_of(both, images)
    expected = torch.softmax(without.log() + 0.7 * one.classifier(pixels) + 0.4 * other.classifier(pixels), -1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(put_on(target, [other, one], [0.4, 0.7]).predict(images), found, atol=1e-6, rtol=1e-5)
    endless = changed(one, 2)
    with torch.no_grad():
        endless.classifier.head.fill_(torch.inf)  # 0 times it is no number
    alone = one.on(target, strength=0.7).predict(images)
    for rewards, strengths in (([one, endless], [0.7, 0]), ([endless, one], [0, 0.7])):
        assert torch.equal(put_on(target, rewards, strengths).predict(images), alone)
    torch.testing.assert_close(put_on(target, [one, other], 0).predict(images), without)
    plain = put_on(target, [one, other]).predict(images)
    assert torch.equal(plain, put_on(target, [one, other], [1, 1]).predict(images))


def test_several_rewards_on_the_command_line(
    prt: Prt, reward: Path, backbone: Path, images: list[Path], tmp_path: Path
) -> None:
    arguments = ["predict", "--target", f"local-dir:{backbone}", *images, "--json", "--reward", reward]
    again = Path(shutil.copytree(reward, tmp_path / "again"))
    alone, halves = prt(*arguments)[1], prt(*arguments, "--reward", again, "--strength", 0.5)[1]
    assert prt(*arguments, "--reward", again, "--strength", 1, "--strength", 0)[:2] == (0, alone)
    for entry, half in zip(json.loads(alone), json.loads(halves), strict=True):
        labels, same = ({x["label"]: x["probability"] for x in e["with_reward"]} for e in (entry, half))
        assert same == pytest.approx(labels, abs=1e-5)
    facts = json.loads((again / "manifest.json").read_text())
    for damage, said in (
        ({"classes": ["circle", "cross", "star"]}, f"the reward {reward} and the reward {again} have different labels"),
        ({"templates": ["an {}"]}, f"the rewards {reward} and {again} were tuned with different prompts (only one has"),
    ):
        (again / "manifest.json").write_text(json.dumps(facts | damage))
        code, _, complaint = prt(*arguments, "--reward", again)
        assert (code, len(complaint.splitlines())) == (1, 1)
        assert said in complaint
    complaint = prt(*arguments, "--strength", 1, "--strength", 2)[2]
    assert "1 reward was given and 2 strengths" in complaint


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
    refused(r"there is no reward in .*reward \(no manifest.json\); name a folder that a reward was tuned to")
    manifest.write_text(json.dumps({k: v for k, v in facts.items() if k != "classes"}))
    refused("lacks 'classes'")
    manifest.write_text(json.dumps({k: v for k, v in facts.items() if k != "templates"}))
    refused("lacks 'templates'")
    for key, damage in {
        "backbone": "tiny",
        "classes": [1, 2, 3],
        "templates": "a {}",
        "method": "dpo",
        "seed": "0",
        "shots": 4,
        "dataset": {},
    }.items():
        manifest.write_text(json.dumps(facts | {key: damage}))
        refused(f"(has a damaged|lacks) '{key}")
    for damage, said in (
        ({"classes": ["a", "b", "b"]}, r"damaged 'classes' \(has the class name 'b' twice"),
        ({"classes": ["a", "b", " "]}, r"damaged 'classes' \(has an empty class name"),
        ({"templates": []}, "damaged 'templates'"),
        ({"templates": ["a digit"]}, r"damaged 'templates' \(has the template 'a digit' without {}"),
        ({"alpha": float("nan")}, "manifest.json is corrupt .*it holds NaN"),
        ({"versions": {"portable-reward-tuning": "99.1.2"}}, "it is of version 99.1.2 of this package; install that"),
    ):
        manifest.write_text(json.dumps(facts | damage))
        refused(said)
    backbone = facts["backbone"]
    for damage, said in (
        ({"model_cfg": None}, "has a damaged 'backbone.model_cfg'"),
        ({"model_cfg": {}}, "cannot be built"),
        ({"preprocess_cfg": {}}, "lacks 'backbone.preprocess_cfg.mean'"),
        (
            {"preprocess_cfg": backbone["preprocess_cfg"] | {"std": [0.1, 0, 0.1]}},
            "damaged 'backbone.preprocess_cfg.std.1'",
        ),
        ({"preprocess_cfg": backbone["preprocess_cfg"] | {"interpolation": "x"}}, "preprocess_cfg.interpolation'"),
    ):
        manifest.write_text(json.dumps(facts | {"backbone": backbone | damage}))
        refused(said)
    manifest.write_text(json.dumps(facts | {"kind": "language"}))
    refused("holds a language reward")
    manifest.write_text(json.dumps(facts | {"method": "ft"}))
    refused("holds a fine-tuned model")
    write_tensors(weights, tensors | {"scale": torch.zeros(2)}, header)
    manifest.write_text(json.dumps(facts | {"weights_sha256": file_hash(weights)}))
    refused(r"'scale' has shape \(2,\), not \(\)")
    first = next(name for name in tensors if name.startswith("tower"))
    for other, said in (
        (torch.full_like(tensors[first], float("nan")), f"hold NaN or infinity .'{first}'"),
        (tensors[first].to(torch.int8), f"'{first}' in .* are of type torch.int8"),
    ):
        write_tensors(weights, tensors | {first: other}, header)
        manifest.write_text(json.dumps(facts | {"weights_sha256": file_hash(weights)}))
        refused(said)
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
    for strength, said in (("nan", "the strength is nan"), ("1e308", "the strength is 1e+308")):
        code, out, complaint = prt(*arguments, tmp_path / "bad.png", "--strength", strength)
        assert (code, out) == (1, "")
        assert said in complaint.splitlines()[-1]
    Image.new("L", (8, 8)).save(tmp_path / "good.png")
    code, out, complaint = prt(*arguments, tmp_path / "good.png", "--strength", "3e38")
    assert (code, out) == (1, "")
    assert "good.png at strength 3e+38 are no numbers; take a strength nearer to 1" in complaint.splitlines()[-1]


def test_rewards_are_scored_on_another_data_set(
    tuned: Path, backbone: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several of one backbone see images that are read once; on their own data the scores are those of the tuning."""
    data, first = read_manifest(dataset), tuned / "prt" / "4" / "0"
    adapted = tmp_path / "adapted"
    shutil.copytree(first, adapted)
    facts = json.loads((adapted / "manifest.json").read_text())
    (adapted / "manifest.json").write_text(json.dumps(facts | {"method": "adapted"}))
    read = []
    picture = Images.picture
    monkeypatch.setattr(Images, "picture", lambda images, i: read.append(i) or picture(images, i))
    outs = [tmp_path / "one", tmp_path / "two"]
    score_rewards([first, adapted], "again", data, outs, device=torch.device("cpu"), workers=0)
    assert len(read) == sum(data.sizes[split][0] for split in ("validation", "test"))
    for out, method in zip(outs, ("prt", "adapted"), strict=True):
        for split in ("validation", "test"):
            there, here = (Scores.load(folder / f"{split}.safetensors") for folder in (first, out))
            assert torch.equal(there.values, here.values)
            assert (here.dataset, here.method, here.kind, here.split) == ("again", method, "reward", split)
            assert (here.backbone, here.shots, here.seed, here.alpha) == ("tiny", "4", 0, 0.0)
    score_rewards([first], "again", data, [tmp_path / "alone"], device=torch.device("cpu"), workers=0)
    assert (tmp_path / "alone" / "test.safetensors").read_bytes() == (outs[0] / "test.safetensors").read_bytes()
    other = replace(data, classes=["circle", "square", "star"])
    with pytest.raises(InputError, match="have different labels"):
        score_rewards([first], "other", other, [tmp_path / "no"], device=torch.device("cpu"), workers=0)
    with pytest.raises(InputError, match="holds a fine-tuned model"):
        score_rewards([tuned / "ft" / "4" / "0"], "x", data, [tmp_path / "no"], device=torch.device("cpu"), workers=0)
    assert not (tmp_path / "no").exists()
