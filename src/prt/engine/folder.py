"""The folder that vLLM reads of a sum of models: where their weights lie, and what makes them fit."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedTokenizerBase

from prt.atomic import scratch
from prt.combine import check_strength
from prt.engine import heads
from prt.engine.config import ARCHITECTURE, SumConfig
from prt.errors import InputError
from prt.language.composed import generation_of
from prt.language.fit import fitted, shortest_context
from prt.language.models import Causal, folder_of, load_config, load_tokenizer, weights_must_be_there
from prt.language.recipe import Lora
from prt.language.reward import base_of, whole


@dataclass(frozen=True)
class Part:
    """A model of a sum: ``causal`` without its weights, which are in ``folder``, and how much it counts.

    ``adapter``: the folder of an adapter that is merged into them, and its scale (alpha / rank). ``head``: the size
    that its attention heads get, where it is not their own.
    """

    causal: Causal
    folder: Path
    weight: float = 1.0
    adapter: tuple[Path, float] | None = None
    head: int | None = None

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's."""
        return self.causal.tokenizer


def published(spec: str, name: str = "") -> Part:
    """A model as others made it: a folder, or a name on the hub.

    Raises:
        InputError: if it cannot be had, its files ask for code of their own, or vLLM does not know its architecture.
    """
    weights_must_be_there(spec)
    config = load_config(spec)
    head = head_for_vllm(config, name or spec)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    folder = folder_of(spec)
    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    return Part(Causal(name or spec, model, load_tokenizer(spec)), folder, head=head)


@contextmanager
def tuned(folder: Path, base: str | None = None) -> Iterator[Part]:
    """A reward or a fine-tuned model, as long as the context lasts; see :func:`prt.language.reward.load_tuned`.

    Raises:
        InputError: as for that, and if vLLM does not know its architecture.
    """
    with whole(folder) as (place, manifest, tokenizer):
        name, lora = f"{manifest['base']['name']} {manifest['method']}", manifest["lora"]
        part = published(str(place) if lora is None else base_of(folder, base), name)
        if lora is not None:
            of = Lora(**lora)
            part = replace(part, adapter=(place, of.alpha / of.rank))
        yield replace(part, causal=replace(part.causal, tokenizer=tokenizer))


def head_for_vllm(config: Any, name: str) -> int | None:
    """The size that a model's attention heads get in vLLM, where they cannot stay as they are.

    Raises:
        InputError: if vLLM has no text model of its own for it, or no attention for its heads, or it is quantised.
    """
    from vllm import ModelRegistry
    from vllm.platforms import current_platform

    architecture = (config.architectures or [type(config).__name__])[0]
    if architecture not in ModelRegistry.get_supported_archs() or config.get_text_config() is not config:
        raise InputError(
            f"vLLM has no text model for the architecture of {name}, {architecture}; use prt generate or prt evaluate, "
            "which run in transformers."
        )
    if getattr(config, "quantization_config", None) is not None:
        raise InputError(f"{name} is quantised, which its reward would have to be in the same way; take the original.")
    if current_platform.is_cpu():
        from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

        sizes, head = CPUAttentionBackend.get_supported_head_sizes(), heads.size(config)
        if head in sizes:
            return None
        if (new := heads.wider(config, sizes)) is None:
            raise InputError(
                f"{name} has attention heads of size {head}, and vLLM's on a CPU are of {', '.join(map(str, sizes))}; "
                "use a GPU, or prt generate or prt evaluate, which run in transformers."
            )
        return new
    return None


@contextmanager
def folder_for_vllm(parts: Sequence[Part], template: str | None) -> Iterator[Path]:
    """Yield the folder of the sum of ``parts``, the target first, for as long as vLLM runs.

    Args:
        template: the chat template (Jinja), which it gets with the target's tokenizer.

    Raises:
        InputError: for tokenizers that differ, a model with too few rows for the target's tokenizer, a weight that is
            not finite.
    """
    target, *others = (part.causal for part in parts)
    for part in parts[1:]:
        check_strength(part.weight)
    fit = fitted(target, others)
    text: Any = copy.deepcopy(target.model.config)
    text.vocab_size = fit.size
    if parts[0].head is not None:
        text.head_dim = parts[0].head
    text.max_position_embeddings = shortest_context([part.causal.model for part in parts])
    config = SumConfig(
        text_config=text,
        parts=[
            {
                "folder": str(part.folder.resolve()),
                "weight": part.weight,
                "head": part.head,
                "adapter": part.adapter and {"folder": str(part.adapter[0]), "scale": part.adapter[1]},
            }
            for part in parts
        ],
        barred=fit.barred,
        unread=[[i, token] for i, token in fit.unread.items()],
        architectures=[ARCHITECTURE],
        dtype=target.model.config.dtype,
    )
    own = generation_of([part.causal.model for part in parts], set(fit.barred))
    tokenizer = copy.deepcopy(target.tokenizer)
    tokenizer.chat_template = template
    with scratch("vllm") as folder:
        config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        # Where its texts end; the target's other habits were chosen for it alone.
        GenerationConfig(eos_token_id=own.eos_token_id, pad_token_id=own.pad_token_id).save_pretrained(folder)
        yield folder
