"""The difference of a fine-tuned and a pretrained network's weights, added to another pretraining of the same network.

Task arithmetic (Ilharco et al., ICLR 2023): one network and one forward pass, where the architectures are one.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from prt import reward
from prt.cell import Cell
from prt.errors import InputError
from prt.scores import check_same_labels
from prt.vision.backbones import load_backbone
from prt.vision.head import load_head
from prt.vision.prepared import Manifest
from prt.vision.score import SCORED, Split, write_scores

TOWER = "tower."


@dataclass(frozen=True)
class Merged:
    """A cell with its scale (``strength``), the folder of the source's fine-tuned model, and that for the scores."""

    cell: Cell
    tuned: Path
    out: Path


def added(target: dict[str, Tensor], tuned: dict[str, Tensor], pretrained: dict[str, Tensor], scale: float) -> None:
    """Add scale · (tuned − pretrained) to the weights ``target``, in place.

    Running variances stay at 0 or more; whole numbers, which count batches, stay as they are.

    Raises:
        InputError: naming the first tensor that not all have, in one shape.
    """
    for name in sorted(target.keys() | tuned.keys() | pretrained.keys()):
        shapes = [tuple(of[name].shape) if name in of else None for of in (target, tuned, pretrained)]
        if len(set(shapes)) > 1:
            raise InputError(
                f"a difference of weights is of one architecture, but the target's '{name}' has shape {shapes[0]}, and "
                f"the source's {shapes[1]}; take a target of the source's architecture."
            )
        if target[name].is_floating_point():
            target[name].add_(tuned[name] - pretrained[name], alpha=scale)
            if name.endswith("running_var"):
                target[name].clamp_(min=0)


@torch.no_grad()
def merge(
    source: str,
    target: str,
    head: Path,
    merged: Sequence[Merged],
    *,
    data: Manifest,
    precision: str,
    device: torch.device,
    workers: int,
) -> None:
    """Score a target with differences of weights on it, on the validation and test splits.

    Args:
        source, target: see :func:`prt.vision.backbones.load_backbone`.
        head: file of the target's zero-shot head for ``data``.

    Raises:
        InputError: if the architectures differ, a run is none of ``source``, or a network or the head cannot be had.
    """
    backbone, before = load_backbone(target), load_backbone(source)
    pretrained = {f"{TOWER}{name}": value for name, value in before.clip.visual.state_dict().items()}
    classifier, header = load_head(head, backbone)
    check_same_labels(header["classes"], data.classes, f"the head {head}", f"the data set {data.folder}")
    splits = [Split(data, name, backbone.preprocess_cfg, workers) for name in SCORED]
    for split in splits:  # all see the same images
        split.pixels()
    for one in merged:
        manifest = reward.read_manifest(one.tuned)
        if manifest["backbone"]["weights"] != before.fingerprint:
            raise InputError(
                f"{one.tuned} was tuned from {manifest['backbone']['name']}, whose weights are not those of {source}; "
                "tune it again."
            )
        weights = reward.read_weights(one.tuned, manifest)
        tuned = {name: value for name, value in weights.items() if name.startswith(TOWER)}
        network = copy.deepcopy(classifier)
        own = {name: value for name, value in network.state_dict().items() if name.startswith(TOWER)}
        assert one.cell.strength is not None
        added(own, tuned, pretrained, one.cell.strength)
        facts = {"backbone": one.cell.target} | {
            key: getattr(one.cell, key) for key in ("dataset", "shots", "seed", "source", "strength")
        }
        write_scores(network.to(device), splits, precision, one.out, method="difference", **facts)
