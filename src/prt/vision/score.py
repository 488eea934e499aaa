"""Scoring: classifiers over the splits of a data set."""

import copy
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from prt.combine import log_probs
from prt.methods import REWARDS
from prt.progress import progress
from prt.scores import Scores
from prt.training import autocast
from prt.vision.backbones import Classifier, preprocess
from prt.vision.prepared import Images, Manifest

BATCH = 128  # also an evaluation's at 224 pixels: more would take gigabytes on a CPU
SCORED = ("validation", "test")


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


def frozen(classifier: Classifier) -> Classifier:
    """A copy for inference, in eval mode.

    Its parameters keep requiring gradients, which nothing computes: autocast keeps the weights that it casts only
    of such parameters, and would else cast them anew for every layer that shares them and every call.
    """
    return copy.deepcopy(classifier).eval()


class Split:
    """A split of N images as a backbone sees them, decoded by ``workers`` processes (0: in this one)."""

    def __init__(self, data: Manifest, name: str, preprocess_cfg: dict[str, Any], workers: int) -> None:
        self.data, self.name, self.workers = data, name, workers
        self.images = Images(data, name)
        self.labels = torch.from_numpy(self.images.labels)
        self._prepared = Prepared(self.images, preprocess_cfg)
        self._pixels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)

    def pixels(self) -> Tensor:
        """All images, uint8 (N, 3, S, S), read once and kept: later passes read nothing."""
        if self._pixels is None:
            done = 0
            with progress(f"read {self.name}", len(self), "image") as bar:
                for batch in self._batches():
                    if not done:
                        kept = torch.empty(len(self), *batch.shape[1:], dtype=torch.uint8)
                    kept[done : done + len(batch)] = batch
                    done += len(batch)
                    bar.update(len(batch))
            self._pixels = kept
        return self._pixels

    def _batches(self) -> Iterable[Tensor]:
        """Images in order, uint8 (B, 3, S, S)."""
        if self._pixels is not None:
            return self._pixels.split(BATCH)
        return DataLoader(self._prepared, batch_size=BATCH, num_workers=self.workers, worker_init_fn=ignore_signals)

    @torch.no_grad()
    def logits(self, classifier: Classifier, precision: str) -> Tensor:
        """Logits (N, L) of a :func:`frozen` copy on the CPU, in float32, in the precision it is trained in."""
        network, device, rows = frozen(classifier), classifier.head.device, []
        with progress(f"score {self.name}", len(self), "image") as bar:
            for images in self._batches():
                with autocast(precision, device):
                    rows.append(network(images.to(device)).cpu())
                bar.update(len(images))
        return torch.cat(rows)


def write_scores(
    classifier: Classifier, splits: Iterable[Split], precision: str, out: Path, *, method: str, **facts: Any
) -> None:
    """Score a model of ``method`` on splits, and write each one's scores to ``out/SPLIT.safetensors``.

    They are raw rewards where the model is a reward, and otherwise log-probabilities. ``facts`` say which model it is
    (see :class:`prt.scores.Scores`).
    """
    for split in splits:
        logits = split.logits(classifier, precision)
        Scores(
            values=logits if method in REWARDS else log_probs(logits),
            labels=split.labels,
            kind="reward" if method in REWARDS else "log_probs",
            method=method,
            fingerprint=split.data.fingerprint,
            split=split.name,
            classes=split.data.classes,
            **facts,
        ).save(out / f"{split.name}.safetensors")
