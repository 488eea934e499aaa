"""Memory and time of the PRT loss over a big vocabulary, naive and in chunks: ``python benchmarks/language_loss.py``.

Prints a table in Markdown. Each way runs in a fresh process, so that its peak memory is its own.
"""

import argparse
import multiprocessing
import time

import torch
from torch import Tensor

from prt import objective
from prt.language.loss import prt_loss
from prt.profiling import forget_peak, memory

CPU = torch.device("cpu")
ALPHA = 0.01
REPEATS = 3


def loss_of(way: str, h: Tensor, w: Tensor, h_ref: Tensor, w_ref: Tensor, labels: Tensor) -> Tensor:
    """The same loss, made in one of two ways."""
    if way == "naive":
        return objective.prt_loss(h_ref @ w_ref.T, h @ w.T, labels, ALPHA)
    return prt_loss(h, w, [(h_ref, w_ref)], labels, ALPHA, size=len(w), items=len(labels))


def measure(way: str, vocabulary: int, tokens: int, width: int) -> tuple[float, float, list[Tensor]]:
    """Peak MiB beyond the inputs, the best CPU seconds of a loss with its gradients, and a sample of these."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    h, h_ref = torch.randn(2, tokens, width)
    w, w_ref = torch.randn(2, vocabulary, width) / width**0.5
    labels = torch.randint(vocabulary, (tokens,))
    inputs = [h.requires_grad_(), w.requires_grad_()]
    forget_peak(CPU)
    before = memory(CPU, peak=False)
    seconds = []
    for _ in range(REPEATS):
        start = time.process_time()
        gradients = torch.autograd.grad(loss_of(way, h, w, h_ref, w_ref, labels), inputs)
        seconds.append(time.process_time() - start)
    peak = (memory(CPU, peak=True) - before) * 1e9 / 2**20
    return peak, min(seconds), [g[:64].clone() for g in gradients]


def main() -> None:
    """Measure both ways and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in (("vocabulary", 32_000), ("tokens", 4096), ("width", 256)):
        parser.add_argument(f"--{name}", type=int, default=value)
    sizes = parser.parse_args()
    arguments = (sizes.vocabulary, sizes.tokens, sizes.width)
    found = {}
    for way in ("naive", "in chunks"):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found[way] = pool.apply(measure, (way, *arguments))
    off = max(
        float((one - other).norm() / one.norm())
        for one, other in zip(found["naive"][2], found["in chunks"][2], strict=True)
    )
    print(f"{sizes.vocabulary} tokens of vocabulary, {sizes.tokens} of text, width {sizes.width}, float32, α {ALPHA};")
    print(f"gradients differ by {off:.0e} relative. Best of {REPEATS}, one thread.\n")
    print("| PRT loss and gradients | peak memory, MiB | CPU seconds |\n| --- | ---: | ---: |")
    for way, (peak, seconds, _) in found.items():
        print(f"| {way} | {peak:.0f} | {seconds:.1f} |")


if __name__ == "__main__":
    main()
