"""Networks that read a tree of tokens after one prompt: many continuations at once, and nothing twice.

All new tokens go through a network as one row. A mask lets each see the prompt and its own ancestors alone, as in
Miao et al. 2024 (SpecInfer, https://arxiv.org/abs/2305.09781, section 4.2). The keys and values of the path that an
answer takes are kept.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from prt.errors import InputError
from prt.language.models import Causal

Path = tuple[int, ...]  # ids of an answer


@dataclass
class Costs:
    """What reading cost: calls of each network after the prompt, and the positions that they read."""

    calls: int = 0
    rows: int = 0


class Tree:
    """Log-probabilities after the paths that were read, of several heads.

    Args:
        networks: over one vocabulary.
        head: of the logits of each network, (n, tokens), float32, the log-probabilities of each head, (heads, n,
            tokens).
        prompt: ids (1, positions).
        size: tokens of the tokenizer; what the networks' layers are padded with is cut off.

    Raises:
        InputError: for a network whose layers do not keep every position.
    """

    def __init__(
        self, networks: Sequence[Causal], head: Callable[[list[Tensor]], Tensor], prompt: Tensor, size: int
    ) -> None:
        self.networks, self.prompt, self.size, self._head = networks, prompt, size, head
        self.costs = Costs()
        self._caches = []
        for network in networks:
            cache = DynamicCache(config=network.model.config)
            if any(type(layer) is not DynamicLayer for layer in cache.layers):
                raise InputError(
                    f"{network.name} has layers that forget positions (a sliding window, a state), in which no tree of "
                    "continuations can be read; take a model with full attention as the source or target."
                )
            self._caches.append(cache)
        self._length = prompt.shape[1]
        self._slots: dict[Path, int] = {}  # where a path's last token is in the caches
        first = [self._call(n, prompt, logits_to_keep=1) for n in range(len(networks))]
        self._logs: dict[Path, Tensor] = {(): self._head(first)[:, 0].cpu()}
        self._totals: dict[Path, Tensor] = {(): torch.zeros(len(self._logs[()]), dtype=torch.float64)}

    @torch.no_grad()
    def _call(self, n: int, ids: Tensor, **inputs: Any) -> Tensor:
        model: Any = self.networks[n].model
        inputs = {k: v.to(model.device) if isinstance(v, Tensor) else v for k, v in inputs.items()}
        if "attention_mask" in inputs:
            inputs["attention_mask"] = _additive(inputs["attention_mask"], model.dtype)
        out = model(input_ids=ids.to(model.device), past_key_values=self._caches[n], use_cache=True, **inputs)
        logits: Tensor = out.logits[0, :, : self.size].float()
        return logits.to(self.networks[0].model.device)

    def read(self, paths: Iterable[Path]) -> None:
        """Read paths and all that leads to them, those that are not known yet, in one call of each network.

        Raises:
            InputError: if they do not fit into a network's context.
        """
        wanted = {path[:n] for path in paths for n in range(1, len(path) + 1)}
        new = sorted(wanted - self._slots.keys(), key=lambda path: (len(path), path))
        if not new:
            return
        for network in self.networks:
            context = getattr(network.model.config, "max_position_embeddings", None)
            if context is not None and self._length + len(new[-1]) > context:
                raise InputError(
                    f"the prompt and its answer exceed the context of {network.name}, {context} tokens; ask for fewer "
                    "new tokens, or shorten the prompt."
                )
        begin = self._length + len(self._slots)
        self._slots |= {path: begin + n for n, path in enumerate(new)}
        sees = torch.zeros(len(new), begin + len(new), dtype=torch.bool)
        sees[:, : self._length] = True
        for n, path in enumerate(new):
            sees[n, [self._slots[path[:k]] for k in range(1, len(path) + 1)]] = True
        ids = torch.tensor([[path[-1] for path in new]])
        positions = torch.tensor([[self._length + len(path) - 1 for path in new]])
        inputs = {"attention_mask": sees[None, None], "position_ids": positions}
        logs = self._head([self._call(n, ids, **inputs) for n in range(len(self.networks))]).cpu()
        for n, path in enumerate(new):
            self._logs[path] = logs[:, n]
            self._totals[path] = self._totals[path[:-1]] + self._logs[path[:-1]][:, path[-1]]
        self.costs.calls += 1
        self.costs.rows += len(new)

    def keep(self, path: Path) -> None:
        """Forget all but what leads to a path."""
        kept = [path[:n] for n in range(1, len(path) + 1) if path[:n] in self._slots]
        if len(kept) == len(self._slots):
            return
        slots = torch.tensor([*range(self._length), *(self._slots[p] for p in kept)])
        for cache in self._caches:
            layers: list[Any] = cache.layers
            for layer in layers:
                at = slots.to(layer.keys.device)
                layer.keys, layer.values = layer.keys.index_select(-2, at), layer.values.index_select(-2, at)
        self._slots = {p: self._length + n for n, p in enumerate(kept)}
        self._logs = {p: self._logs[p] for p in [(), *kept]}
        self._totals = {p: self._totals[p] for p in [(), *kept]}

    def knows(self, path: Path) -> bool:
        """Whether a path has been read and is kept."""
        return path in self._logs

    def logs(self, path: Path) -> Tensor:
        """Log-probabilities of the next token after a path that is known, (heads, tokens), on the CPU."""
        return self._logs[path]

    def total(self, path: Path) -> Tensor:
        """The log-probability of a known path, (heads,), float64; of one that is not, an upper bound."""
        known = len(path)
        while path[:known] not in self._totals:
            known -= 1
        total = self._totals[path[:known]]
        return total if known == len(path) else total + self._logs[path[:known]][:, path[known]]


def _additive(sees: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(sees.shape, dtype=dtype, device=sees.device).masked_fill(~sees, torch.finfo(dtype).min)
