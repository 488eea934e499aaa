"""Small real trials of what jobs use torch for: GPUs, bf16, two processes, streams, a captured decoding step.

Each returns what it found, and raises where it fails. ``NotHere``: this machine lacks what it would be tried on.
"""

import multiprocessing
import time
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from prt.atomic import scratch
from prt.doctor.sharded import gradients
from prt.errors import InputError
from prt.machine import cpu_has_bf16
from prt.vision.backbones import Classifier
from prt.vision.fused import Fused

PATIENCE = 120  # seconds for two processes
NO_GPU = "no GPU here; run it on a node that has one, as in `srun --gpus=2 prt doctor`"


class NotHere(Exception):
    """What is to be tried is not on this machine; that says nothing of the machine that jobs run on."""


def _gpu() -> torch.device:
    if not torch.cuda.is_available():
        raise NotHere(NO_GPU)
    return torch.device("cuda")


def cuda() -> str:
    """Names and memory of the GPUs; a matrix product on each is compared with the CPU's."""
    _gpu()
    a = torch.randn(256, 256, generator=torch.Generator().manual_seed(0))
    found = []
    for i in range(torch.cuda.device_count()):
        if not torch.allclose((a.to(f"cuda:{i}") @ a.to(f"cuda:{i}")).cpu(), a @ a, atol=0.1):
            raise InputError(f"GPU {i} multiplies wrongly; take it out with CUDA_VISIBLE_DEVICES.")
        found.append(f"{torch.cuda.get_device_name(i)} ({torch.cuda.mem_get_info(i)[1] / 1e9:.0f} GB)")
    return f"CUDA {torch.version.cuda}; {', '.join(found)}"


def bf16() -> str:
    """Whether GPUs compute in bf16 themselves; without a GPU, whether the CPU has instructions for it."""
    if not torch.cuda.is_available():
        has = cpu_has_bf16()
        if has is False:
            raise NotHere(f"{NO_GPU}; this CPU has no instructions for it, so that fp32 is much faster")
        raise NotHere(f"{NO_GPU}; this CPU {'has instructions for it' if has else 'does not say'}")
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        raise InputError("this GPU has no bf16; set precision: fp32 in the recipes, or take a GPU from Ampere on.")
    a = torch.ones(64, 64, device="cuda", dtype=torch.bfloat16)
    assert (a @ a).mean().item() == 64
    return "computed on the GPU"


def two_processes() -> str:
    """A layer that FSDP shards over two processes gets the gradient that it gets in one: NCCL on two GPUs, else Gloo.

    Raises:
        NotHere: where it worked over Gloo, as there is no second GPU.
    """
    gpus = torch.cuda.device_count() >= 2
    with scratch("doctor") as folder:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([gradients.__module__])  # imported once, by what both are copies of
        where = (f"file://{folder}/store", "nccl" if gpus else "gloo")
        both = [context.Process(target=gradients, args=(rank, *where, PATIENCE)) for rank in range(2)]
        for process in both:
            process.start()
        end = time.monotonic() + PATIENCE
        for process in both:
            process.join(max(0.0, end - time.monotonic()))
        codes = [process.exitcode for process in both]
        for process in both:
            process.kill()
    if codes != [0, 0]:
        waited = f"did not end within {PATIENCE} s" if None in codes else f"ended with {codes}"
        raise InputError(f"two processes {waited} ({where[1]}); set NCCL_DEBUG=INFO, and see what it says.")
    if not gpus:
        raise NotHere("works on the CPU, over Gloo; no two GPUs here, so NCCL was not tried")
    return "sharded over two GPUs, over NCCL"


def streams() -> str:
    """Two classifiers, each on a CUDA stream of its own, give the logits that they give one after the other."""
    device = _gpu()
    torch.manual_seed(0)
    look = {"mean": [0.5] * 3, "std": [0.5] * 3}
    towers = [nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 512)) for _ in range(2)]
    both = [Classifier(t, torch.randn(10, 512), torch.tensor(10.0), look).to(device).eval() for t in towers]
    images = torch.randint(256, (64, 3, 64, 64), dtype=torch.uint8, device=device)
    with torch.no_grad():
        for side, alone in zip(Fused(both)([images] * 2), Fused(both, streams=False)([images] * 2), strict=True):
            if not torch.equal(side, alone):
                raise InputError("logits on two CUDA streams differ from those one after the other; update the driver.")
    return "two classifiers side by side"


def decoding() -> str:
    """A small Llama decodes the same with a static cache as with one that grows; on a GPU its step is captured."""
    captured = torch.cuda.is_available()
    device = torch.device("cuda" if captured else "cpu")
    torch.manual_seed(0)
    shape: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    config = LlamaConfig(vocab_size=128, num_attention_heads=4, pad_token_id=0, eos_token_id=None, **shape)
    model: Any = LlamaForCausalLM(config)
    model = model.to(device).eval()
    ids = torch.arange(1, 9, device=device)[None]
    write = partial(model.generate, ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)
    grown: Tensor = write()
    static: Tensor = write(cache_implementation="static", disable_compile=not captured)
    if not torch.equal(grown, static):
        raise InputError("a static cache decodes other tokens than one that grows; set compile: false in table3.")
    if not captured:
        raise NotHere(f"a static cache works on the CPU; its step was not captured: {NO_GPU}")
    return "captured"
