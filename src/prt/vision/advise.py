"""Which way of using a reward on a target is best on a few labelled images: see :mod:`prt.advice`."""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from prt import classification, combine
from prt.advice import FEWEST, RIGHT, STRENGTHS, Values, with_strengths
from prt.errors import InputError
from prt.reward import MANIFEST, read_weights
from prt.scores import check_same_labels
from prt.vision.backbones import Backbone, Classifier, load_backbone, preprocess
from prt.vision.folders import find_folder
from prt.vision.merge import TOWER
from prt.vision.merge import added as add_difference
from prt.vision.parts import Part
from prt.vision.predict import Reward, alike, source_of, zero_shot_classifier
from prt.vision.prepared import Images, decode, read_manifest
from prt.vision.score import BATCH

Read = Callable[[int], Image.Image]


def examples(folder: Path, classes: list[str]) -> tuple[Read, Tensor]:
    """Labelled images: what reads the i-th, and the labels (N,), of ``classes``.

    Args:
        folder: a prepared data set, of which the validation images are taken, or class folders of images.

    Raises:
        InputError: if it is neither, there are fewer than ten, or a class is none of ``classes``.
    """
    if folder.is_file():
        raise InputError(
            f"the reward is of images, but {folder} is a file; name a folder of labelled images, or a prepared data "
            "set."
        )
    if (folder / MANIFEST).is_file():
        data = read_manifest(folder)
        check_same_labels(classes, data.classes, "the reward", f"the data set {folder}")
        images = Images(data, "validation")
        read, labels = images.picture, images.labels.tolist()
    else:
        names, parts = find_folder(folder)
        if list(parts) != ["all"]:
            raise InputError(
                f"{folder} has splits ({', '.join(parts)}); name the folder of the one that is to be used."
            )
        part: Part = parts["all"]
        place = {name: label for label, known in enumerate(classes) for name in (known, known.replace(" ", "_"))}
        if strange := [name for name in names if name not in place]:
            raise InputError(
                f"the class folder {folder / strange[0]} is none of the reward's labels ({', '.join(classes[:5])}"
                f"{', …' if len(classes) > 5 else ''}); name it as the label is called."
            )
        labels = [place[names[label]] for label in part.labels]

        def read(index: int) -> Image.Image:
            return decode(*part.read(index))

    if len(labels) < FEWEST:
        raise InputError(f"{folder} has {len(labels)} images, which say nothing; give {FEWEST} or more.")
    return read, torch.tensor(labels)


def ways(
    target: str, reward: Reward, finetuned: Reward | None, read: Read, labels: Tensor, base: str | None = None
) -> dict[str, Values]:
    """Way → whether it is right on each labelled image (N,); the simplest first.

    They are the target alone; the source's tuned models kept (with the reward, and with fine-tuning, if that is
    given); PRT; PoE, EFT and, on a target of the source's architecture, the weight difference, of the fine-tuned model;
    and what has a strength (the weight difference: a scale) also with that chosen by cross-validation.

    Args:
        finetuned: the source's fine-tuned model, loaded for poe or eft.
        base: the backbone that the reward was tuned from, if it is no longer where its manifest says.

    Raises:
        InputError: if the target or what the reward was tuned from cannot be had, the fine-tuned model has other
            labels or was tuned from another backbone, or an image cannot be read.
    """
    on = load_backbone(target)
    over = zero_shot_classifier(on, reward.manifest)
    own = source_of(reward.folder, reward.manifest["backbone"], base)

    def scored(classifier: Classifier, cfg: dict[str, Any]) -> Tensor:
        return _logits(classifier, cfg, read, len(labels))

    alone, source = (
        scored(alike(copy.deepcopy(classifier), reward.classifier), backbone.preprocess_cfg)
        for backbone, classifier in ((on, over), (own, zero_shot_classifier(own, reward.manifest)))
    )
    rewards = scored(reward.classifier, reward.manifest["backbone"]["preprocess_cfg"])
    found = {"target alone": alone, "source's PRT kept": combine.prt(source, rewards)}
    added = {"PRT": rewards}
    if finetuned is not None:
        check_same_labels(
            reward.classes, finetuned.classes, f"the reward {reward.folder}", f"the fine-tuned {finetuned.folder}"
        )
        known = finetuned.manifest["backbone"]
        theirs = known.get("weights") or source_of(finetuned.folder, known, base).fingerprint  # earlier ones do not say
        if theirs != own.fingerprint:
            raise InputError(
                f"{reward.folder} and {finetuned.folder} were tuned from different backbones; name a run of ft of the "
                "reward's own."
            )
        tuned = scored(finetuned.classifier, finetuned.manifest["backbone"]["preprocess_cfg"])
        found["source's FT kept"] = tuned
        added |= {"PoE": combine.log_probs(tuned), "EFT": combine.log_probs(tuned) - combine.log_probs(source)}
    rights = {name: _right(scores, labels) for name, scores in found.items()}
    sweeps = {
        name: {strength: _right(combine.prt(alone, scores, strength), labels) for strength in STRENGTHS}
        for name, scores in added.items()
    }
    if finetuned is not None and on.fingerprint != own.fingerprint and _same_architecture(on, own):
        sweeps["weight difference"] = {
            scale: _right(scored(_merged(over, finetuned, own, scale), on.preprocess_cfg), labels)
            for scale in STRENGTHS
        }
    return with_strengths(rights, sweeps, RIGHT)


def _same_architecture(*backbones: Backbone) -> bool:
    """Whether backbones differ in their weights alone."""
    shapes = [
        {name: tuple(value.shape) for name, value in backbone.clip.visual.state_dict().items()}
        for backbone in backbones
    ]
    return all(each == shapes[0] for each in shapes)


def _merged(over: Classifier, finetuned: Reward, own: Backbone, scale: float) -> Classifier:
    """A target with the difference of the fine-tuned and the pretrained source's weights: see prt.vision.merge."""
    network = copy.deepcopy(over)
    weights = read_weights(finetuned.folder, finetuned.manifest)  # in full precision, which a loaded model may not be
    tuned = {name.removeprefix(TOWER): value for name, value in weights.items() if name.startswith(TOWER)}
    add_difference(network.tower.state_dict(), tuned, own.clip.visual.state_dict(), scale)
    return alike(network, finetuned.classifier)


def _right(scores: Tensor, labels: Tensor) -> Values:
    return np.asarray((classification.rank(scores, labels) == 0).numpy())


@torch.no_grad()
def _logits(classifier: Classifier, cfg: dict[str, Any], read: Read, count: int) -> Tensor:
    """Logits (N, L) on the CPU, in float64."""
    look, rows = preprocess(cfg), []
    for start in range(0, count, BATCH):
        numbers: Sequence[int] = range(start, min(start + BATCH, count))
        pixels = torch.stack([look(read(i)) for i in numbers]).to(classifier.head.device)
        rows.append(classifier(pixels).double().cpu())
    return torch.cat(rows)
