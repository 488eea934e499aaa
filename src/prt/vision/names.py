"""What open_clip calls its models and weights, read without importing it: a plan asks, and has no seconds to spare."""

import importlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from os.path import isfile
from pathlib import Path
from types import ModuleType
from typing import Any

from prt.errors import InputError, known

LOCAL = "local-dir:"
CONFIG = "open_clip_config.json"


@contextmanager
def standing_in(**modules: ModuleType | None) -> Iterator[None]:
    """For a while, let these be the modules of these names that are not there yet (None: missing)."""
    ours = {name: module for name, module in modules.items() if name not in sys.modules}
    sys.modules.update(ours)  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in ours:
            del sys.modules[name]


@cache
def _package() -> Path:
    spec = find_spec("open_clip")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


@cache
def _pretrained() -> Any:
    """open_clip's own table of weights, a module that needs no other of its package but for constants."""
    bare = ModuleType("_open_clip")
    bare.__path__ = [str(_package())]
    with standing_in(_open_clip=bare, safetensors=None, huggingface_hub=None):
        return importlib.import_module("_open_clip.pretrained")


def models() -> list[str]:
    """The names of open_clip's models."""
    return sorted(file.stem for file in (_package() / "model_configs").glob("*.json"))


def folder_of(spec: str) -> Path | None:
    """The folder that a backbone's name is of, ``local-dir:FOLDER`` or a FOLDER in open_clip's format; else None."""
    return Path(spec.removeprefix(LOCAL)) if spec.startswith(LOCAL) or isfile(Path(spec) / CONFIG) else None


def check_spec(spec: str) -> None:
    """Refuse what can name no backbone, as far as names tell: see :func:`prt.vision.backbones.load_backbone`.

    Raises:
        InputError: for an unknown model or tag, a file or folder that does not exist, or a quickgelu mismatch.
    """
    if spec.startswith(("hf-hub:", "hf_hub:")):
        repository = spec.partition(":")[2]
        raise InputError(
            f"the backbone '{spec}' is not read off the hub: download it with `hf download {repository} --local-dir "
            f"FOLDER`, and write {LOCAL}FOLDER."
        )
    if (folder := folder_of(spec)) is not None:
        if not isfile(folder / CONFIG):
            raise InputError(f"there is no backbone in {folder} (no {CONFIG}); name a folder in open_clip's format.")
        return
    model, _, pretrained = spec.partition("/")
    known(model, models(), "open_clip model")
    tags = _pretrained().list_pretrained_tags_by_model(model)
    if not pretrained:
        some = f"a tag of {', '.join(tags)}" if tags else "the path of a checkpoint"
        raise InputError(f"the backbone '{spec}' names no weights: write {model}/WEIGHTS, with {some}.")
    if pretrained not in tags:
        if not isfile(pretrained):
            known(pretrained, tags, f"pretrained tag or checkpoint file of {model}")
        return
    quick = _pretrained().get_pretrained_cfg(model, pretrained).get("quick_gelu", False)
    own = json.loads((_package() / "model_configs" / f"{model}.json").read_text(encoding="utf-8"))
    other = f"{model}-quickgelu" if quick else model.removesuffix("-quickgelu")
    if quick != own.get("quick_gelu", False) and other != model:
        raise InputError(f"the weights '{pretrained}' need the model {other}: write {other}/{pretrained}.")
