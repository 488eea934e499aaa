"""Tuning on two processes: all of it by DDP, stopped and resumed, and the wrapping for FSDP that GPUs get."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from helpers.tuning import bytes_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from prt.cell import Run
from prt.language.chats import prepare, read_manifest
from prt.language.recipe import Recipe
from prt.language.tune import Tuning, tune

# Each process is given RANK and the like, as torchrun gives them, and a folder.
SCRIPT = r'''
import os, signal, sys
from pathlib import Path
from types import SimpleNamespace

import torch
from accelerate.utils import FullyShardedDataParallelPlugin
from accelerate.utils.fsdp_utils import fsdp2_prepare_model
from torch.distributed.tensor import DTensor

from prt.language.chats import read_manifest
from prt.language.models import load
from prt.cell import Run
from prt.language.network import Tuned, causal, trainable
from prt.language.recipe import Lora, Recipe
from prt.language.trainer import collator
from prt.language.tune import Tuning, tune

top, spec = Path(sys.argv[1]), str(Path(sys.argv[1]) / "base")
processes, rank = int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"])
recipe = Recipe(lr=1e-2, batch=8, max_length=64, precision="fp32", per_device_batch=2)
forward, passes = Tuned.forward, []


def counted(self, **inputs):
    """Only the second process gets a signal, before its fifth pass: in the third step of six."""
    if self.training:
        passes.append(1)
        if (rank, len(passes)) == (1, 5):
            os.kill(os.getpid(), signal.SIGTERM)
    return forward(self, **inputs)


Tuned.forward = counted
for code in (128 + signal.SIGTERM, None):
    try:
        run = Run(dataset="sums", model="base", method="prt", alpha=0.1)
        tuning = Tuning(run, recipe, None, top / "two", top / "checkpoints")
        tune(spec, [tuning], data=read_manifest(top / "data"), device=torch.device("cpu"))
    except SystemExit as stop:
        assert stop.code == code
    else:
        assert code is None
# Two passes a step, but one in the third and the sixth, the epochs' last: in all what an uninterrupted run would make.
assert len(passes) == 10, len(passes)

chats = [{"input_ids": list(range(1, 9 + i)), "labels": [-100] * 3 + list(range(4, 9 + i))} for i in range(4)]
for lora in (None, Lora(rank=2, alpha=4)):
    def made():
        network = trainable(spec, "base", lora, 0, recipe)
        reference = None if lora else load(spec, torch.float32, torch.device("cpu")).model
        return Tuned(network, "prt", 0.1, 257, reference).train()

    whole = made()
    whole(**collator(True, 0)(chats), items=20.0).backward()
    sharded = made()
    plugin = FullyShardedDataParallelPlugin(fsdp_version=2, auto_wrap_policy="transformer_based_wrap",
                                            transformer_cls_names_to_wrap=sorted(causal(sharded.network)._no_split_modules))
    accelerator = SimpleNamespace(state=SimpleNamespace(fsdp_plugin=plugin), mixed_precision="no", is_main_process=True)
    sharded = fsdp2_prepare_model(accelerator, sharded)
    assert all(isinstance(p, DTensor) for p in sharded.parameters())
    # Gradients are averaged over processes, so each one's loss is times their number, as in the trainer.
    (sharded(**collator(True, 0)(chats[2 * rank : 2 * rank + 2]), items=20.0) * processes).backward()
    for (name, one), other in zip(whole.named_parameters(), sharded.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None) == (not one.requires_grad), name
        if one.grad is not None:
            torch.testing.assert_close(other.grad.full_tensor(), one.grad, atol=1e-6, rtol=1e-4)
print("equal", flush=True)
torch.distributed.destroy_process_group()
'''


def test_two_processes(tmp_path: Path) -> None:
    bytes_tokenizer().save_pretrained(tmp_path / "base")
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=260,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=64,
            tie_word_embeddings=True,
        )
    ).save_pretrained(tmp_path / "base")
    chats = [
        {"messages": [{"role": "user", "content": f"{i}+{i}"}, {"role": "assistant", "content": "#" * (i % 5 + 1)}]}
        for i in range(22)
    ]
    (tmp_path / "chats.jsonl").write_text("\n".join(map(json.dumps, chats)))
    prepare(f"jsonl:{tmp_path / 'chats.jsonl'}", tmp_path / "data", downloads=tmp_path, validation=0.1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    started = []
    for rank in ("0", "1"):
        ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2"}
        command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
        started.append(
            subprocess.Popen(
                command, env=os.environ | address | ranks, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
        )
    recipe = Recipe(lr=1e-2, batch=8, max_length=64, precision="fp32", per_device_batch=2)
    run = Run(dataset="sums", model="base", method="prt", alpha=0.1)
    tuning = Tuning(run, recipe, None, tmp_path / "one", tmp_path / "checkpoints1")
    tune(str(tmp_path / "base"), [tuning], data=read_manifest(tmp_path / "data"), device=torch.device("cpu"))
    said = [process.communicate(timeout=300)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0], "\n".join(said)[-6000:]
    assert all(text.rstrip().endswith("equal") for text in said)
    one, two = (pd.read_csv(tmp_path / name / "curve.csv") for name in ("one", "two"))
    assert two["step"].tolist() == one["step"].tolist() == [1, 2, 3, 4, 5, 6]
    for column in ("loss", "validation_loss", "lr"):
        assert two[column].tolist() == pytest.approx(one[column].tolist(), rel=1e-3, nan_ok=True)
    assert not (tmp_path / "checkpoints").exists()
