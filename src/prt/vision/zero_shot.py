"""The pretrained model: its zero-shot heads for data sets, and its scores with them."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from prt.errors import known
from prt.recipe import PRECISIONS
from prt.scores import check_same_labels
from prt.vision.backbones import load_backbone
from prt.vision.head import load_head, make_head
from prt.vision.prepared import Manifest
from prt.vision.score import SCORED, Split, write_scores


@dataclass(frozen=True)
class ZeroShot:
    """A data set called ``dataset``, the file of its head, and the folder for the scores.

    ``make_head``: without, the head is another data set's with the same labels, which is there already or made for a
    data set before this one (Table 5: noisy images take the head of the clean ones).
    """

    dataset: str
    data: Manifest
    head: Path
    out: Path
    make_head: bool = True


def zero_shot(
    spec: str,
    backbone: str,
    data_sets: Iterable[ZeroShot],
    *,
    device: torch.device,
    workers: int,
    precision: str = "fp32",
) -> None:
    """Make the heads of a backbone for data sets, and score it on their validation and test splits.

    Args:
        spec: see :func:`prt.vision.backbones.load_backbone`; ``backbone`` is its name.
        precision: fp32, bf16 or fp16, as in a recipe.

    Raises:
        InputError: if the backbone or a head cannot be had, or a head has other labels than its data set.
    """
    known(precision, PRECISIONS, "precision")
    loaded = load_backbone(spec)
    loaded.clip.to(device)
    for on in data_sets:
        if on.make_head:
            make_head(loaded, on.data.classes, on.data.templates, on.head)
        classifier, header = load_head(on.head, loaded)
        check_same_labels(header["classes"], on.data.classes, f"the head {on.head}", f"the data set {on.data.folder}")
        splits = [Split(on.data, name, loaded.preprocess_cfg, workers) for name in SCORED]
        write_scores(
            classifier.to(device), splits, precision, on.out, method="pretrained", backbone=backbone, dataset=on.dataset
        )
