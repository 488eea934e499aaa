"""One of the two processes over which FSDP is tried; a module of its own, so that they import torch alone."""

import copy
from datetime import timedelta
from typing import Any

import torch
import torch._dynamo  # FSDP imports it when it is used: here once for both
from torch import nn
from torch.distributed.fsdp import fully_shard


def gradients(rank: int, store: str, backend: str, seconds: float) -> None:
    """Compare the gradient of a sharded layer with that of the whole one.

    Raises:
        AssertionError: if they differ.
    """
    patience = timedelta(seconds=seconds)
    torch.distributed.init_process_group(backend, init_method=store, rank=rank, world_size=2, timeout=patience)
    device = torch.device("cuda", rank) if backend == "nccl" else torch.device("cpu")
    if backend == "nccl":
        torch.cuda.set_device(device)
    torch.manual_seed(0)
    whole = nn.Linear(8, 4).to(device)
    sharded: Any = copy.deepcopy(whole)
    fully_shard(sharded, mesh=torch.distributed.device_mesh.init_device_mesh(device.type, (2,)))
    rows = torch.randn(2, 3, 8, device=device)
    sharded(rows[rank]).square().sum().backward()
    (whole(rows).square().sum() / 2).backward()  # FSDP takes the mean over the processes
    assert whole.weight.grad is not None
    torch.testing.assert_close(sharded.weight.grad.full_tensor(), whole.weight.grad, rtol=1e-3, atol=1e-3)
    torch.distributed.destroy_process_group()
