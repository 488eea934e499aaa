"""The most FLOP/s that a device reaches: a bound of time is made of it, and is none if anything is faster."""

import time
from functools import partial

import torch

from prt.profiling import device_name, timed

# Dense peak in FLOP/s of tensor cores (bf16, tf32) and of plain float32, from NVIDIA's "A100 Tensor Core GPU" data
# sheet and "H100 Tensor Core GPU Architecture" white paper (SXM); the H200's data sheet has the H100's numbers.
A100 = {"bf16": 312e12, "tf32": 156e12, "fp32": 19.5e12}
H100 = {"bf16": 989.4e12, "tf32": 494.7e12, "fp32": 66.9e12}
PEAKS = {
    "NVIDIA A100-SXM4-40GB": A100,
    "NVIDIA A100-SXM4-80GB": A100,
    "NVIDIA A100-PCIE-40GB": A100,
    "NVIDIA A100 80GB PCIe": A100,
    "NVIDIA H100 80GB HBM3": H100,
    "NVIDIA H200": H100,
}
# Products (rows, inner, columns) that are tried where no data sheet is known: the last is a layer of ViT-B-16.
PRODUCTS = {
    "cpu": [(512, 512, 512), (1024, 1024, 1024), (1536, 1536, 1536), (788, 768, 3072)],
    "cuda": [(4096, 4096, 4096), (8192, 8192, 8192), (25216, 768, 3072)],
}
SECONDS = 1.0  # for the products of one kind


def reach(device: torch.device, precisions: set[str]) -> tuple[str, dict[str, float]]:
    """Where the peak is from, ``datasheet`` or ``matmul``, and kind → FLOP/s for what computes in ``precisions``.

    Without a data sheet it is the largest rate of several products of matrices, in this kind or in a wider one: a
    processor may be slower in bf16 than in float32, but then it could have computed in float32.
    """
    name = device_name(device)
    if name in PEAKS:
        return "datasheet", PEAKS[name]
    found: dict[str, float] = {}
    for kind in _kinds(device, precisions):
        found[kind] = max([_attained(device, kind), *found.values()])
    return "matmul", found


def _kinds(device: torch.device, precisions: set[str]) -> list[str]:
    """From wide to narrow. Tensor cores do both kinds of half precision, and may do float32 (TF32)."""
    wide = ["fp32", "tf32"] if device.type == "cuda" else ["fp32"]
    return [*wide, "bf16"] if precisions - {"fp32"} else wide


def _attained(device: torch.device, kind: str) -> float:
    """The largest FLOP/s of the products; large ones are left out where small ones took the time."""
    torch.backends.cuda.matmul.allow_tf32 = kind == "tf32"
    dtype = torch.bfloat16 if kind == "bf16" else torch.float32
    best, began, products = 0.0, time.monotonic(), PRODUCTS[device.type]
    for number, (rows, inner, columns) in enumerate(products, 1):
        left, right = (torch.randn(*shape, device=device, dtype=dtype) for shape in ((rows, inner), (inner, columns)))
        while True:
            milliseconds, _ = timed(partial(torch.mm, left, right), device)
            best = max(best, 2 * rows * inner * columns / (milliseconds / 1000))
            if time.monotonic() > began + SECONDS * number / len(products):
                break
        if time.monotonic() > began + SECONDS:
            break
    return best
