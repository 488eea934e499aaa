"""Using a portable reward: put it on any target and predict (Algorithm 2)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prt import combine, reward
from prt.errors import InputError
from prt.scores import check_same_labels
from prt.vision.backbones import Backbone, Classifier, build_tower, load_backbone, preprocess
from prt.vision.datasets import decode
from prt.vision.head import load_head, zero_shot_head


@dataclass(frozen=True)
class Reward:
    """A trained reward network: images → raw rewards of ``classes``."""

    classifier: Classifier
    manifest: dict[str, Any]

    @property
    def classes(self) -> list[str]:
        """Label names in order."""
        return self.manifest["classes"]

    def on(self, target: str, head: Path | None = None, strength: float = 1.0) -> "Rewarded":
        """Put the reward on ``target`` (see :func:`prt.vision.backbones.load_backbone`), at strength 1/λ.

        The target's zero-shot head is made of the reward's own labels and prompts, or read from ``head``.

        Raises:
            InputError: if the target or its head cannot be had, or the head has other labels.
        """
        backbone: Backbone = load_backbone(target)
        if head is None:
            weight = zero_shot_head(backbone, self.classes, self.manifest["templates"])
            scale = backbone.clip.logit_scale.detach().exp()
            classifier = Classifier(backbone.clip.visual, weight, scale, backbone.preprocess_cfg)
        else:
            classifier, header = load_head(head, backbone)
            check_same_labels(self.classes, header["classes"], "the reward", f"the target's head {head}")
        return Rewarded(self, classifier.eval(), backbone.preprocess_cfg, strength)


@dataclass(frozen=True)
class Rewarded:
    """A target with a reward on it."""

    reward: Reward
    target: Classifier
    preprocess_cfg: dict[str, Any]
    strength: float

    @torch.no_grad()
    def predict(self, images: Sequence[str | Path], without: bool = False) -> Tensor:
        """Probabilities (N, L) of image files; ``without``: the target's own, the reward left out.

        Raises:
            InputError: if an image is missing or cannot be decoded.
        """
        pictures = []
        for name in images:
            if not Path(name).is_file():
                raise InputError(f"the image {name} does not exist; correct the path.")
            pictures.append(decode(Path(name).read_bytes(), str(name)))

        def outputs(classifier: Classifier, preprocess_cfg: dict[str, Any]) -> Tensor:
            transform = preprocess(preprocess_cfg)
            return classifier(torch.stack([transform(picture) for picture in pictures]))

        plain = outputs(self.target, self.preprocess_cfg)
        if without:
            return combine.log_probs(plain).exp()
        rewards = outputs(self.reward.classifier, self.reward.manifest["backbone"]["preprocess_cfg"])
        return combine.prt(plain, rewards, self.strength).exp()


def load_reward(folder: str | Path) -> Reward:
    """Load a reward that ``prt vision tune --method prt`` wrote.

    Raises:
        InputError: if the folder is no whole vision reward, or its weights are damaged.
    """
    folder = Path(folder)
    manifest = reward.read_manifest(folder)
    if manifest["kind"] != "vision":
        raise InputError(f"{folder} holds a {manifest['kind']} reward; use a vision reward on a vision model.")
    if manifest["method"] != "prt":
        raise InputError(
            f"{folder} holds a fine-tuned model (method {manifest['method']}), no reward; tune with method prt."
        )
    weights = reward.read_weights(folder, manifest)
    backbone = manifest["backbone"]
    shape = (len(manifest["classes"]), backbone["model_cfg"]["embed_dim"])
    network = Classifier(
        build_tower(backbone["model_cfg"]), torch.empty(shape), torch.empty(()), backbone["preprocess_cfg"]
    )
    reward.load_weights(network, weights, folder / reward.WEIGHTS)
    return Reward(network.eval(), manifest)
