"""Stand-ins for language models: transformers' own classes, narrow and shallow, with random weights."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from prt.atomic import fingerprint, write_json
from prt.errors import known
from prt.hub import ORIGIN
from prt.rehearsal import remaking
from prt.rehearsal.tokenizers import TOKENIZERS

HEAD = 8  # the width of an attention head


@dataclass(frozen=True)
class Shape:
    """Heads of attention (of queries, and of keys and values), layers, whether one matrix is input and output layer.

    ``spare``: rows of that matrix beyond the tokens. ``shards``: files that the published weights come in, about.
    """

    family: str
    heads: int
    key_heads: int
    layers: int
    tied: bool = False
    spare: int = 0
    shards: int = 1


SHAPES = {
    "meta-llama/Llama-2-7b": Shape("Llama-2", 4, 4, 2, shards=2),
    "meta-llama/Llama-2-13b": Shape("Llama-2", 5, 5, 3, shards=3),
    "meta-llama/Llama-3.2-1B": Shape("Llama-3.1", 4, 1, 2, tied=True),
    "meta-llama/Llama-3.2-3B": Shape("Llama-3.1", 6, 2, 2, tied=True, shards=2),
    "meta-llama/Meta-Llama-3-8B": Shape("Llama-3", 8, 2, 3, shards=4),
    "meta-llama/Llama-3.1-8B": Shape("Llama-3.1", 8, 2, 3, shards=4),
    "Qwen/Qwen2-0.5B": Shape("Qwen2", 7, 1, 2, tied=True, spare=29),
    "Qwen/Qwen2.5-0.5B": Shape("Qwen2.5", 7, 1, 2, tied=True, spare=10),
    "Qwen/Qwen2.5-1.5B": Shape("Qwen2.5", 6, 1, 3, tied=True, spare=10),
    "Qwen/Qwen2.5-3B": Shape("Qwen2.5", 8, 1, 3, tied=True, spare=10, shards=2),
    "Qwen/Qwen2.5-7B": Shape("Qwen2.5", 14, 2, 2, spare=42, shards=4),
    "Qwen/Qwen2.5-14B": Shape("Qwen2.5", 15, 3, 3, spare=42, shards=8),
    "tiiuae/Falcon3-1B": Shape("Falcon3", 4, 2, 2),
    "tiiuae/Falcon3-3B": Shape("Falcon3", 6, 2, 2, shards=2),
    "tiiuae/Falcon3-7B": Shape("Falcon3", 6, 2, 3, shards=4),
    "tiiuae/Falcon3-10B": Shape("Falcon3", 6, 2, 4, shards=5),
}
# What the published configurations say: the context, rotary positions, and the format of the weights.
CONTEXT = {"Llama-2": 4096, "Llama-3": 8192, "Falcon3": 32768}
LONG = 131072  # of the others
SCALED = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
# How the published models write unless they are told otherwise: an evaluation must tell them.
SAMPLING: dict[str, dict[str, Any]] = {
    "Llama-2": {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "max_length": 4096},
    "Llama-3": {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "max_length": 4096},
    "Llama-3.1": {"do_sample": True, "temperature": 0.6, "top_p": 0.9},
    "Qwen2": {"do_sample": False, "max_new_tokens": 2048},
    "Qwen2.5": {"do_sample": False, "max_new_tokens": 2048},
    "Falcon3": {},
}
CHATTING = {"do_sample": True, "temperature": 0.7, "top_k": 20, "top_p": 0.8, "repetition_penalty": 1.05}  # Qwen's


def make(spec: str, out: Path) -> None:
    """Write a stand-in for a model of the paper as its download: configuration, weights in half precision, tokenizer.

    Args:
        spec: its name on the hub, or that of its instruct twin, which has other weights and a chat template.

    Raises:
        InputError: for another model.
    """
    base = re.sub(r"(-chat-hf|-hf|-Instruct|-Base)$", "", spec)
    known(base, SHAPES, "model that there is a stand-in for,")
    instruct = spec.endswith(("-chat-hf", "-Instruct"))
    shape = SHAPES[base]
    words = TOKENIZERS[shape.family](instruct)
    torch.manual_seed(int(fingerprint(spec)[:8], 16))
    network = _network(shape, words)
    network.to(torch.float16 if shape.family == "Llama-2" else torch.bfloat16)
    ends = [words.eos_token_id, *_other_ends(shape.family, instruct, words)]
    own = SAMPLING[shape.family] | (CHATTING if instruct and shape.family.startswith("Qwen") else {})
    network.generation_config = GenerationConfig(
        bos_token_id=words.bos_token_id, eos_token_id=ends if len(ends) > 1 else ends[0], **own
    )
    size = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    with remaking(out) as folder:
        network.save_pretrained(folder, max_shard_size=size // shape.shards + 1)
        words.save_pretrained(folder)
        write_json(folder / ORIGIN, {"stand_in": spec})


def _other_ends(family: str, instruct: bool, words: Any) -> list[int]:
    """The tokens beside the end of sequence that end an instruct model's answer."""
    others = {
        "Llama-3": ["<|end_of_text|>"],
        "Llama-3.1": ["<|end_of_text|>", "<|eom_id|>"],
        "Qwen2": ["<|endoftext|>"],
        "Qwen2.5": ["<|endoftext|>"],
    }
    return [words.convert_tokens_to_ids(token) for token in others.get(family, []) if instruct]


def _network(shape: Shape, words: Any) -> Any:
    qwen = shape.family.startswith("Qwen")
    rotary: dict[str, Any] = {"rope_parameters": SCALED} if shape.family == "Llama-3.1" else {}
    config: Any = (Qwen2Config if qwen else LlamaConfig)(
        vocab_size=len(words) + shape.spare,
        hidden_size=HEAD * shape.heads,
        intermediate_size=2 * HEAD * shape.heads,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_heads,
        max_position_embeddings=CONTEXT.get(shape.family, LONG),
        initializer_range=0.1,
        tie_word_embeddings=shape.tied,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        **rotary,
    )
    return (Qwen2ForCausalLM if qwen else LlamaForCausalLM)(config)
