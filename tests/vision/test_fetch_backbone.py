"""A backbone that was fetched is the same without a network."""

import copy
import json
from pathlib import Path

import open_clip
import pytest
import torch

from prt.errors import InputError
from prt.miniature.pretrain import ARCHITECTURES
from prt.vision.backbones import Classifier, fetch_backbone, load_backbone


@pytest.mark.parametrize("model", ["RN50-quickgelu", "convnext_base"])
def test_a_backbone_without_a_network(model: str, tmp_path: Path) -> None:
    """A folder of a fetched model gives the same features, head, preprocessing and tokens as the model itself."""
    clip = open_clip.create_model(model, precision="fp32")
    torch.save(clip.state_dict(), tmp_path / "weights.pt")
    spec = f"{model}/{tmp_path / 'weights.pt'}"
    fetch_backbone(spec, tmp_path / "folder")
    config = json.loads((tmp_path / "folder" / "open_clip_config.json").read_text())
    assert config["prt"] == {"spec": spec}
    assert config["model_cfg"] == open_clip.get_model_config(model)
    before, after = load_backbone(spec), load_backbone(f"local-dir:{tmp_path / 'folder'}")
    assert after.fingerprint == before.fingerprint
    assert json.dumps(after.preprocess_cfg) == json.dumps(before.preprocess_cfg)  # but for lists and tuples
    texts = ["a photo of a cat.", "a  Photo, of 12 DOGS"]
    assert torch.equal(after.tokenizer(texts), before.tokenizer(texts))
    pixels = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    features = []
    for loaded in (before, after):
        loaded.clip.eval()
        # With a head of ones in the diagonal the logits are the features.
        head = torch.eye(config["model_cfg"]["embed_dim"])
        images = Classifier(loaded.clip.visual, head, torch.tensor(1.0), loaded.preprocess_cfg)
        with torch.no_grad():
            features.append((images(pixels), loaded.clip.encode_text(loaded.tokenizer(texts), normalize=True)))
    for ours, theirs in zip(*features, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


def test_a_backbone_whose_tokenizer_is_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder could not give back a tokenizer of the hub's, so none is written."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1}, "[UNK]")))
    words.save_pretrained(tmp_path / "words")
    config = copy.deepcopy(ARCHITECTURES["vit-s"])
    config["text_cfg"] |= {"hf_tokenizer_name": str(tmp_path / "words")}
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", {"RN50": config})
    torch.save(open_clip.create_model("RN50").state_dict(), tmp_path / "weights.pt")
    with pytest.raises(InputError, match="is a HFTokenizer, which a folder of open_clip does not hold; choose a model"):
        fetch_backbone(f"RN50/{tmp_path / 'weights.pt'}", tmp_path / "folder")
    assert not (tmp_path / "folder").exists()
