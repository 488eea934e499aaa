"""Stand-ins for CLIPs: open_clip's own classes, narrow, shallow and of small pictures, with random weights."""

from pathlib import Path
from typing import Any

import torch

from prt.atomic import fingerprint
from prt.errors import known
from prt.vision.backbones import save_backbone
from prt.vision.clip import open_clip

HEAD_WIDTH = 8  # of attention; its published value is 64


def make(spec: str, out: Path) -> None:
    """Write a stand-in for an open_clip tag as the folder that its download becomes.

    It has the tag's class of network, preprocessing, mean and standard deviation, and QuickGELU where the tag has it.

    Args:
        spec: ``MODEL/TAG``.
        out: gets open_clip_model.safetensors, then open_clip_config.json.

    Raises:
        InputError: if open_clip has no such model.
    """
    model, _, tag = spec.partition("/")
    known(model, open_clip.list_models(), "open_clip model")
    model_cfg, own = small(open_clip.get_model_config(model)), open_clip.get_pretrained_cfg(model, tag)
    torch.manual_seed(int(fingerprint(spec)[:8], 16))
    network = open_clip.CLIP(**model_cfg)
    preprocess_cfg = {key: own[key] for key in ("mean", "std", "interpolation", "resize_mode")}
    preprocess_cfg["size"] = model_cfg["vision_cfg"]["image_size"]
    save_backbone(out, network.state_dict(), model_cfg, preprocess_cfg, {"spec": spec, "stand_in": True})


def small(whole: dict[str, Any]) -> dict[str, Any]:
    """A model configuration with the same class of towers, and all sizes small; larger ones stay larger.

    The vocabulary and the length of texts stay, as they are the tokenizer's.
    """
    vision, text = dict(whole["vision_cfg"]), dict(whole["text_cfg"])
    if "timm_model_name" in vision:
        vision["timm_model_name"] = "test_convnext"  # timm's own ConvNeXt for tests
        vision["image_size"] //= 7
    elif isinstance(vision["layers"], list):  # a ResNet; its attention at the end has a head for each 2 of the width
        vision |= {"layers": [1 + blocks // 12 for blocks in vision["layers"]], "width": 8, "image_size": 32}
    else:
        patch = vision["patch_size"] // 2
        vision |= {"layers": vision["layers"] // 12, "width": vision["width"] // 32, "head_width": HEAD_WIDTH}
        vision |= {"patch_size": patch, "image_size": 4 * patch}
    text |= {"width": text["width"] // 16, "heads": 2, "layers": 1}
    return whole | {"embed_dim": whole["embed_dim"] // 16, "vision_cfg": vision, "text_cfg": text}
