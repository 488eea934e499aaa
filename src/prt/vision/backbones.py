"""Backbones: CLIPs of open_clip, each with its own preprocessing, as classifiers of uint8 images."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional as F

from prt.atomic import check_finite, only_files, read_json, remove, write_json, write_tensors
from prt.errors import InputError, first_line
from prt.hub import refuse_code
from prt.reward import Preprocessing
from prt.vision import configuration
from prt.vision.clip import Compose, PILToTensor, open_clip
from prt.vision.names import CONFIG, LOCAL, check_spec, folder_of

WEIGHTS = "open_clip_model.safetensors"


@dataclass
class Backbone:
    """A pretrained CLIP: the network, its tokenizer, and what is needed to build its image tower again."""

    spec: str
    clip: Any  # one of open_clip's classes
    tokenizer: Callable[[list[str]], Tensor]
    model_cfg: dict[str, Any]
    preprocess_cfg: dict[str, Any]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all weights as they were loaded: two networks of one architecture are told apart."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.clip.state_dict().items()):
            digest.update(name.encode() + tensor.cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


def load_backbone(spec: str) -> Backbone:
    """Load ``MODEL/PRETRAINED``, where PRETRAINED is a tag of open_clip or a checkpoint, or ``local-dir:FOLDER``.

    A local-dir is a folder in open_clip's own format (configuration and weights), as the miniature family is. What its
    configuration may say is in :mod:`prt.vision.configuration`.

    Raises:
        InputError: for an unknown model or tag, weights that cannot be had or do not fit, a quickgelu mismatch, or an
            option that a file may not set.
    """
    check_spec(spec)
    if (folder := folder_of(spec)) is not None:
        return _load_local(folder)
    model, _, pretrained = spec.partition("/")
    model_cfg = open_clip.get_model_config(model)
    try:
        for part in ("hf_model_name", "hf_tokenizer_name"):  # of some text towers; open_clip would let transformers ask
            if there := model_cfg["text_cfg"].get(part):
                refuse_code(there)
        clip = open_clip.create_model(model, pretrained=pretrained, require_pretrained=True, weights_only=True)
        tokenizer = _tokenizer(model, model_cfg)
    except Exception as error:  # network, cache, wrong shapes: open_clip raises many kinds
        raise InputError(
            f"the weights of {spec} could not be loaded ({first_line(error)}); fetch them where there is a "
            "network (`snakemake fetch`), or name a checkpoint that fits."
        ) from error
    check_finite(clip.state_dict(), f"the weights of {spec}")
    return Backbone(spec, clip, tokenizer, model_cfg, dict(clip.visual.preprocess_cfg))


def read_config(folder: Path) -> dict[str, Any]:
    """What a folder in open_clip's format says of its network (``model_cfg``) and preprocessing (``preprocess_cfg``).

    Raises:
        InputError: if it is missing or damaged, lacks one of the two (open_clip would make something up), or has an
            option that a file may not set.
    """
    config = read_json(folder / CONFIG, "backbone configuration")
    configuration.check(config.get("model_cfg"), str(folder / CONFIG))
    if not isinstance(config.get("preprocess_cfg"), dict):
        raise InputError(
            f"{folder / CONFIG} has no 'preprocess_cfg': add the mean and std (and size, …) of its training."
        )
    try:
        Preprocessing.model_validate(config["preprocess_cfg"])
    except ValidationError as error:
        raise InputError(f"'preprocess_cfg' in {folder / CONFIG} is wrong ({first_line(error)}); correct it.") from None
    return config


def _load_local(folder: Path) -> Backbone:
    only_files(folder)
    config, name = read_config(folder), f"{LOCAL}{folder}"
    if _has_tokenizer(config["model_cfg"]):
        refuse_code(str(folder))
    try:
        clip = open_clip.create_model(name, require_pretrained=True, weights_only=True)
        tokenizer = _tokenizer(name, config["model_cfg"])
    except Exception as error:  # missing, truncated or wrong-shaped weights: open_clip raises many kinds
        raise InputError(
            f"the backbone {folder} could not be loaded ({first_line(error)}); delete the folder and make it again."
        ) from error
    check_finite(clip.state_dict(), f"the weights in {folder}")
    return Backbone(name, clip, tokenizer, config["model_cfg"], dict(clip.visual.preprocess_cfg))


def _has_tokenizer(model_cfg: dict[str, Any]) -> bool:
    """Whether a network's tokenizer is one of transformers', not open_clip's own."""
    return bool(model_cfg.get("text_cfg", {}).get("hf_tokenizer_name"))


def _tokenizer(name: str, model_cfg: dict[str, Any]) -> Any:
    return open_clip.get_tokenizer(name, **({"trust_remote_code": False} if _has_tokenizer(model_cfg) else {}))


def save_backbone(
    out: Path,
    weights: dict[str, Tensor],
    model_cfg: dict[str, Any],
    preprocess_cfg: dict[str, Any],
    facts: dict[str, Any],
) -> None:
    """Write a folder in open_clip's own format, which ``local-dir:`` loads without a network.

    Args:
        out: gets open_clip_model.safetensors, then open_clip_config.json: a folder with the latter is whole.
        facts: where the weights come from; kept in both files under ``prt``.
    """
    remove(out / CONFIG)
    write_tensors(out / WEIGHTS, weights, facts)
    write_json(out / CONFIG, {"model_cfg": model_cfg, "preprocess_cfg": preprocess_cfg, "prt": facts})


def fetch_backbone(spec: str, out: Path) -> None:
    """Load a backbone, from the network where it must, and write it as a folder for ``local-dir:``.

    Raises:
        InputError: as for ``load_backbone``; for a model whose tokenizer is not open_clip's own, which such a folder
            could not give back.
    """
    loaded = load_backbone(spec)
    if not isinstance(loaded.tokenizer, open_clip.SimpleTokenizer):
        raise InputError(
            f"the tokenizer of {spec} is a {type(loaded.tokenizer).__name__}, which a folder of open_clip does not "
            "hold; choose a model with open_clip's own tokenizer."
        )
    save_backbone(out, loaded.clip.state_dict(), loaded.model_cfg, loaded.preprocess_cfg, {"spec": spec})


class Classifier(nn.Module):
    """An image tower with a frozen zero-shot head: uint8 images (N, 3, S, S) → logits (N, L) in float32.

    logits = scale · normalise(tower(image)) · headᵀ. Only the tower is ever trained (App. B.1).
    """

    head: Tensor
    scale: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, tower: nn.Module, head: Tensor, scale: Tensor, preprocess_cfg: dict[str, Any]) -> None:
        super().__init__()
        # Convolutions are faster with channels last; transformers do not mind.
        self.tower = tower.to(memory_format=torch.channels_last)
        self.register_buffer("head", head)
        self.register_buffer("scale", scale)
        for name in ("mean", "std"):
            value = torch.tensor(preprocess_cfg[name]).reshape(1, 3, 1, 1)
            self.register_buffer(name, value, persistent=False)

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the tower's weights."""
        return next(self.tower.parameters()).dtype

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, L) of uint8 images (N, 3, S, S)."""
        return self.logits(self.normalised(images))

    def normalised(self, images: Tensor) -> Tensor:
        """What the tower sees of uint8 images (N, 3, S, S), in its own precision."""
        x = (images / 255 - self.mean) / self.std
        return x.to(self.dtype, memory_format=torch.channels_last)

    def logits(self, x: Tensor) -> Tensor:
        """Logits (N, L) of images that are :meth:`normalised`."""
        features = self.tower(x)
        # Half precision has too few digits for logits of this size: the head is computed in float32.
        with torch.autocast(x.device.type, enabled=False):
            return self.scale * F.normalize(features.float(), dim=-1) @ self.head.T


def build_tower(model_cfg: dict[str, Any], where: str = "the configuration") -> nn.Module:
    """An image tower without weights, from open_clip's model configuration, which stands in the file ``where``.

    Raises:
        InputError: for an option that a file may not set.
    """
    configuration.check({key: model_cfg[key] for key in model_cfg if key != "text_cfg"}, where)
    vision = open_clip.CLIPVisionCfg(**{**model_cfg["vision_cfg"], "timm_model_pretrained": False})
    return open_clip.model._build_vision_tower(model_cfg["embed_dim"], vision, model_cfg.get("quick_gelu", False))


def preprocess(preprocess_cfg: dict[str, Any], augment: bool = False) -> Compose:
    """The backbone's own transform from an RGB picture to a uint8 tensor (3, S, S).

    It is open_clip's without its last two steps (to float, normalise), which the classifier does on its device.
    ``augment``: a random resized crop of scale (0.9, 1), open_clip's for training.
    """
    own = open_clip.transform
    transform = own.image_transform_v2(own.PreprocessCfg(**preprocess_cfg), augment, own.AugmentationCfg())
    return Compose([*transform.transforms[:-2], PILToTensor()])
