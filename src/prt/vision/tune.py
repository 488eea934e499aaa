"""Fine-tuning and reward tuning of an image tower (Algorithm 1)."""

import copy
import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from prt import combine, objective, reward
from prt.atomic import remove, write_text
from prt.cell import Run
from prt.errors import InputError
from prt.methods import REWARDS
from prt.recipe import Recipe
from prt.reference import drawn
from prt.scores import check_same_labels
from prt.training import autocast, fit
from prt.vision.backbones import Classifier, load_backbone, preprocess
from prt.vision.head import load_head
from prt.vision.prepared import Images, Manifest, batches_of, few_shot
from prt.vision.score import SCORED, Split, frozen, ignore_signals, write_scores

# uint8 images, labels, log π_pt where it is there already, and β, of all examples or of each (N, 1).
Batch = tuple[Tensor, Tensor, Tensor | None, Tensor | float]


class Further(NamedTuple):
    """A further pretrained model: its specification, and the file of its zero-shot head for the data set."""

    spec: str
    head: Path


@dataclass(frozen=True)
class Tuning:
    """One run of a job.

    Attributes:
        run: what is tuned; a run of method ``adapted`` starts from ``initial``, others as the pretrained model.
        out: the run's own folder, for weights, manifest, curve and scores.
        checkpoint: the file to resume from.
        every: iterations between evaluations of the curve, 0 for none.
        initial: folder of a reward.
        references: the further pretrained models that the recipe names, in its order.
    """

    run: Run
    recipe: Recipe
    out: Path
    checkpoint: Path
    every: int = 0
    initial: Path | None = None
    references: tuple[Further, ...] = ()

    def __post_init__(self) -> None:
        alpha, shots = self.run.alpha or 0.0, self.run.shots
        if not 0 <= alpha < float("inf"):
            raise InputError(
                f"alpha is {alpha}, but the weight of entropy maximisation cannot be negative; use 0 or more."
            )
        if shots != "full" and not (shots.isdecimal() and int(shots) > 0):
            raise InputError(f"the number of shots is '{shots}'; use a whole number above 0, or 'full'.")
        if (self.run.method == "adapted") != (self.initial is not None):
            raise InputError(f"the run {self.run.name} needs a reward to start from if and only if it is 'adapted'.")
        if len(self.references) != len(self.recipe.references):
            raise InputError(
                f"the recipe of the run {self.run.name} names {len(self.recipe.references)} further models, but "
                f"{len(self.references)} were given; give each."
            )


class Augmented(Dataset[tuple[Any, ...]]):
    """Training images through backbones' random transforms; an item is (index, seed of its draw).

    What comes of it is the image as each backbone sees it, all of one crop, then its label and its index.
    """

    def __init__(self, images: Images, *preprocess_cfgs: dict[str, Any]) -> None:
        self.images, self.transforms = images, [preprocess(cfg, augment=True) for cfg in preprocess_cfgs]

    def __getitem__(self, item: tuple[int, int]) -> tuple[Any, ...]:
        index, seed = item
        views, picture = [], self.images.picture(index)
        for transform in self.transforms:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                views.append(transform(picture))
        return *views, int(self.images.labels[index]), index


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
        cfg = self.backbone.preprocess_cfg
        self.splits = {name: Split(data, name, cfg, workers) for name in ("train", *SCORED)}
        self.pretrained.to(device)
        self._references: dict[tuple[Any, ...], Tensor] = {}
        self._further: dict[Further, tuple[Classifier, dict[str, Any], str]] = {}

    def reference(self, split: str, precision: str, further: Further | None = None) -> Tensor:
        """log π_pt (N, L) of a split, of the source or of a further model, computed once."""
        key = (split, precision, further)
        if key not in self._references:
            model, seen = self.pretrained, self.splits[split]
            if further is not None:
                model, cfg, _ = self.further(further)
                seen = Split(self.data, split, cfg, self.workers)
            self._references[key] = combine.log_probs(seen.logits(model.to(self.device), precision))
        return self._references[key]

    def further(self, model: Further) -> tuple[Classifier, dict[str, Any], str]:
        """A further pretrained model with its head, its preprocessing and the fingerprint of its weights.

        Raises:
            InputError: if it cannot be had, or its head has other labels.
        """
        if model not in self._further:
            backbone = load_backbone(model.spec)
            classifier, header = load_head(model.head, backbone)
            what = f"the head {model.head}"
            check_same_labels(header["classes"], self.data.classes, what, f"the data set {self.data.folder}")
            self._further[model] = (classifier, backbone.preprocess_cfg, str(header["weights"]))
        return self._further[model]

    def batches(
        self, recipe: Recipe, chosen: np.ndarray, seed: int, cached: Sequence[Tensor], further: Sequence[Further] = ()
    ) -> Callable[[int], Iterable[Batch]]:
        """Training batches from any iteration on, augmented or not.

        Args:
            cached: log π_pt of the source and of each further model, where images are not augmented.
            further: the further models, where they are.
        """
        train = self.splits["train"]
        total = len(train)

        def beside(step: int, examples: Tensor) -> tuple[Tensor | float, Tensor]:
            if recipe.plain:
                return 1.0, torch.zeros(len(examples), dtype=torch.int64)
            beta, model = drawn(recipe, seed, step, examples, total)
            return beta[:, None].to(self.device), model

        if recipe.augment:
            models = [self.further(model) for model in further]
            source = Augmented(train.images, self.backbone.preprocess_cfg, *(cfg for _, cfg, _ in models))
            live = [frozen(model).to(self.device) for model in (self.pretrained, *(m for m, _, _ in models)) if models]

            def augmented(start: int) -> Iterator[Batch]:
                draws = Draws(chosen, recipe.batch, seed, start, recipe.steps)
                loader = DataLoader(
                    source, batch_sampler=draws, num_workers=self.workers, worker_init_fn=ignore_signals
                )
                for step, (*views, truth, examples) in enumerate(loader, start):
                    beta, model = beside(step, examples)
                    seen = _log_probs(live, views, model, recipe.precision) if models else None
                    yield views[0].to(self.device), truth.to(self.device), seen, beta

            return augmented
        pixels, labels = train.pixels(), train.labels
        stacked = torch.stack(list(cached)) if cached else None  # (models, N, L)

        def plain(start: int) -> Iterator[Batch]:
            for step, indices in enumerate(batches_of(chosen, recipe.batch, seed, start), start):
                at = torch.from_numpy(indices)
                beta, model = beside(step, at) if stacked is not None else (1.0, at)
                kept = None if stacked is None else stacked[model, at].to(self.device)
                yield pixels[at].to(self.device), labels[at].to(self.device), kept, beta

        return plain

    def run(self, tuning: Tuning, name: str = "tune") -> tuple[Classifier, list[dict[str, float]]]:
        """Tune once. Algorithm 1: θ starts as the pretrained weights; v = β·log π_pt(x) + r(x; θ); only θ learns.

        With deterministic input log π_pt is computed once and kept; with augmentation the frozen networks see the
        same augmented images. ``name`` is the progress bar's.

        Returns:
            The network, and the evaluations of its curve: accuracies on the test split.
        """
        run, recipe, rewarding = tuning.run, tuning.recipe, tuning.run.method in REWARDS
        alpha, train, test = run.alpha or 0.0, self.splits["train"], self.splits["test"]
        chosen = few_shot(train.images.labels, run.shots, run.seed)
        if not recipe.augment:
            train.pixels()
        if tuning.every:
            test.pixels()
        network = copy.deepcopy(self.pretrained)
        identity = [self.data.fingerprint, self.head["sha256"], run.method, alpha, run.shots, run.seed]
        if tuning.initial is not None:
            identity.append(self._start_from(tuning.initial, network))
        network.requires_grad_(False).tower.requires_grad_(True)
        further = tuning.references if rewarding else ()
        identity += [self.further(model)[2] for model in further]
        seen = (None, *further) if rewarding and not recipe.augment else ()
        cached = [self.reference("train", recipe.precision, model) for model in seen]
        live = frozen(self.pretrained) if rewarding and recipe.augment and not further else None

        def evaluate() -> dict[str, float]:
            outputs = test.logits(network, recipe.precision)
            if not rewarding:
                return {"ft": accuracy(outputs, test.labels)}
            tuned = combine.prt(self.reference("test", recipe.precision), outputs)
            return {"prt": accuracy(tuned, test.labels), "reward": accuracy(outputs, test.labels)}

        torch.manual_seed(run.seed)
        curve = fit(
            network,
            loss_of(network, run.method, alpha, recipe, live),
            self.batches(recipe, chosen, run.seed, cached, further),
            recipe,
            name=name,
            checkpoint=tuning.checkpoint,
            identity=identity,
            evaluate=evaluate if tuning.every else None,
            every=tuning.every,
        )
        return network.eval(), curve

    def _start_from(self, initial: Path, network: Classifier) -> str:
        """Give ``network`` the weights of the reward ``initial``; their hash."""
        manifest = reward.read_manifest(initial)
        if manifest["method"] not in REWARDS:
            raise InputError(f"{initial} holds a run of method {manifest['method']}; go on from a reward (prt).")
        check_same_labels(manifest["classes"], self.data.classes, f"the run {initial}", str(self.data.folder))
        reward.load_weights(network, reward.read_weights(initial, manifest), initial / reward.WEIGHTS)
        return manifest["weights_sha256"]

    def write(self, tuning: Tuning, network: Classifier, curve: list[dict[str, float]]) -> None:
        """Write a tuned network to its run's folder: its scores, its curve, its weights and, last, the manifest."""
        run, folder = tuning.run, tuning.out
        remove(folder / reward.MANIFEST)  # a folder with a manifest is whole
        rewarding = run.method in REWARDS
        facts: dict[str, Any] = {"method": run.method, "shots": run.shots, "seed": run.seed}
        facts["alpha"] = (run.alpha or 0.0) if rewarding else None
        facts |= {"variant": run.variant} if run.variant else {}
        write_scores(
            network,
            [self.splits[name] for name in SCORED],
            tuning.recipe.precision,
            folder,
            backbone=run.model,
            dataset=run.dataset,
            **facts,
        )
        text = io.StringIO()
        columns = ["iteration", "prt", "reward"] if rewarding else ["iteration", "ft"]
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(curve)
        write_text(folder / "curve.csv", text.getvalue())
        initial = tuning.initial and reward.read_manifest(tuning.initial)["weights_sha256"]
        reward.save(
            folder,
            network,
            facts
            | {
                "kind": "vision",
                "backbone": {"name": run.model, "spec": self.backbone.spec, "weights": self.head["weights"]}
                | {key: self.head[key] for key in ("model_cfg", "preprocess_cfg")},
                "dataset": {"name": run.dataset, "fingerprint": self.data.fingerprint},
                "classes": self.data.classes,
                "templates": self.head["templates"],
                "recipe": tuning.recipe.model_dump(),
                "head_sha256": self.head["sha256"],
                "initial_sha256": initial,
            }
            | self._beside(tuning),
        )

    def _beside(self, tuning: Tuning) -> dict[str, Any]:
        """What a manifest says of further models, where there are any: their names and their weights."""
        found = zip(tuning.recipe.references, tuning.references, strict=True)
        weights = {name: self.further(model)[2] for name, model in found if tuning.run.method in REWARDS}
        return {"references": weights} if weights else {}


@torch.no_grad()
def _log_probs(models: Sequence[Classifier], views: Sequence[Tensor], chosen: Tensor, precision: str) -> Tensor:
    """log π_pt (N, L) of N images, each by the model of its number in ``chosen`` and as that sees it."""
    device = models[0].head.device
    found = torch.empty(len(chosen), len(models[0].head), device=device)
    for number, (model, view) in enumerate(zip(models, views, strict=True)):
        mine = chosen == number
        if mine.any():
            with autocast(precision, device):
                found[mine.to(device)] = combine.log_probs(model(view[mine].to(device)))
    return found


def loss_of(
    network: Classifier, method: str, alpha: float, recipe: Recipe, live: Classifier | None = None
) -> Callable[[Batch], Tensor]:
    """Algorithm 1's loss of a batch, for ``method`` ft, or prt or adapted.

    ``live`` is the frozen network, needed where a batch does not bring its log π_pt along.
    """

    def loss(batch: Batch) -> Tensor:
        images, labels, log_pt, beta = batch
        with autocast(recipe.precision, images.device):
            outputs = network(images)
        if method == "ft":
            return objective.ft_loss(outputs, labels)
        if live is not None:
            with torch.no_grad(), autocast(recipe.precision, images.device):
                log_pt = live(images)
        assert log_pt is not None
        return objective.prt_loss(log_pt, outputs, labels, alpha, beta)

    return loss


def accuracy(outputs: Tensor, labels: Tensor) -> float:
    """Top-1 accuracy of outputs (N, L)."""
    return (outputs.argmax(-1) == labels).double().mean().item()


def tune(
    spec: str, tunings: Sequence[Tuning], *, data: Manifest, head: Path, device: torch.device, workers: int
) -> None:
    """Tune every run of one backbone on one data set, and write each to its own folder.

    What is written does not depend on what else the job tunes. A finished run's checkpoint stays until all are
    written: where the job is stopped, and its outputs are thrown away, it is not trained again.

    Args:
        spec: see :func:`prt.vision.backbones.load_backbone`.
        head: file of the backbone's zero-shot head for ``data``.
        workers: processes that decode images (0: none beside this one).

    Raises:
        InputError: for too few images of a class, a loss that is not finite, an ``initial`` that is no reward, …
    """
    tuner = Tuner(spec, head, data, device, workers)
    if len(tunings) > 1:
        for name in SCORED:  # all runs are scored on the same images
            tuner.splits[name].pixels()
    for number, tuning in enumerate(tunings, 1):
        run = tuning.run
        name = f"{run.name} {run.model} {run.dataset} {run.shots}/{run.seed} ({number} of {len(tunings)})"
        tuner.write(tuning, *tuner.run(tuning, name))
    for tuning in tunings:
        remove(tuning.checkpoint)
