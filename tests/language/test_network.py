"""What is tuned: its loss and gradients, its reference, and models that are refused."""

from pathlib import Path

import pytest
import torch
from helpers.tuning import CPU, RECIPE, SIZE, TOKENS, bases, bytes_tokenizer, data, rows_of, tokens_of
from transformers import CohereConfig, CohereForCausalLM, LlamaConfig, LlamaForCausalLM

from prt.errors import InputError
from prt.language.chats import Manifest
from prt.language.models import Causal, load
from prt.language.network import Tuned, check, trainable
from prt.language.recipe import Lora
from prt.language.trainer import collator

__all__ = ["bases", "data"]  # fixtures


def test_packed_gradients(bases: dict[str, Path], data: Manifest, tmp_path: Path) -> None:
    network, reference = (load(str(bases["llama"]), torch.float32, CPU).model for _ in range(2))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)), alpha=0.05)
    tuned = Tuned(network, "prt", 0.1, TOKENS, reference).train()
    assert tuned.network.training
    assert not tuned.reference.training
    rows = rows_of(data, "train", tmp_path)
    found = []
    for packing in (False, True):
        loss = tuned(**collator(packing, 0)(list(rows)), items=10.0)
        found.append(torch.autograd.grad(loss, list(network.parameters())))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)
    assert all(p.grad is None for p in reference.parameters())


def test_lora_shares_its_base(bases: dict[str, Path], data: Manifest, tmp_path: Path) -> None:
    """The reference of a LoRA reward is its own base, to the bit, and there is no second copy."""
    spec = str(bases["qwen"])
    network = trainable(spec, "qwen", Lora(rank=2, alpha=4), 0, RECIPE)
    for name, parameter in network.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(0))
    shared, apart = Tuned(network, "prt", 0.1, TOKENS), load(spec, torch.float32, CPU).model
    adapter = sum(p.numel() for p in shared.parameters() if p.requires_grad)
    assert 0 < adapter == sum(p.numel() for p in shared.parameters()) - sum(p.numel() for p in apart.parameters())
    batch = tokens_of(data, "validation", tmp_path)
    values = []
    for tuned in (shared, Tuned(network, "prt", 0.1, TOKENS, apart)):
        loss = tuned.train()(**batch, items=10.0)
        assert network.training
        values.append((loss.detach(), *torch.autograd.grad(loss, [p for p in network.parameters() if p.requires_grad])))
    for one, other in zip(*values, strict=True):
        assert torch.equal(one, other)
    with torch.no_grad(), network.disable_adapter():
        assert torch.equal(network(batch["input_ids"]).logits, apart(batch["input_ids"]).logits)


def test_models_that_do_not_fit(tmp_path: Path) -> None:
    sizes = {key: value for key, value in SIZE.items() if key != "num_key_value_heads"}
    scaled = CohereForCausalLM(CohereConfig(**sizes, vocab_size=TOKENS, logit_scale=0.25))
    with pytest.raises(InputError, match="the output layer of cohere does more than a product"):
        check(Causal("cohere", scaled.eval(), bytes_tokenizer()), 64)
    short = LlamaForCausalLM(LlamaConfig(**SIZE, vocab_size=TOKENS - 1)).eval()
    with pytest.raises(InputError, match=f"has {TOKENS - 1} rows, but its tokenizer {TOKENS} tokens"):
        check(Causal("short", short, bytes_tokenizer()), 64)
