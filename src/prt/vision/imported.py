"""Fine-tuned CLIPs that others made, as folders of the form that tuning writes."""

import copy
from os.path import isfile
from pathlib import Path
from typing import Any

from prt import hub, reward
from prt.atomic import check_finite, making
from prt.errors import InputError, first_line, known
from prt.vision.backbones import WEIGHTS, Backbone, load_backbone
from prt.vision.clip import open_clip
from prt.vision.names import CONFIG, LOCAL, folder_of
from prt.vision.predict import zero_shot_classifier
from prt.vision.sources import check_prompts

HUB = "hf-hub:"  # as open_clip writes it


def import_clip(
    spec: str,
    base: str,
    classes: list[str],
    templates: list[str],
    out: Path,
    *,
    method: str,
    downloads: Path,
) -> None:
    """Make a folder as tuning writes it (:mod:`prt.reward`) of a CLIP that others tuned; what is not known is null.

    The head is made of its own text tower. A checkpoint takes architecture and preprocessing from its base.

    Args:
        spec: a checkpoint of open_clip, a folder in its format, or ``hf-hub:OWNER/NAME``.
        base: the backbone that it was tuned from; see :func:`prt.vision.backbones.load_backbone`.
        classes: names for the prompts, in label order.
        templates: prompts with ``{}`` for the class name.
        out: the folder that is made; it appears whole or not at all.
        method: what it was tuned to be: ``ft``, or ``prt`` for a reward, whose logits are added to log-probabilities.
        downloads: where models of the hub are fetched to.

    Raises:
        InputError: if either network cannot be had, the weights do not fit the base, there are no two classes, one is
            named twice, a template has no place for the name, or ``out`` is there or cannot be written.
    """
    known(method, reward.MADE, "method of a model that is imported,")
    if len(classes) < 2:
        raise InputError(f"{len(classes)} classes were given for {spec}, but it takes two or more; name all of them.")
    check_prompts(classes, templates, spec)
    with making(out) as aside:
        revision = None
        if spec.startswith(HUB):
            repository = spec.removeprefix(HUB)
            folder = downloads / "backbones" / hub.folder_name(repository)
            receipt = hub.download(repository, "model", folder, needed=[CONFIG, WEIGHTS], also=["*.json", "*.txt"])
            revision = receipt.get("revision")
        else:
            folder = Path(spec.removeprefix(LOCAL))
        source = load_backbone(base)
        found = _tuned(folder, source)
        facts: dict[str, Any] = {
            "kind": "vision",
            "method": method,
            **dict.fromkeys(("alpha", "dataset", "recipe", "seed", "shots", "head_sha256", "initial_sha256")),
            "backbone": {
                "name": base,
                "spec": _lasting(base),
                "weights": source.fingerprint,
                "model_cfg": found.model_cfg,
                "preprocess_cfg": found.preprocess_cfg,
            },
            "classes": classes,
            "templates": templates,
            "imported": {"from": spec, "revision": revision},
        }
        reward.save(aside, zero_shot_classifier(found, facts), facts)


def _tuned(place: Path, base: Backbone) -> Backbone:
    """The fine-tuned network at ``place``, which must have the tensors of ``base``."""
    if (place / CONFIG).is_file():
        found = load_backbone(f"{LOCAL}{place}")
    elif place.is_file():
        clip = copy.deepcopy(base.clip)
        try:
            open_clip.load_checkpoint(clip, str(place), weights_only=True)
        except Exception as error:  # no checkpoint, another architecture: open_clip raises many kinds
            raise InputError(
                f"the weights of {place} do not fit {base.spec} ({first_line(error)}); name a checkpoint of open_clip, "
                "and the backbone that it was tuned from with --base."
            ) from error
        check_finite(clip.state_dict(), f"the weights of {place}")
        found = Backbone(str(place), clip, base.tokenizer, base.model_cfg, base.preprocess_cfg)
    elif (place / hub.ADAPTER_CONFIG).is_file():
        raise InputError(
            f"{place} holds an adapter; merge it into its base, and import a checkpoint of the whole CLIP."
        )
    else:
        raise InputError(
            f"there is no checkpoint {place}; name a file, a folder in open_clip's format (with {CONFIG}), or "
            f"{HUB}OWNER/NAME."
        )
    here, there = ({name: tuple(t.shape) for name, t in b.clip.state_dict().items()} for b in (found, base))
    if wrong := sorted(set(here.items()) ^ set(there.items())):
        name = wrong[0][0]
        raise InputError(
            f"{place} was not tuned from {base.spec}: '{name}' has shape {here.get(name)} here and {there.get(name)} "
            "there; name the backbone that it was tuned from with --base."
        )
    if found.fingerprint == base.fingerprint:
        raise InputError(f"{place} has the weights of {base.spec} itself; name the backbone that it was tuned from.")
    return found


def _lasting(spec: str) -> str:
    """A backbone's name from any folder: those of a folder and of a checkpoint as they are from the root."""
    if (folder := folder_of(spec)) is not None:
        return f"{LOCAL}{folder.resolve()}"
    model, _, weights = spec.partition("/")
    return f"{model}/{Path(weights).resolve()}" if isfile(weights) else spec
