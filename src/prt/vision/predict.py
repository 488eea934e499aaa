"""Using portable rewards: put one or several on any target and predict (Algorithm 2)."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from PIL import Image
from torch import Tensor

from prt import combine, reward
from prt.errors import InputError, first_line
from prt.methods import METHODS, SOURCE_PRETRAINED
from prt.recipe import Recipe
from prt.scores import check_same_labels
from prt.vision.backbones import Backbone, Classifier, build_tower, load_backbone, preprocess
from prt.vision.fused import Fused
from prt.vision.head import load_head, zero_shot_head
from prt.vision.inputs import picture
from prt.vision.prepared import Manifest
from prt.vision.score import BATCH, SCORED, Split, write_scores

Name = TypeVar("Name")


@dataclass(frozen=True)
class Reward:
    """A trained reward network: images → raw rewards of ``classes``; or the fine-tuned one that ``method`` takes.

    ``folder``: where it was loaded from. ``pretrained``: the zero-shot classifier that it was tuned from, with its
    preprocessing, where the method subtracts that.
    """

    classifier: Classifier
    manifest: dict[str, Any]
    folder: Path
    method: str = "prt"
    pretrained: tuple[Classifier, dict[str, Any]] | None = None

    @property
    def classes(self) -> list[str]:
        """Label names in order."""
        return self.manifest["classes"]

    @property
    def added(self) -> list[tuple[int, Classifier, dict[str, Any]]]:
        """What is put on a target: sign, network, preprocessing."""
        own = (self.classifier, self.manifest["backbone"]["preprocess_cfg"])
        source = self.pretrained or own  # a method that subtracts it has it
        return [(s, *(source if network == SOURCE_PRETRAINED else own)) for s, network in METHODS[self.method].added]

    def on(self, target: str, head: Path | None = None, strength: float = 1.0) -> "Rewarded":
        """Put the reward on ``target`` at strength 1/λ: see :func:`put_on`."""
        return put_on(target, [self], strength, head)


@dataclass(frozen=True)
class Rewarded:
    """A target with one reward or several on it.

    ``classes``: label names in order. ``added``: what is put on the target: weight, network, preprocessing.
    """

    target: Classifier
    preprocess_cfg: dict[str, Any]
    classes: list[str]
    added: list[tuple[float, Classifier, dict[str, Any]]]

    def predict(self, images: Sequence[str | Path]) -> Tensor:
        """Probabilities (N, L) of image files.

        Raises:
            InputError: if an image is missing or cannot be decoded.
        """
        return self.both(images)[0]

    def both(self, images: Sequence[str | Path]) -> tuple[Tensor, Tensor]:
        """Probabilities (N, L) of image files with the reward, and the target's own without it, on the CPU.

        Raises:
            InputError: if an image is missing or cannot be decoded, or the strength is too great for it.
        """
        views = [views for _, views in self.each((image, picture(image)) for image in images)]
        with_reward, without = torch.stack(views, dim=1)
        return with_reward, without

    @torch.no_grad()
    def each(self, pictures: Iterable[tuple[Name, Image.Image]]) -> Iterator[tuple[Name, Tensor]]:
        """Probabilities (2, L) of named pictures, with the reward and without it, on the CPU, batch by batch.

        Raises:
            InputError: if the strength is too great for one.
        """
        device = self.target.head.device
        weights, networks, cfgs = zip(*self.added, strict=True)
        fused = Fused([self.target, *networks])
        looks = [preprocess(cfg) for cfg in (self.preprocess_cfg, *cfgs)]
        transforms = {str(look): look for look in looks}  # what several see alike is made once
        seen = ((name, [look(image) for look in transforms.values()]) for name, image in pictures)
        while some := list(itertools.islice(seen, BATCH)):
            names, pixels = zip(*some, strict=True)
            stacked = (torch.stack(rows).to(device) for rows in zip(*pixels, strict=True))
            batch = dict(zip(transforms, stacked, strict=True))
            plain, *added = fused([batch[str(look)] for look in looks])
            rewarded = combine.prt(plain, added, weights)
            views = torch.stack([rewarded, combine.log_probs(plain)], dim=1).exp().cpu()
            if len(wrong := (~views.isfinite()).flatten(1).any(1).nonzero()):
                raise InputError(
                    f"the probabilities of {names[int(wrong[0])]} at strength {max(map(abs, weights)):g} are no "
                    "numbers; take a strength nearer to 1, the paper's."
                )
            yield from zip(names, views, strict=True)


def put_on(
    target: str, rewards: Sequence[Reward], strengths: float | Sequence[float] = (), head: Path | None = None
) -> Rewarded:
    """Put rewards on ``target`` (see :func:`prt.vision.backbones.load_backbone`), on the device that all are on.

    The target's zero-shot head is made of the rewards' own labels and prompts, or read from ``head``.

    Args:
        strengths: 1/λ of each, or of all; default: 1, the paper's.

    Raises:
        InputError: if target or head cannot be had, the head has other labels, the rewards have different labels, or
            different prompts and there is no head, or the strengths are not as many or not finite.
    """
    chosen = combine.strengths_for(len(rewards), strengths)
    first = rewards[0]
    for other in rewards[1:]:
        check_same_labels(first.classes, other.classes, *(f"the reward {r.folder}" for r in (first, other)))
        strange = set(first.manifest["templates"]) ^ set(other.manifest["templates"])
        if strange and head is None:
            raise InputError(
                f"the rewards {first.folder} and {other.folder} were tuned with different prompts (only one has "
                f"{min(strange)!r}), so it is not known with which the target is to be asked; name its head."
            )
    pairs = combine.working(rewards, chosen)
    added = [(sign * strength, net, cfg) for reward, strength in pairs for sign, net, cfg in reward.added]
    like = pairs[0][0]
    backbone: Backbone = load_backbone(target)
    if head is None:
        classifier = zero_shot_classifier(backbone, like.manifest)
    else:
        classifier, header = load_head(head, backbone)
        check_same_labels(first.classes, header["classes"], "the reward", f"the target's head {head}")
    return Rewarded(alike(classifier, like.classifier), backbone.preprocess_cfg, first.classes, added)


def zero_shot_classifier(backbone: Backbone, manifest: dict[str, Any]) -> Classifier:
    """The zero-shot classifier of a backbone, for the labels and the prompts in the manifest of what was tuned."""
    weight = zero_shot_head(backbone, manifest["classes"], manifest["templates"])
    return Classifier(backbone.clip.visual, weight, backbone.clip.logit_scale.detach().exp(), backbone.preprocess_cfg)


def alike(classifier: Classifier, other: Classifier) -> Classifier:
    """``classifier`` for inference, on the device and in the precision of ``other``."""
    classifier = classifier.to(other.head.device)
    classifier.tower.to(other.dtype)
    return classifier.eval()


def load_reward(
    folder: str | Path, device: str | torch.device = "cpu", method: str = "prt", base: str | None = None
) -> Reward:
    """Load a tuned reward, or a fine-tuned model to be used as one, for use on ``device``.

    Args:
        method: prt, or eft or poe of a fine-tuned model (:mod:`prt.methods`).
        base: the backbone that it was tuned from, which EFT subtracts, if it is no longer where its manifest says.

    Raises:
        InputError: if the folder is no whole tuned image model, is not what the method adds to a target, its weights
            are damaged, or its base is missing or another.
    """
    folder = Path(folder)
    manifest = reward.read_manifest(folder)
    reward.check_method(folder, manifest, method)
    weights = reward.read_weights(folder, manifest)
    backbone = manifest["backbone"]
    try:
        shape = (len(manifest["classes"]), backbone["model_cfg"]["embed_dim"])
        tower = build_tower(backbone["model_cfg"], str(folder / reward.MANIFEST))
        network = Classifier(tower, torch.empty(shape), torch.empty(()), backbone["preprocess_cfg"])
    except InputError:
        raise
    except Exception as error:  # missing keys, wrong values: open_clip raises many kinds
        raise InputError(
            f"the backbone in {folder / reward.MANIFEST} cannot be built ({first_line(error)}); make the reward again."
        ) from error
    reward.load_weights(network, weights, folder / reward.WEIGHTS)
    if torch.device(device).type == "cuda" and (manifest["recipe"] or {}).get("precision") == "bf16":
        network.tower.bfloat16()  # a GPU's fastest, and near the autocast that it was tuned in
    network = network.eval().to(device)
    pretrained = None
    if METHODS[method].subtracts:
        source = source_of(folder, backbone, base)
        pretrained = (alike(zero_shot_classifier(source, manifest), network), source.preprocess_cfg)
    return Reward(network, manifest, folder, method, pretrained)


def source_of(folder: Path, known: dict[str, Any], base: str | None) -> Backbone:
    """The backbone that what is in ``folder`` was tuned from: ``base``, or where the manifest says (``known``).

    Raises:
        InputError: if it is missing, or another.
    """
    spec = base or known["spec"]
    try:
        found = load_backbone(spec)
    except InputError as error:
        raise InputError(
            f"{folder} was tuned from {known['name']}, which is not to be had ({str(error).rstrip('.')}); or name it "
            "as the base."
        ) from None
    if known.get("weights") not in (None, found.fingerprint):  # earlier manifests do not say
        raise InputError(
            f"{folder} was tuned from {known['name']}, but the weights of {spec} are others; name the backbone that it "
            "was tuned from as the base."
        )
    return found


def score_rewards(
    runs: Sequence[Path],
    dataset: str,
    data: Manifest,
    outs: Sequence[Path],
    *,
    device: torch.device,
    workers: int,
) -> None:
    """Score rewards on the validation and test splits of any data set with their labels, called ``dataset``.

    Args:
        runs: folders of rewards.
        outs: the folder for the scores of each.

    Raises:
        InputError: if a folder is no whole vision reward, or its labels are not the data set's.
    """
    splits: dict[str, list[Split]] = {}
    for folder, out in zip(runs, outs, strict=True):
        loaded = load_reward(folder)  # in full precision; scoring casts as it did when the reward was tuned
        manifest, cfg = loaded.manifest, loaded.manifest["backbone"]["preprocess_cfg"]
        check_same_labels(loaded.classes, data.classes, f"the reward {folder}", f"the data set {data.folder}")
        if str(cfg) not in splits:
            splits[str(cfg)] = [Split(data, name, cfg, workers) for name in SCORED]
        if len(runs) > 1:
            for split in splits[str(cfg)]:  # rewards of one backbone see the same images
                split.pixels()
        write_scores(
            loaded.classifier.to(device),
            splits[str(cfg)],
            Recipe(**(manifest["recipe"] or {})).precision,
            out,
            backbone=manifest["backbone"]["name"],
            dataset=dataset,
            **{key: manifest[key] for key in ("method", "shots", "seed", "alpha")},
        )
