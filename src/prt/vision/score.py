"""Scoring: a classifier over a split."""

import copy
import signal
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from prt.progress import progress
from prt.training import Recipe
from prt.vision.backbones import Classifier, preprocess
from prt.vision.datasets import Images

BATCH = 128  # also an evaluation's at 224 pixels: more would take gigabytes on a CPU


class Prepared(Dataset[Tensor]):
    """Images of a split through a backbone's deterministic transform: uint8 (3, S, S)."""

    def __init__(self, images: Images, preprocess_cfg: dict[str, Any]) -> None:
        self.images, self.transform = images, preprocess(preprocess_cfg)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.transform(self.images.picture(index))


def ignore_signals(_worker: int) -> None:
    """A cluster signals all processes of a job; the workers live until the main one has written its checkpoint."""
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


def prepared(images: Images, preprocess_cfg: dict[str, Any], workers: int) -> Iterator[Tensor]:
    """Batches of a split in order, uint8 (B, 3, S, S), decoded by ``workers`` processes (0: in this one)."""
    return iter(
        DataLoader(
            Prepared(images, preprocess_cfg), batch_size=BATCH, num_workers=workers, worker_init_fn=ignore_signals
        )
    )


def frozen(classifier: Classifier, recipe: Recipe) -> Classifier:
    """A copy for inference, in eval mode, its tower in the recipe's precision.

    The tower is cast itself: under autocast a frozen network casts its weights anew at every call.
    """
    classifier = copy.deepcopy(classifier).eval().requires_grad_(False)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[recipe.precision]
    classifier.tower.to(dtype)
    return classifier


@torch.no_grad()
def score(classifier: Classifier, batches: Iterator[Tensor], total: int, name: str) -> Tensor:
    """Logits (N, L) on the CPU, in float32, of a classifier that :func:`frozen` made."""
    device = classifier.head.device
    rows = []
    with progress(name, total, "image") as bar:
        for images in batches:
            rows.append(classifier(images.to(device, non_blocking=True)).cpu())
            bar.update(len(images))
    return torch.cat(rows)
