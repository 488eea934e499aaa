"""The cells of a language table: a target alone, or with what was tuned on a source put on it."""

import copy
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from prt.errors import InputError, known
from prt.language import composed
from prt.language.chats import TEMPLATES, chat_template
from prt.language.models import Causal, load
from prt.language.reward import load_tuned, read_manifest, weights_hash

TRANSFERRED = ("prt", "eft", "poe")
# Method → the method of what was tuned, if anything was.
METHODS = {"pretrained": None, "instruct": None, "ft": "ft", "reward": "prt", "prt": "prt", "eft": "ft", "poe": "ft"}


@dataclass(frozen=True)
class Cell:
    """One measurement.

    ``tuned`` is the folder of the fine-tuned model (ft, eft, poe) or of the reward (reward, prt), ``pretrained`` the
    model it was tuned from, ``instruct`` the published instruct model.
    """

    name: str
    method: str
    source: str | None = None
    alpha: float | None = None
    lora: bool = False
    seed: int | None = None
    tuned: str | None = None
    pretrained: str | None = None
    instruct: str | None = None

    def __post_init__(self) -> None:
        known(self.method, METHODS, "method")
        needed = ["tuned"] if METHODS[self.method] else []
        needed += {"eft": ["source", "pretrained"], "instruct": ["instruct"]}.get(self.method, [])
        for key in [*needed, *(["source"] if self.method in TRANSFERRED else [])]:
            if getattr(self, key) is None:
                raise InputError(f"the cell '{self.name}' of method {self.method} lacks '{key}'; give it.")

    def facts(self, target: str) -> dict[str, Any]:
        """What a result says of itself."""
        moved = self.method in TRANSFERRED
        return {
            "target": target,
            "method": self.method,
            "source": self.source if moved else None,
            "alpha": self.alpha,
            "lora": self.lora,
            "strength": 1.0 if moved else None,
            "seed": self.seed,
        }


class Models:
    """The models of some cells of one target; each is loaded once.

    Args:
        target: a folder or a name on the hub; ``name`` is the target's in messages.
        template: what models without a chat template get: ``tulu``, or ``own``, which is none.
    """

    def __init__(self, target: str, name: str, dtype: torch.dtype, device: torch.device, template: str = "own") -> None:
        known(template, TEMPLATES, "chat template")
        self._target, self._name, self._dtype, self._device = target, name, dtype, device
        self._template = template
        self._load = cache(self._loaded)
        self._tuned = cache(lambda folder, base: load_tuned(Path(folder), dtype, device, base))

    def _loaded(self, spec: str, name: str) -> Causal:
        causal = load(spec, self._dtype, self._device, name)
        if causal.tokenizer.chat_template is None and self._template != "own":
            causal.tokenizer.chat_template = chat_template(causal.tokenizer, self._template, name)
        return causal

    def of(self, cell: Cell) -> Causal:
        """The model that a cell measures.

        Raises:
            InputError: if a model is missing or damaged, what was tuned is not what the cell says, or the tokenizers
                differ.
        """
        if cell.method == "pretrained":
            return self._load(self._target, self._name)
        if cell.method == "instruct":
            return self._load(cell.instruct, f"{self._name} (instruct)")
        tuned = self._checked(cell)
        if cell.method in ("ft", "reward"):
            return tuned
        target = self._load(self._target, self._name)
        if cell.method == "prt":
            made = composed.prt(target, [tuned], [1.0])
        elif cell.method == "poe":
            made = composed.poe(target, tuned)
        else:
            made = composed.eft(target, tuned, self._load(cell.pretrained, cell.source))
        # What was tuned knows the template that it was tuned in; the target's own, if any, is another's.
        tokenizer = copy.deepcopy(made.tokenizer)
        tokenizer.chat_template = tuned.tokenizer.chat_template
        return replace(made, tokenizer=tokenizer)

    def _checked(self, cell: Cell) -> Causal:
        """What was tuned, if it is what the cell says."""
        folder = Path(str(cell.tuned))
        manifest = read_manifest(folder)
        said = {
            "method": METHODS[cell.method],
            "alpha": cell.alpha,
            "seed": cell.seed,
            "lora": cell.lora,
        }
        found = {key: manifest[key] for key in ("method", "alpha", "seed")} | {"lora": manifest["lora"] is not None}
        for key, value in said.items():
            if found[key] != value:
                raise InputError(
                    f"the cell '{cell.name}' says {key} {value} of {folder}, whose manifest says {found[key]}; correct "
                    "the cell, or name another folder."
                )
        if cell.method == "eft" and weights_hash(str(cell.pretrained)) != manifest["base"]["weights_sha256"]:
            raise InputError(
                f"EFT subtracts the model that {folder} was tuned from, {manifest['base']['name']}, but "
                f"{cell.pretrained} has other weights; name that model."
            )
        return self._tuned(cell.tuned, cell.pretrained)
