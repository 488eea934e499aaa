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


def frozen(classifier: Classifier) -> Classifier:
    """A copy for inference, in eval mode.

    Its parameters keep requiring gradients, which nothing computes: autocast keeps the weights that it casts only
    of such parameters, and would else cast them anew for every layer that shares them and every call.
    """
    return copy.deepcopy(classifier).eval()


@torch.no_grad()
def score(classifier: Classifier, batches: Iterator[Tensor], total: int, recipe: Recipe, name: str) -> Tensor:
    """Logits (N, L) on the CPU, in float32, of a :func:`frozen` classifier, in the precision it is trained in."""
    device = classifier.head.device
    rows = []
    with progress(name, total, "image") as bar:
        for images in batches:
            with recipe.autocast(device):
                rows.append(classifier(images.to(device)).cpu())
            bar.update(len(images))
    return torch.cat(rows)
