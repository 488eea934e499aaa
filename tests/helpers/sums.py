"""A target, a source and what was tuned of it, as folders: the target's heads vLLM has on a CPU, the source's not."""

import copy
from pathlib import Path

import torch
from peft import get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from prt.language.chats import chat_template
from prt.language.network import adapter_config
from prt.language.recipe import Lora
from prt.language.reward import save_tuned, weights_hash
from prt.miniature.text import tokenizer

LORA = Lora(rank=4, alpha=8)
EXTRA = "<|extra|>"  # a control token of the target, which the source has no row for


def network(seed: int, width: int, head: int, layers: int, rows: int) -> LlamaForCausalLM:
    """A random model whose next token really depends on those before it."""
    torch.manual_seed(seed)
    words = tokenizer()
    config = LlamaConfig(
        vocab_size=rows,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        num_key_value_heads=1 if head < 32 else None,
        head_dim=head,
        max_position_embeddings=1024 if head < 32 else 2048,
        initializer_range=0.15,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
        dtype="float32",
    )
    return LlamaForCausalLM(config).eval()


def family(top: Path) -> Path:
    """Write ``target`` and ``source``, with heads of 32 and of 24, and ``prt``, ``ft`` and ``lora``, tuned from it."""
    words = tokenizer()
    more: PreTrainedTokenizerBase = copy.deepcopy(words)
    more.add_special_tokens({"additional_special_tokens": [EXTRA]})
    models = {"target": network(1, 128, 32, 2, len(more)), "source": network(2, 96, 24, 3, len(words))}
    for name, own in (("target", more), ("source", words)):
        models[name].save_pretrained(top / name)
        own.save_pretrained(top / name)
    tuned = copy.deepcopy(models["source"])
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in tuned.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    adapted = get_peft_model(copy.deepcopy(models["source"]), adapter_config(LORA))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.normal_(0, 0.2)
    words.chat_template = chat_template(words, "tulu", "source")
    base = {"name": "source", "spec": str(top / "source"), "weights_sha256": weights_hash(str(top / "source"))}
    facts = {
        "base": base,
        "dataset": {"name": "chats"},
        "fingerprint": "0",
        "template": "tulu",
        "recipe": {},
        "seed": 0,
    }
    for name, of in (("prt", tuned), ("ft", tuned), ("lora", adapted)):
        method, alpha = ("ft", None) if name == "ft" else ("prt", 0.0)
        lora = LORA.model_dump() if name == "lora" else None
        save_tuned(top / name, of, words, facts | {"method": method, "alpha": alpha, "lora": lora})
    return top
