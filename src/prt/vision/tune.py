"""Fine-tuning and reward tuning of an image tower (Algorithm 1)."""

import copy
import csv
import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from prt import combine, objective, reward
from prt.atomic import remove, write_text
from prt.errors import InputError, known
from prt.progress import progress
from prt.scores import Scores, check_same_labels
from prt.training import Recipe, fit
from prt.vision.backbones import Classifier, load_backbone, preprocess
from prt.vision.datasets import Images, Manifest, batches_of, few_shot
from prt.vision.head import load_head
from prt.vision.score import BATCH, frozen, ignore_signals, prepared, score

Batch = tuple[Tensor, Tensor, Tensor | None]  # uint8 images, labels, cached log π_pt where there is one


class Augmented(Dataset[tuple[Tensor, int]]):
    """Training images through a backbone's random transform; an item is (index, seed of its draw)."""

    def __init__(self, images: Images, preprocess_cfg: dict[str, Any]) -> None:
        self.images, self.transform = images, preprocess(preprocess_cfg, augment=True)

    def __getitem__(self, item: tuple[int, int]) -> tuple[Tensor, int]:
        index, seed = item
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.transform(self.images.picture(index)), int(self.images.labels[index])


class Draws:
    """Batches of (index, seed) from an iteration on: the same whenever the run is resumed."""

    def __init__(self, indices: np.ndarray, batch: int, seed: int, start: int, steps: int) -> None:
        self.arguments, self.start, self.steps = (indices, batch, seed, start), start, steps

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step, chosen in zip(range(self.start, self.steps), batches_of(*self.arguments), strict=False):
            seeds = np.random.default_rng([self.arguments[2], step]).integers(2**62, size=len(chosen))
            yield list(zip(chosen.tolist(), seeds.tolist(), strict=True))

    def __len__(self) -> int:
        return self.steps - self.start


class Tuner:
    """Everything that the runs of one backbone on one data set share: networks, images, frozen log π_pt."""

    def __init__(self, spec: str, head: Path, data: Manifest, device: torch.device, workers: int) -> None:
        self.backbone = load_backbone(spec)
        self.pretrained, self.head = load_head(head, self.backbone)
        check_same_labels(self.head["classes"], data.classes, f"the head {head}", f"the data set {data.folder}")
        self.data, self.device, self.workers = data, device, workers
        self.splits = {split: Images(data, split) for split in ("train", "validation", "test")}
        self.pretrained.to(device)
        self._pixels: dict[str, Tensor] = {}
        self._references: dict[tuple[str, str], Tensor] = {}

    def pixels(self, split: str) -> Tensor:
        """All images of a split through the deterministic transform, uint8 (N, 3, S, S), read once and kept."""
        if split not in self._pixels:
            done = 0
            with progress(f"read {split}", len(self.splits[split]), "image") as bar:
                for batch in self._batches(split):
                    if not done:
                        kept = torch.empty(len(self.splits[split]), *batch.shape[1:], dtype=torch.uint8)
                    kept[done : done + len(batch)] = batch
                    done += len(batch)
                    bar.update(len(batch))
            self._pixels[split] = kept
        return self._pixels[split]

    def _batches(self, split: str) -> Iterator[Tensor]:
        return prepared(self.splits[split], self.backbone.preprocess_cfg, self.workers)

    def score(self, classifier: Classifier, split: str, recipe: Recipe) -> Tensor:
        """Logits (N, L) of a split."""
        images = self._pixels[split].split(BATCH) if split in self._pixels else self._batches(split)
        return score(frozen(classifier), iter(images), len(self.splits[split]), recipe, f"score {split}")

    def reference(self, split: str, recipe: Recipe) -> Tensor:
        """log π_pt (N, L) of a split, computed once."""
        key = (split, recipe.precision)
        if key not in self._references:
            self._references[key] = combine.log_probs(self.score(self.pretrained, split, recipe))
        return self._references[key]

    def scores(self, values: Tensor, split: str, **facts: Any) -> Scores:
        """``values`` (N, L) of a split as scores; ``facts`` say of which model."""
        return Scores(
            values=values,
            labels=torch.from_numpy(self.splits[split].labels),
            fingerprint=self.data.fingerprint,
            split=split,
            classes=self.data.classes,
            **facts,
        )

    def batches(
        self, recipe: Recipe, chosen: np.ndarray, seed: int, cached: Tensor | None
    ) -> Callable[[int], Iterable[Batch]]:
        """Training batches from any iteration on, augmented or not."""
        labels = torch.from_numpy(self.splits["train"].labels)
        if recipe.augment:
            source = Augmented(self.splits["train"], self.backbone.preprocess_cfg)

            def augmented(start: int) -> Iterator[Batch]:
                draws = Draws(chosen, recipe.batch, seed, start, recipe.steps)
                loader = DataLoader(
                    source, batch_sampler=draws, num_workers=self.workers, worker_init_fn=ignore_signals
                )
                for images, truth in loader:
                    yield images.to(self.device), truth.to(self.device), None

            return augmented
        pixels = self.pixels("train")

        def plain(start: int) -> Iterator[Batch]:
            for indices in batches_of(chosen, recipe.batch, seed, start):
                at = torch.from_numpy(indices)
                kept = None if cached is None else cached[at].to(self.device)
                yield pixels[at].to(self.device), labels[at].to(self.device), kept

        return plain

    def run(
        self,
        name: str,
        method: str,
        alpha: float,
        shots: str,
        seed: int,
        recipe: Recipe,
        checkpoint: Path,
        every: int,
        initial: Path | None = None,
    ) -> tuple[Classifier, list[dict[str, float]]]:
        """Tune once. Algorithm 1: θ starts as the pretrained weights; v = log π_pt(x) + r(x; θ); only θ learns.

        ``initial``: a tuned run whose weights θ starts as instead (Table 5).

        With deterministic input log π_pt is computed once and kept; with augmentation the frozen network sees the
        same augmented images.
        """
        chosen = few_shot(self.splits["train"].labels, shots, seed)
        for split, often in (("train", not recipe.augment), ("test", every > 0)):
            if often:
                self.pixels(split)
        network = copy.deepcopy(self.pretrained)
        identity = [self.data.fingerprint, self.head["sha256"], method, alpha, shots, seed]
        if initial is not None:
            manifest = reward.read_manifest(initial)
            if manifest["method"] != method:
                raise InputError(f"{initial} holds a run of method {manifest['method']}; go on from one of {method}.")
            check_same_labels(manifest["classes"], self.data.classes, f"the run {initial}", str(self.data.folder))
            reward.load_weights(network, reward.read_weights(initial, manifest), initial / reward.WEIGHTS)
            identity.append(manifest["weights_sha256"])
        network.requires_grad_(False).tower.requires_grad_(True)
        cached = self.reference("train", recipe) if method == "prt" and not recipe.augment else None
        live = frozen(self.pretrained) if method == "prt" and recipe.augment else None

        def evaluate() -> dict[str, float]:
            truth = torch.from_numpy(self.splits["test"].labels)
            outputs = self.score(network, "test", recipe)
            if method == "ft":
                return {"ft": accuracy(outputs, truth)}
            tuned = combine.prt(self.reference("test", recipe), outputs)
            return {"prt": accuracy(tuned, truth), "reward": accuracy(outputs, truth)}

        torch.manual_seed(seed)
        curve = fit(
            network,
            loss_of(network, method, alpha, recipe, live),
            self.batches(recipe, chosen, seed, cached),
            recipe,
            name=name,
            checkpoint=checkpoint,
            identity=identity,
            evaluate=evaluate if every else None,
            every=every,
        )
        return network.eval(), curve


def loss_of(
    network: Classifier, method: str, alpha: float, recipe: Recipe, live: Classifier | None = None
) -> Callable[[Batch], Tensor]:
    """Algorithm 1's loss of a batch, for ``method`` ft or prt.

    ``live`` is the frozen network, needed where a batch does not bring its log π_pt along.
    """

    def loss(batch: Batch) -> Tensor:
        images, labels, log_pt = batch
        with recipe.autocast(images.device):
            outputs = network(images)
        if method == "ft":
            return objective.ft_loss(outputs, labels)
        if live is not None:
            with torch.no_grad(), recipe.autocast(images.device):
                log_pt = live(images)
        assert log_pt is not None
        return objective.prt_loss(log_pt, outputs, labels, alpha)

    return loss


def accuracy(outputs: Tensor, labels: Tensor) -> float:
    """Top-1 accuracy of outputs (N, L)."""
    return (outputs.argmax(-1) == labels).double().mean().item()


def tune(
    spec: str,
    *,
    backbone: str,
    dataset: str,
    data: Manifest,
    head: Path,
    method: str,
    alpha: float,
    regimes: dict[str, Recipe],
    seeds: list[int],
    out: Path,
    checkpoints: Path,
    device: torch.device,
    workers: int,
    every: int = 0,
    initial: Path | None = None,
) -> None:
    """Tune every regime × seed, and write each to ``out/SHOTS/SEED``: weights, manifest, curve and scores.

    Args:
        spec: see :func:`prt.vision.backbones.load_backbone`; ``backbone`` and ``dataset`` are its and the data's names.
        method: ``ft`` or ``prt``; ``alpha`` is the latter's weight of entropy maximisation.
        regimes: recipe of each number of shots ('full': all training images).
        every: iterations between evaluations of the curve, 0 for none.
        initial: folder of SHOTS/SEED whose runs are tuned further; without, every run starts as the pretrained model.

    Raises:
        InputError: for negative alpha, too few images of a class, a loss that is not finite, …
    """
    known(method, ("ft", "prt"), "tuning method")
    if not 0 <= alpha < float("inf"):
        raise InputError(f"alpha is {alpha}, but the weight of entropy maximisation cannot be negative; use 0 or more.")
    for shots in regimes:
        if shots != "full" and not (shots.isdecimal() and int(shots) > 0):
            raise InputError(f"the number of shots is '{shots}'; use a whole number above nought, or 'full'.")
    tuner = Tuner(spec, head, data, device, workers)
    for shots, recipe in regimes.items():
        for seed in seeds:
            name = f"{method} α={alpha:g} {backbone} {dataset} {shots}/{seed}"
            checkpoint = checkpoints / shots / f"{seed}.safetensors"
            start = initial and initial / shots / str(seed)
            network, curve = tuner.run(name, method, alpha, shots, seed, recipe, checkpoint, every, start)
            folder = out / shots / str(seed)
            remove(folder / reward.MANIFEST)  # a folder with a manifest is whole
            facts: dict[str, Any] = {
                "backbone": backbone,
                "method": method,
                "shots": shots,
                "seed": seed,
                "dataset": dataset,
            }
            for split in ("validation", "test"):
                logits = tuner.score(network, split, recipe)
                if method == "ft":
                    scores = tuner.scores(combine.log_probs(logits), split, kind="log_probs", **facts)
                else:
                    scores = tuner.scores(logits, split, kind="reward", alpha=alpha, **facts)
                scores.save(folder / f"{split}.safetensors")
            columns = ["iteration", "ft"] if method == "ft" else ["iteration", "prt", "reward"]
            text = io.StringIO()
            writer = csv.DictWriter(text, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(curve)
            write_text(folder / "curve.csv", text.getvalue())
            reward.save(
                folder,
                network,
                facts
                | {
                    "kind": "vision",
                    "alpha": alpha if method == "prt" else None,
                    "backbone": {"name": backbone, "spec": tuner.backbone.spec}
                    | {key: tuner.head[key] for key in ("model_cfg", "preprocess_cfg")},
                    "dataset": {"name": dataset, "fingerprint": data.fingerprint},
                    "classes": data.classes,
                    "templates": tuner.head["templates"],
                    "recipe": asdict(recipe),
                    "head_sha256": tuner.head["sha256"],
                    "initial_sha256": start and reward.read_manifest(start)["weights_sha256"],
                },
            )
    for shots in regimes:
        for seed in seeds:
            (checkpoints / shots / f"{seed}.safetensors").unlink(missing_ok=True)
