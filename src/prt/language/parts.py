"""The models that cells of a language table measure: a network alone, or a target with others put on it."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from prt.cell import Cell
from prt.errors import InputError, known
from prt.language.chats import TEMPLATES, chat_template
from prt.language.composed import compose
from prt.language.merged import merged
from prt.language.models import Causal, Vocabulary, load, load_tokenizer, read_tokenizer, shared_ids, vocabulary
from prt.language.reward import load_tuned, read_manifest, weights_hash
from prt.language.text_decode import TextRewarded
from prt.methods import AS_TEXT, REWARDS, SOURCE_PRETRAINED, Method, Network, method

PUBLISHED = ("pretrained", "instruct")  # networks that were not tuned here


class Models:
    """The models of some cells; each network is loaded once.

    Args:
        folder: where a network of a cell is: a folder, or the name on the hub of a published one.
        template: what published models without a chat template get: ``tulu``, or ``own``, which is none.
    """

    def __init__(
        self, folder: Callable[[Cell, Network], str], dtype: torch.dtype, device: torch.device, template: str = "own"
    ) -> None:
        known(template, TEMPLATES, "chat template")
        self._folder, self._dtype, self._device, self._template = folder, dtype, device, template
        self._published = cache(self._load)
        self._tuned = cache(lambda folder, base: load_tuned(Path(folder), dtype, device, base))
        self._hash = cache(weights_hash)
        self._vocabulary = cache(lambda read, folder: vocabulary(read(folder)))

    def fitting(self, cell: Cell) -> Cell:
        """The cell, with its method as text where the target has another tokenizer than what is put on it.

        Raises:
            InputError: as :meth:`of`.
        """
        if cell.method not in AS_TEXT or self._alike(cell, method(cell.method)):
            return cell
        return cell.model_copy(update={"method": AS_TEXT[cell.method]})

    def of(self, cell: Cell) -> Causal | TextRewarded:
        """The model that a cell measures: its method's sum of networks.

        Raises:
            InputError: if the method is unknown or the cell lacks a strength that it needs, a network is missing or
                damaged, what was tuned is not what the cell says, or the tokenizers differ; of a method as text, if
                they do not, or their tokens cannot be turned into bytes.
        """
        if (whole := method(cell.method)).of_texts:
            return self._as_text(cell, whole)
        base, added, template = self._sum(cell)
        if not added:
            return base
        put_on = merged if whole.merged else compose
        return with_template(put_on(base, added, cell.method), template)

    def together(self, cells: Sequence[Cell]) -> Causal | TextRewarded:
        """The model of several rewards on one target, a cell for each; of one cell that of :meth:`of`.

        The chat template is the first's.

        Raises:
            InputError: as :meth:`of`.
        """
        if len(cells) == 1:
            return self.of(cells[0])
        sums = [self._sum(cell) for cell in cells]
        base, _, template = sums[0]
        return with_template(compose(base, [part for _, added, _ in sums for part in added], cells[0].method), template)

    def _sum(self, cell: Cell) -> tuple[Any, list[tuple[Any, float]], str | None]:
        """A cell's base, what is added to it with its weights, and the chat template of the sum."""
        whole = method(cell.method)
        if whole.of_texts:
            raise InputError(f"{whole.label} runs in transformers alone; leave out the engine.")
        strength = _strength(cell) if whole.added else 0.0
        if cell.method in AS_TEXT and not self._alike(cell, whole):
            raise InputError(
                f"{cell.target} and {cell.source} have different tokenizers, between which {whole.label} goes as text "
                f"({AS_TEXT[cell.method]}): give them different names as their `tokenizer` in the configuration."
            )
        base, *added = (self._network(cell, network) for network in whole.networks)
        weights = [sign * strength for sign, _ in whole.added]
        # What was tuned knows the template that it was tuned in; the target's own, if any, is another's.
        pairs = zip(whole.networks, (base, *added), strict=True)
        tuned = next((part for network, part in pairs if network.model not in PUBLISHED), base)
        return base, list(zip(added, weights, strict=True)), tuned.tokenizer.chat_template

    def _alike(self, cell: Cell, whole: Method) -> bool:
        """Whether the target and what was tuned have one tokenizer."""
        target, tuned = (self._words(cell, network) for network in whole.networks[:2])
        try:
            shared_ids(target, tuned, (cell.target, str(cell.source)))
        except InputError:
            return False
        return True

    def _words(self, cell: Cell, network: Network) -> Vocabulary:
        """The vocabulary of a network, which is not loaded for it."""
        if network.model in PUBLISHED:
            return self._vocabulary(load_tokenizer, self._folder(cell, network))
        self._check(cell, network)
        return self._vocabulary(read_tokenizer, self._folder(cell, network))  # also beside an adapter

    def _as_text(self, cell: Cell, whole: Method) -> TextRewarded:
        plain = next(name for name, text in AS_TEXT.items() if text == cell.method)
        if self._alike(cell, whole):
            raise InputError(
                f"{cell.target} and {cell.source} have one tokenizer, so {whole.label} is {method(plain).label}: "
                "give them one name as their `tokenizer` in the configuration, or none."
            )
        target, tuned, pretrained = (self._network(cell, network) for network in whole.networks)
        made = TextRewarded(target, tuned, pretrained, _strength(cell), plain)
        made.announce(self._folder(cell, SOURCE_PRETRAINED))
        return made

    def _network(self, cell: Cell, network: Network) -> Any:
        if network.model not in PUBLISHED:
            self._check(cell, network)
            base = Network(network.owner, "pretrained")
            return self._tuned(self._folder(cell, network), self._folder(cell, base))
        # A model alone has no source, whosever it is in the method.
        owner = cell.source if network.owner == "source" and cell.source else cell.target
        return self._published(self._folder(cell, network), owner, network.model)

    def _load(self, spec: str, owner: str, model: str) -> Any:
        name = owner if model == "pretrained" else f"{owner} ({model})"
        causal = self._read(spec, name)
        if causal.tokenizer.chat_template is None and self._template != "own":
            causal.tokenizer.chat_template = chat_template(causal.tokenizer, self._template, name)
        return causal

    def _read(self, spec: str, name: str) -> Any:
        return load(spec, self._dtype, self._device, name)

    def _check(self, cell: Cell, network: Network) -> None:
        """Refuse what was tuned, if it is not what the cell says."""
        folder = self._folder(cell, network)
        manifest = read_manifest(Path(folder))
        alpha, variant = (cell.alpha, cell.variant) if network.model in REWARDS else (None, None)
        said: dict[str, Any] = {"method": network.model, "alpha": alpha, "seed": cell.seed, "lora": cell.lora}
        said["variant"] = variant
        found = {key: manifest[key] for key in ("method", "alpha", "seed")} | {"lora": manifest["lora"] is not None}
        found["variant"] = manifest.get("variant")
        for key, value in said.items():
            if found[key] != value:
                raise InputError(
                    f"the cell {cell} says {key} {value} of {folder}, whose manifest says {found[key]}; correct the "
                    "cell, or name another folder."
                )
        base = Network(network.owner, "pretrained")
        if base not in method(cell.method).networks:
            return
        spec = self._folder(cell, base)
        needs = f"{method(cell.method).label} needs the model that {folder} was tuned from, {manifest['base']['name']}"
        try:
            there = self._hash(spec)
        except InputError as error:
            raise InputError(f"{needs}, which is not to be had ({str(error).rstrip('.')}).") from None
        if there != manifest["base"]["weights_sha256"]:
            raise InputError(f"{needs}, but {spec} has other weights; name that model.")


def with_template(made: Causal, template: str | None) -> Causal:
    """The same model, which is asked in a chat template."""
    tokenizer = copy.deepcopy(made.tokenizer)
    tokenizer.chat_template = template
    return replace(made, tokenizer=tokenizer)


def _strength(cell: Cell) -> float:
    if cell.strength is None:
        raise InputError(f"the cell {cell} has no strength, which its method needs; give it.")
    return cell.strength
