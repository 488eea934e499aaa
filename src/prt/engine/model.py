"""A target with rewards on it as one model of vLLM: logits are summed as in :mod:`prt.language.composed`.

Every model is vLLM's own, with layers of attention of its own. Their caches have the same blocks, so that continuous
batching, chunked prompts and the cache of prefixes work as for one model.
"""

from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import pad
from vllm.config import VllmConfig
from vllm.model_executor.model_loader.default_loader import DefaultModelLoader
from vllm.model_executor.models.utils import init_vllm_registered_model, maybe_prefix
from vllm.transformers_utils.config import get_config

from prt.engine.heads import size, widened

Weights = Iterable[tuple[str, Tensor]]


class PrtForCausalLM(nn.Module):
    """target + Σ weight · part, of the models that a :class:`prt.engine.config.SumConfig` names."""

    barred: Tensor

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__()
        config = vllm_config.model_config.hf_config
        self.parts = config.parts
        self.size = config.get_text_config().vocab_size
        self.names = [f"part{number}" for number in range(len(self.parts))]
        configs = [get_config(part["folder"], trust_remote_code=False) for part in self.parts]
        self.heads = [size(own) for own in configs]
        for name, part, own in zip(self.names, self.parts, configs, strict=True):
            if part["head"] is not None:
                own.head_dim = part["head"]
            model = init_vllm_registered_model(vllm_config, prefix=maybe_prefix(prefix, name), hf_config=own)
            setattr(self, name, model)
        self.widths = [own.get_text_config().hidden_size for own in configs]
        self.rows = [own.get_text_config().vocab_size for own in configs]
        self.register_buffer("barred", torch.tensor(config.barred, dtype=torch.long), persistent=False)
        # vLLM's loader reads the folder of the sum, in which there are no weights, by these patterns.
        self.allow_patterns_overrides = [f"{self.parts[0]['folder']}/model*.safetensors"]
        self.secondary_weights = [
            DefaultModelLoader.Source(part["folder"], revision=None, prefix=f"{name}.")
            for name, part in zip(self.names[1:], self.parts[1:], strict=True)
        ]

    @property
    def models(self) -> list[Any]:
        """The models, the target first."""
        return [getattr(self, name) for name in self.names]

    def embed_input_ids(self, input_ids: Tensor) -> Tensor:
        """The target's embeddings, (tokens, width); vLLM wants every model to have them."""
        embeddings: Tensor = self.models[0].embed_input_ids(input_ids)
        return embeddings

    def forward(
        self, input_ids: Tensor, positions: Tensor, intermediate_tensors: Any = None, inputs_embeds: Any = None
    ) -> Tensor:
        """Hidden states of all models side by side, (tokens, sum of widths).

        ``intermediate_tensors`` and ``inputs_embeds`` are None: vLLM sends them to models that support a pipeline of
        machines, and prompts of embeddings, which this does not.
        """
        states = []
        for model, rows in zip(self.models, self.rows, strict=True):
            ids = input_ids if rows >= self.size else input_ids.masked_fill(input_ids >= rows, 0)
            states.append(model(ids, positions))
        return torch.cat(states, -1)

    def compute_logits(self, hidden_states: Tensor) -> Tensor | None:
        """Summed logits, (tokens, tokens of the tokenizer), float32; −inf at barred ids.

        Args:
            hidden_states: some rows of what :meth:`forward` gave.

        Returns:
            None where the output layer is sharded, but for the first process.
        """
        total = None
        weights = [part["weight"] for part in self.parts]
        for model, states, weight in zip(self.models, hidden_states.split(self.widths, -1), weights, strict=True):
            logits = model.compute_logits(states.contiguous())
            if logits is None:
                return None
            logits = pad(logits, (0, max(0, self.size - logits.shape[-1])))[..., : self.size]
            if total is None:
                total = logits.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
            else:
                total.add_(logits, alpha=weight)
        assert total is not None  # there is a target
        return total.index_fill_(-1, self.barred, -torch.inf)

    def load_weights(self, weights: Weights) -> set[str]:
        """Give every model its weights; the names of those that were read."""
        read: set[str] = set()
        for name, group in groupby(weights, self._owner):
            number = self.names.index(name)
            part, model = self.parts[number], self.models[number]
            own: Weights = ((key.removeprefix(f"{name}."), weight) for key, weight in group)
            if part["adapter"] is not None:
                own = merged(own, **part["adapter"])
            if part["head"] is not None:
                own = widened(own, self.heads[number], part["head"])
            read |= {f"{name}.{key}" for key in model.load_weights(own)}
        return read

    def _owner(self, weight: tuple[str, Tensor]) -> str:
        name = weight[0].partition(".")[0]
        return name if name in self.names else self.names[0]


def merged(weights: Weights, folder: str, scale: float) -> Iterator[tuple[str, Tensor]]:
    """The weights of a model with an adapter of PEFT's merged into them: W + scale · B A, summed in float32.

    Args:
        weights: names and values, as saved.
        folder: the adapter's.
        scale: alpha / rank.

    Raises:
        ValueError: if a layer that the adapter changes is not there.
    """
    adapter = load_file(Path(folder, "adapter_model.safetensors"))
    begin, end = "base_model.model.", ".lora_A.weight"
    layers = {key.removeprefix(begin).removesuffix(end) for key in adapter if key.endswith(end)}
    for name, weight in weights:
        layer = name.removesuffix(".weight")
        if layer in layers:
            layers.remove(layer)
            down, up = (adapter[f"{begin}{layer}.lora_{side}.weight"].float() for side in "AB")
            weight = weight.float() + scale * (up @ down).to(weight.device)
        yield name, weight
    if layers:
        raise ValueError(f"the adapter in {folder} changes layers that its model does not have: {sorted(layers)[0]}.")
