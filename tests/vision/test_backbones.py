"""Backbones: small real networks of open_clip's own classes."""

import json
import shutil
from pathlib import Path

import open_clip
import pytest
import torch
from PIL import Image

from prt.atomic import read_tensors, write_tensors
from prt.errors import InputError
from prt.vision import names
from prt.vision.backbones import Classifier, build_tower, load_backbone, preprocess
from prt.vision.head import load_head
from prt.vision.prepared import Images, decode, read_manifest


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


def test_names_are_open_clip_s() -> None:
    assert set(names.models()) == set(open_clip.list_models())
    for model in ("RN50", "RN50-quickgelu", "ViT-B-16", "roberta-ViT-B-32"):
        for tag in open_clip.list_pretrained_tags_by_model(model):
            quick = open_clip.get_pretrained_cfg(model, tag).get("quick_gelu", False)
            if quick == open_clip.get_model_config(model).get("quick_gelu", False):
                names.check_spec(f"{model}/{tag}")


def test_bad_backbones(backbone: Path, tmp_path: Path) -> None:
    for spec, sentence in {
        "ViT-B-61/openai": r"unknown open_clip model 'ViT-B-61': did you mean 'ViT-B-16'\?",
        "ViT-B-16": "names no weights",
        "ViT-B-16/laion2b": r"unknown pretrained tag or checkpoint file of ViT-B-16 'laion2b'",
        "RN50/openai": "need the model RN50-quickgelu: write RN50-quickgelu/openai",
        "ViT-B-16/openai": "need the model ViT-B-16-quickgelu: write ViT-B-16-quickgelu/openai",
        "ViT-B-16/datacomp_xl_s13b_b90k": "could not be loaded",  # not on this machine, and no network
        f"local-dir:{tmp_path}": "there is no backbone in",
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


def test_damaged_folders(backbone: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(backbone, tmp_path / "damaged"))
    config = json.loads((folder / "open_clip_config.json").read_text())
    own = config["preprocess_cfg"]
    for damage, sentence in (
        (None, "has no 'preprocess_cfg': add the mean and std .and size, …. of its training"),
        ({}, "is wrong .mean: Field required.; correct it"),
        (own | {"std": [0, 0, 0]}, "is wrong .std.0: Input should be greater than 0.; correct it"),
        (own | {"mean": [0.5]}, "is wrong .mean: List should have at least 3 items"),
        (own | {"size": 0}, "is wrong .size"),
    ):
        changed = {key: value for key, value in (config | {"preprocess_cfg": damage}).items() if value is not None}
        (folder / "open_clip_config.json").write_text(json.dumps(changed))
        with pytest.raises(InputError, match=sentence):
            load_backbone(str(folder))
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    tensors, header = read_tensors(folder / "open_clip_model.safetensors", "weights")
    tensors["visual.layer1.0.conv1.weight"][0, 0] = float("nan")
    write_tensors(folder / "open_clip_model.safetensors", tensors, header)
    with pytest.raises(InputError, match=r"the weights in .*damaged hold NaN or infinity \('visual.layer1.0.conv1"):
        load_backbone(str(folder))


def test_an_image_of_any_mode(backbone: Path, tmp_path: Path) -> None:
    transform = preprocess(load_backbone(str(backbone)).preprocess_cfg)
    for mode in ("L", "RGB", "RGBA", "P", "CMYK", "I;16"):
        path = tmp_path / "image.tif"
        Image.new(mode, (50, 20)).save(path)
        assert transform(decode(path.read_bytes(), "image")).shape == (3, 32, 32)
