"""The cells of a language table: a target alone, or with what was tuned on a source put on it."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from prt.errors import known
from prt.language import composed
from prt.language.data import TEMPLATES, chat_template
from prt.language.models import Causal, load
from prt.language.reward import load_tuned

TRANSFERRED = ("prt", "eft", "poe")
METHODS = ("pretrained", "instruct", "ft", "reward", *TRANSFERRED)


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
            InputError: if a model is missing or damaged, or the tokenizers differ.
        """
        if cell.method == "pretrained":
            return self._load(self._target, self._name)
        if cell.method == "instruct":
            return self._load(cell.instruct, f"{self._name} (instruct)")
        tuned = self._tuned(cell.tuned, cell.pretrained)
        if cell.method in ("ft", "reward"):
            return tuned
        target = self._load(self._target, self._name)
        if cell.method == "prt":
            return composed.prt(target, [tuned], [1.0])
        if cell.method == "poe":
            return composed.poe(target, tuned)
        return composed.eft(target, tuned, self._load(cell.pretrained, cell.source))
