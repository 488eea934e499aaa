"""Advice with a real reward on a few labelled images."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.damage import redone
from safetensors.torch import load_file, save_file

from prt.errors import InputError
from prt.scores import Scores
from prt.vision.advise import _merged, examples, ways
from prt.vision.backbones import load_backbone, preprocess
from prt.vision.clip import open_clip
from prt.vision.predict import load_reward, put_on, zero_shot_classifier
from prt.vision.prepared import read_manifest

Prt = Callable[..., tuple[int, str, str]]


def test_every_way_is_what_using_it_would_give(tuned: Path, backbone: Path, dataset: Path, head: Path) -> None:
    """On the source itself: the target alone, and what was tuned, are as they were scored when it was tuned."""
    reward = load_reward(tuned / "prt" / "4" / "0")
    finetuned = load_reward(tuned / "ft" / "4" / "0", method="eft")
    read, labels = examples(dataset, reward.classes)
    found = ways(f"local-dir:{backbone}", reward, finetuned, read, labels)
    scores = Scores.load(tuned / "ft" / "4" / "0" / "validation.safetensors")
    assert torch.equal(labels, scores.labels)
    right = (scores.values.argmax(-1) == labels).numpy()
    for name in ("source's FT kept", "EFT"):  # eq. 3
        assert np.array_equal(found[name], right)
    assert np.array_equal(found["PRT"], found["source's PRT kept"])
    model = put_on(f"local-dir:{backbone}", [reward])
    for name, view in (("PRT", 0), ("target alone", 1)):
        said = torch.stack([v[view] for _, v in model.each((i, read(i)) for i in range(len(labels)))])
        assert np.array_equal(found[name], (said.argmax(-1) == labels).numpy())
    chosen = [name for name in found if "strength chosen" in name]
    assert [name.partition(",")[0] for name in chosen] == ["PRT", "PoE", "EFT"]
    assert len(ways(f"local-dir:{backbone}", reward, None, read, labels)) == 4


def test_the_weight_difference(tuned: Path, backbone: Path, dataset: Path, tmp_path: Path) -> None:
    """On another pretraining of the same network, and only there; on the source it would be its fine-tuned model."""
    reward, finetuned = load_reward(tuned / "prt" / "4" / "0"), load_reward(tuned / "ft" / "4" / "0", method="eft")
    read, labels = examples(dataset, reward.classes)
    own = load_backbone(f"local-dir:{backbone}")
    made = _merged(zero_shot_classifier(own, reward.manifest), finetuned, own, 1.0)
    pixels = torch.stack([preprocess(own.preprocess_cfg)(read(i)) for i in range(8)])
    with torch.no_grad():
        torch.testing.assert_close(
            made.tower(made.normalised(pixels)), finetuned.classifier.tower(made.normalised(pixels))
        )
    other = Path(shutil.copytree(backbone, tmp_path / "other"))
    weights = load_file(other / "open_clip_model.safetensors")
    first = next(name for name in weights if name.startswith("visual") and weights[name].dim() == 4)
    save_file(weights | {first: weights[first] * 1.5}, other / "open_clip_model.safetensors")
    names = list(ways(f"local-dir:{other}", reward, finetuned, read, labels))
    assert [name.partition(" (")[0] for name in names[-2:]] == [
        "weight difference",
        "weight difference, strength chosen",
    ]
    assert "weight difference" not in ways(f"local-dir:{backbone}", reward, finetuned, read, labels)
    assert "weight difference" not in ways(f"local-dir:{other}", reward, None, read, labels)


def test_a_fine_tuned_model_of_another_backbone_is_refused(
    tuned: Path, backbone: Path, dataset: Path, tmp_path: Path
) -> None:
    """By its manifest; one that does not say, by the backbone that it names."""
    reward = load_reward(tuned / "prt" / "4" / "0")
    read, labels = examples(dataset, reward.classes)
    other = Path(shutil.copytree(tuned / "ft" / "4" / "0", tmp_path / "ft"))
    facts = json.loads((other / "manifest.json").read_text())
    for weights, fails in (("0", True), (None, False)):
        known = facts | {"backbone": facts["backbone"] | {"weights": weights}}
        (other / "manifest.json").write_text(json.dumps(known))
        finetuned = load_reward(other, method="poe")
        if fails:
            with pytest.raises(InputError, match="were tuned from different backbones; name a run of ft of the reward"):
                ways(f"local-dir:{backbone}", reward, finetuned, read, labels)
        else:
            assert "EFT" in ways(f"local-dir:{backbone}", reward, finetuned, read, labels)


def test_the_command(
    prt: Prt, tuned: Path, backbone: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ["advise", "--reward", tuned / "prt" / "4" / "0", "--target", f"local-dir:{backbone}", "--device", "cpu"]
    made, create = [], open_clip.create_model
    monkeypatch.setattr(open_clip, "create_model", lambda *args, **of: made.append(args) or create(*args, **of))
    code, said, complaint = prt(*given, "--data", pictures, "--finetuned", tuned / "ft" / "4" / "0")
    assert code == 0, complaint
    assert len(made) == 2  # the target and the source, once each
    *lines, best, verdict = said.splitlines()
    assert len(lines) == 9
    values = [float(re.search(r"  (\d+\.\d) \(", line)[1]) for line in lines]  # type: ignore[index]
    assert values == sorted(values, reverse=True)
    assert best.startswith(f"best on 60 examples: {lines[0].partition('  ')[0]}; ")
    assert verdict.startswith(("these two are told apart", "not told apart: "))

    folder = Path(shutil.copytree(pictures, tmp_path / "pictures"))
    (folder / "cross").rename(folder / "star")
    refused = {folder: "star is none of the reward's labels (circle, cross, square); name it as the label is called"}
    few = tmp_path / "few"
    for name in ("circle", "square"):
        (few / name).mkdir(parents=True)
        shutil.copy(pictures / name / "00.png", few / name)
    refused[few] = "has 2 images, which say nothing; give 10 or more"
    for name in ("train", "test"):
        shutil.copytree(pictures, tmp_path / "split" / name)
    refused[tmp_path / "split"] = "has splits (test, train); name the folder of the one"
    refused[tmp_path / "none"] = "the image folder"
    (tmp_path / "chats.jsonl").write_text("{}")
    refused[tmp_path / "chats.jsonl"] = "the reward is of images, but"
    (tmp_path / "chats").mkdir()
    (tmp_path / "chats" / "manifest.json").write_text('{"kind": "language"}')
    refused[tmp_path / "chats"] = "chats holds no images, but data of kind language; name a data set of images."
    for data, sentence in refused.items():
        code, said, complaint = prt(*given, "--data", data)
        assert (code, said) == (1, "")
        assert sentence in complaint.splitlines()[-1].replace("train, test", "test, train")


def test_a_fine_tuned_model_of_other_labels_or_another_backbone_is_refused(
    tuned: Path, backbone: Path, dataset: Path, tmp_path: Path
) -> None:
    reward = load_reward(tuned / "prt" / "4" / "0")
    read, labels = examples(dataset, reward.classes)

    def refused(why: str, change: Callable[[dict[str, Any]], None]) -> None:
        folder = Path(shutil.copytree(tuned / "ft" / "4" / "0", tmp_path / "ft", dirs_exist_ok=True))
        redone(folder, "manifest.json", change)
        with pytest.raises(InputError, match=why):
            ways(f"local-dir:{backbone}", reward, load_reward(folder, method="eft"), read, labels)

    refused(
        r"the reward .*prt/4/0 and the fine-tuned .*ft have different labels",
        lambda m: m.update(classes=["a", "b", "c"]),
    )
    other = Path(shutil.copytree(backbone, tmp_path / "other"))
    weights = load_file(other / "open_clip_model.safetensors")
    save_file(weights | {"logit_scale": weights["logit_scale"] + 1}, other / "open_clip_model.safetensors")
    theirs = {"spec": f"local-dir:{other}", "weights": load_backbone(f"local-dir:{other}").fingerprint}
    refused(
        "were tuned from different backbones; name a run of ft of the reward's own",
        lambda m: m["backbone"].update(theirs),
    )


def test_a_prepared_data_set_of_other_labels_is_refused(dataset: Path, tmp_path: Path) -> None:
    assert len(examples(dataset, read_manifest(dataset).classes)[1]) == read_manifest(dataset).sizes["validation"][0]
    other = Path(shutil.copytree(dataset, tmp_path / "other"))
    facts = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps(facts | {"classes": ["a", "b", "c"]}))
    with pytest.raises(InputError, match=r"the reward and the data set .* have different labels"):
        examples(other, facts["classes"])
