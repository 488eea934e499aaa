"""The zero-shot head: a frozen classification layer made of class names and prompts."""

from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError
from torch import Tensor

from prt.atomic import check_finite, file_hash, read_tensors, write_tensors
from prt.class_names import ClassNames, Templates
from prt.errors import InputError, first_line
from prt.vision.backbones import Backbone, Classifier
from prt.vision.clip import open_clip


def zero_shot_head(backbone: Backbone, classes: list[str], templates: list[str]) -> Tensor:
    """Head (L, d): of each class the mean of its prompts' unit text embeddings, made a unit vector again.

    Raises:
        InputError: if the backbone's tokenizer or text tower fails on a prompt, or its answer is no number.
    """
    # Prompts as functions: str.format would read braces in them that are not the class name's place.
    prompts = [partial(template.replace, "{}") for template in templates]
    device = backbone.clip.logit_scale.device
    # One class at a time: then a class's row does not depend, in its last digits, on which others there are.
    try:
        head = open_clip.build_zero_shot_classifier(
            backbone.clip.eval(), backbone.tokenizer, classes, prompts, num_classes_per_batch=1, device=device
        )
    except Exception as error:  # a tokenizer that does not pad, or has more tokens than the tower: many kinds
        raise InputError(
            f"the text tower of {backbone.spec} cannot read the class names' prompts ({first_line(error)}); take "
            "another backbone, or correct its tokenizer."
        ) from error
    check_finite({"head": head}, f"the class names' embeddings by {backbone.spec}")
    return head.T.cpu().contiguous()


def make_head(backbone: Backbone, classes: list[str], templates: list[str], out: Path) -> None:
    """Write the head of ``backbone`` for ``classes`` with what belongs to it."""
    head = zero_shot_head(backbone, classes, templates)
    header = {
        "kind": "head",
        "classes": classes,
        "templates": templates,
        "spec": backbone.spec,
        "model_cfg": backbone.model_cfg,
        "preprocess_cfg": backbone.preprocess_cfg,
        "weights": backbone.fingerprint,
    }
    write_tensors(out, {"head": head, "scale": backbone.clip.logit_scale.exp()}, header)


class _Header(BaseModel, strict=True):
    """What a head's file says of it."""

    kind: Literal["head"]
    classes: ClassNames
    templates: Templates
    model_cfg: dict[str, Any]
    preprocess_cfg: dict[str, Any]
    weights: str


def load_head(path: Path, backbone: Backbone) -> tuple[Classifier, dict[str, Any]]:
    """The zero-shot classifier of ``backbone`` with the head at ``path``, in eval mode; the head's header.

    Raises:
        InputError: if the file is missing or corrupt, or belongs to another backbone.
    """
    tensors, header = read_tensors(path, "zero-shot head")
    try:
        about = _Header.model_validate(header)
        tensors["head"], tensors["scale"]
    except (KeyError, ValidationError) as error:
        raise InputError(f"{path} is no zero-shot head ({first_line(error)}); make it again.") from None
    if about.weights != backbone.fingerprint:
        raise InputError(f"{path} is not a zero-shot head of {backbone.spec}; make it again for this backbone.")
    expected = [(len(about.classes), backbone.model_cfg["embed_dim"]), ()]
    shapes = [tuple(tensors[name].shape) for name in ("head", "scale")]
    if shapes != expected:
        raise InputError(f"the zero-shot head {path} has shapes {shapes}, not {expected}; make it again.")
    if wrong := {str(tensors[name].dtype) for name in ("head", "scale")} - {"torch.float32"}:
        raise InputError(f"the zero-shot head {path} holds {', '.join(wrong)}; make it again.")
    check_finite(tensors, f"the numbers in {path}")
    classifier = Classifier(backbone.clip.visual, tensors["head"], tensors["scale"], backbone.preprocess_cfg)
    return classifier.eval(), header | {"sha256": file_hash(path)}
