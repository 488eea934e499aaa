"""Tables 1 and 2: time and memory of training and inference, each beside the bound that its arithmetic sets.

The networks have random weights, and the images are random, at each network's own size, and lie on the device: speed
depends on neither, and the paper does not say whether its times hold reading and copying. Every measurement runs in a
process of its own, so that its memory is its own.

On a GPU a batch is timed by two CUDA events around it, with the device synchronised before and after. Beside it stands
the launch time: how long the host was busy until the call returned, with the device's work still under way. The
paper's times of Table 2 are shorter than its card could have finished the work in: launch times, most likely.
"""

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from math import prod
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch._dynamo  # an optimiser's first step imports it: here, so that no measurement pays for it
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from prt import combine
from prt.errors import known
from prt.profiling import check, device_name, forget_peak, in_own_process, memory, start, timed
from prt.progress import progress
from prt.recipe import PRECISIONS, Precision, Recipe
from prt.training import autocast, optimizer_of
from prt.vision.backbones import Classifier, build_tower, read_config
from prt.vision.clip import open_clip
from prt.vision.fused import Fused
from prt.vision.names import folder_of
from prt.vision.peak import reach
from prt.vision.score import frozen
from prt.vision.tune import loss_of

CLASSES = 100  # CIFAR-100's
# Calls that are not counted: they make the optimiser's state, compile, and on a GPU choose kernels.
WARM_UP = {"cpu": 2, "cuda": 5}
PLACE = ["table", "source", "target", "method", "variant", "batch", "precision"]
COLUMNS = [*PLACE, "quantity", "value", "std", "median", "low", "high", "unit", "repeats"]
# What makes inference faster, in the order in which it is added; a network alone has nothing to share or to overlap.
MEASURES = ("channels_last", "bf16", "shared input", "streams")  # and last, where it can be had, "compile"
NEED_SEVERAL = ("shared input", "streams")
TRAINING = ("ft", "prt", "prt_cached")
COMBINED: dict[str, Callable[..., Tensor]] = {"ft": combine.log_probs, "eft": combine.eft, "prt": combine.prt}


@dataclass(frozen=True)
class Measured:
    """Times in ms, one a repeat (launch times only on a GPU), and peak memory in GB of 10⁹ bytes."""

    times: list[float]
    launches: list[float]
    memory: float


def training(
    models: dict[str, str], batch: int, device: torch.device, precision: Precision, repeats: int
) -> pd.DataFrame:
    """Table 1: an iteration (forward, backward, update) of fine-tuning and of reward tuning.

    ``prt`` runs the frozen network in every iteration, as the paper must have done; ``prt_cached`` has log π_pt of the
    batch from before.

    Args:
        models: name → architecture, see :func:`architecture`.
        precision: fp32, bf16 or fp16, as in a recipe.
        repeats: iterations that are counted.

    Returns:
        A row for each method and quantity: mean, standard deviation, median and quartiles over the repeats. There is
        no bound in a precision in which a batch was faster than its bound: the peak was none.

    Raises:
        InputError: for an unknown architecture or precision, a batch that does not fit, or numbers below one.
    """
    known(precision, PRECISIONS, "precision")
    check({"batch": batch, "number of repeats": repeats}, device)
    counts = {name: (count(spec, batch, backward=False), count(spec, batch)) for name, spec in models.items()}
    recipe = Recipe(batch=batch, precision=precision)
    rows: list[list[Any]] = []
    refuted: set[str] = set()
    facts, peaks = in_own_process(_too_large(batch), _about, device, {precision})
    with progress("benchmark training", len(models) * len(TRAINING), "measurement") as bar:
        for (name, spec), method in product(models.items(), TRAINING):
            measured = in_own_process(_too_large(batch), _train, spec, method, recipe, device, repeats)
            forward, whole = counts[name]
            bound = _bound([whole, forward] if method == "prt" else [whole], precision, device, peaks)
            place = ["table1", name, None, method, None, batch, precision]
            rows += _rows(place, measured, bound)
            if min(measured.times) < bound:
                refuted.add(precision)
            bar.update()
    return _table(rows, facts, refuted)


def inference(
    models: dict[str, str],
    pairs: Sequence[tuple[str, str]],
    batch: int,
    device: torch.device,
    repeats: int,
    compiled: bool,
) -> pd.DataFrame:
    """Table 2: a batch through the fine-tuned target alone, EFT (three networks) and PRT (two).

    The column ``variant`` says what makes it faster; each variant holds those before it. The first, ``baseline``, is
    float32, one network after the other, images in the usual order of their axes, as code without further thought
    runs. On a CPU there are no streams.

    Args:
        models: name → architecture, see :func:`architecture`.
        pairs: (source, target), names among ``models``.
        repeats: batches that are counted.
        compiled: measure torch.compile, too, which works for up to a minute on each method before the first batch.

    Returns:
        As :func:`training`.

    Raises:
        InputError: for an unknown name or architecture, a batch that does not fit, or numbers below one.
    """
    check({"batch": batch, "number of repeats": repeats}, device)
    for name in (name for pair in pairs for name in pair):
        known(name, models, "model of a pair")
    measures = [m for m in MEASURES if m != "streams" or device.type == "cuda"]
    if compiled and shutil.which(os.environ.get("CXX", "g++")) is None:
        print("torch.compile is not measured: it needs a C++ compiler, and there is no g++.", file=sys.stderr)
    elif compiled:
        measures.append("compile")
    counts = {name: count(spec, batch, backward=False) for name, spec in models.items()}
    facts, peaks = in_own_process(_too_large(batch), _about, device, {"fp32", "bf16"})
    jobs = []
    for pair, method in product(pairs, COMBINED):
        possible = [m for m in measures if method != "ft" or m not in NEED_SEVERAL]
        jobs += [(pair, method, possible[:n]) for n in range(len(possible) + 1)]
    rows: list[list[Any]] = []
    refuted: set[str] = set()
    with progress("benchmark inference", len(jobs), "measurement") as bar:
        for (source, target), method, switched_on in jobs:
            networks = [target] + [source] * {"ft": 0, "eft": 2, "prt": 1}[method]
            specs = [models[name] for name in networks]
            measured = in_own_process(_too_large(batch), _infer, specs, method, switched_on, batch, device, repeats)
            precision = "bf16" if "bf16" in switched_on else "fp32"
            variant = f"+ {switched_on[-1]}" if switched_on else "baseline"
            bound = _bound([counts[name] for name in networks], precision, device, peaks)
            rows += _rows(["table2", source, target, method, variant, batch, precision], measured, bound)
            if min(measured.times) < bound:
                refuted.add(precision)
            bar.update()
    return _table(rows, facts, refuted)


def architecture(spec: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """open_clip's model configuration and preprocessing of ``MODEL``, ``MODEL/TAG`` or ``local-dir:FOLDER``.

    Weights are neither read nor fetched.

    Raises:
        InputError: if the architecture is unknown.
    """
    if (folder := folder_of(spec)) is not None:
        config = read_config(folder)
        return config["model_cfg"], config["preprocess_cfg"]
    model, _, tag = spec.partition("/")
    known(model, open_clip.list_models(), "open_clip model")
    model_cfg = open_clip.get_model_config(model)
    own = open_clip.get_pretrained_cfg(model, tag) if tag else {}
    look = {key: own[key] for key in ("mean", "std") if key in own}
    return model_cfg, asdict(
        open_clip.transform.PreprocessCfg(size=model_cfg["vision_cfg"].get("image_size", 224), **look)
    )


def count(spec: str, batch: int, *, backward: bool = True) -> dict[str, int]:
    """FLOPs (a multiplication and an addition are two) of a batch through an image tower: convolutions, and the rest.

    Counted are products of matrices and convolutions, forward and, unless told otherwise, backward. The head (less
    than a hundredth even of the miniature networks), the losses and the optimiser are not: it is a lower bound.
    """
    model_cfg, _ = architecture(spec)
    with torch.device("meta"):  # shapes alone, no numbers
        tower = build_tower(model_cfg).train(backward)
        x = torch.empty(batch, 3, *_size(tower))
    correct = {torch.ops.aten.convolution_backward: _convolution_backward}
    # Attention as plain products: the other kernels are not counted on every device.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False, custom_mapping=correct) as counter:
        features = tower(x)
        if backward:
            features.sum().backward()
    counts = {str(operation): flops for operation, flops in counter.get_flop_counts()["Global"].items()}
    convolutions = sum(flops for operation, flops in counts.items() if "convolution" in operation)
    return {"convolutions": convolutions, "rest": sum(counts.values()) - convolutions}


def _convolution_backward(out: list[int], _x: list[int], weight: list[int], *rest: Any, out_shape: Any = None) -> int:
    """FLOPs of the gradients that are asked for: torch's own count is wrong for grouped convolutions (ConvNeXt's)."""
    return 2 * prod(out) * prod(weight[1:]) * sum(rest[-1][:2])


def _too_large(batch: int) -> str:
    return f"a batch of {batch} does not fit into memory; give a smaller --batch."


def _size(tower: Any) -> tuple[int, int]:
    size = tower.image_size
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _classifier(spec: str, kind: type[Classifier] = Classifier) -> Classifier:
    """A network with random weights and a random head of unit vectors."""
    model_cfg, preprocess_cfg = architecture(spec)
    head = F.normalize(torch.randn(CLASSES, model_cfg["embed_dim"]), dim=-1)
    return kind(build_tower(model_cfg), head, torch.tensor(100.0), preprocess_cfg)


def _images(classifier: Classifier, batch: int) -> Tensor:
    shape = (batch, 3, *_size(classifier.tower))
    return torch.randint(256, shape, dtype=torch.uint8, device=classifier.head.device)


class _Contiguous(Classifier):
    """A classifier without channels_last, to see what that brings."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.tower.to(memory_format=torch.contiguous_format)

    def normalised(self, images: Tensor) -> Tensor:
        return ((images / 255 - self.mean) / self.std).to(self.dtype)


def _train(spec: str, method: str, recipe: Recipe, device: torch.device, repeats: int) -> Measured:
    before = start(device)
    network = _classifier(spec).to(device).requires_grad_(False)
    network.tower.requires_grad_(True)
    images, log_pt = _images(network, recipe.batch), None
    labels = torch.randint(CLASSES, (recipe.batch,), device=device)
    if method == "prt_cached":
        with torch.no_grad(), autocast(recipe.precision, device):
            log_pt = combine.log_probs(frozen(network)(images))
    live = frozen(network) if method == "prt" else None
    loss = loss_of(network, "ft" if method == "ft" else "prt", 0.0, recipe, live)
    optimizer = optimizer_of([p for p in network.parameters() if p.requires_grad], recipe)
    network.train()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss((images, labels, log_pt, 1.0)).backward()
        optimizer.step()

    return _measure(step, device, repeats, before)


def _infer(
    specs: Sequence[str], method: str, measures: Sequence[str], batch: int, device: torch.device, repeats: int
) -> Measured:
    before = start(device)
    kind = Classifier if "channels_last" in measures else _Contiguous
    networks = [_classifier(spec, kind).to(device).eval() for spec in specs]
    if "bf16" in measures:
        for network in networks:
            network.tower.bfloat16()
    sizes = [_size(network.tower) for network in networks]
    pictures = {size: _images(network, batch) for size, network in zip(sizes, networks, strict=True)}
    fused = Fused(
        networks, share="shared input" in measures, streams="streams" in measures, compiled="compile" in measures
    )

    def step() -> None:
        COMBINED[method](*fused([pictures[size] for size in sizes]))

    with torch.no_grad():
        return _measure(step, device, repeats, before)


def _measure(step: Callable[[], object], device: torch.device, repeats: int, before: float) -> Measured:
    for _ in range(WARM_UP[device.type]):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    forget_peak(device)
    times, launches = zip(*[timed(step, device) for _ in range(repeats)], strict=True)
    return Measured(list(times), list(launches) if device.type == "cuda" else [], memory(device, peak=True) - before)


def _about(device: torch.device, precisions: set[str]) -> tuple[dict[str, str], dict[str, float]]:
    """On what is measured, and its peak FLOP/s in ``precisions``."""
    start(device)
    origin, peaks = reach(device, precisions)
    return {"peak_from": origin, "device": device_name(device), "torch": torch.__version__}, peaks


def _bound(networks: Sequence[dict[str, int]], precision: str, device: torch.device, peaks: dict[str, float]) -> float:
    """The least time in ms that the device needs for the FLOPs of ``networks``, were it never idle."""
    gpu = precision == "fp32" and device.type == "cuda"
    precision = "bf16" if precision == "fp16" else precision  # tensor cores do both at one speed
    # Torch lets float32 convolutions run on TF32 units, but not products of matrices, unless told otherwise.
    kinds = {
        "convolutions": "tf32" if gpu and torch.backends.cudnn.allow_tf32 else precision,
        "rest": "tf32" if gpu and torch.backends.cuda.matmul.allow_tf32 else precision,
    }
    return 1000 * sum(flops / peaks[kinds[kind]] for network in networks for kind, flops in network.items())


def _rows(place: list[Any], measured: Measured, bound: float) -> list[list[Any]]:
    """Rows of :data:`COLUMNS` for one measurement."""
    rows = []
    for quantity, values, unit in (
        ("time_per_batch", measured.times, "ms"),
        ("launch_time_per_batch", measured.launches, "ms"),
        ("peak_memory", [measured.memory], "GB"),
        ("flop_bound", [bound], "ms"),
    ):
        if values:
            several = len(values) > 1
            low, middle, high = np.percentile(values, [25, 50, 75]) if several else (None, None, None)
            std = np.std(values, ddof=1) if several else None
            rows.append([*place, quantity, np.mean(values), std, middle, low, high, unit, len(values)])
    return rows


def _table(rows: list[list[Any]], facts: dict[str, str], refuted: set[str]) -> pd.DataFrame:
    """All rows but the bounds in a precision in which something was faster than its own: they bound nothing."""
    table = pd.DataFrame(rows, columns=COLUMNS).assign(**facts)
    if refuted:
        print(f"{' and '.join(sorted(refuted))} without a bound: some batch was faster than it.", file=sys.stderr)
    return table[~(table["quantity"].eq("flop_bound") & table["precision"].isin(refuted))]
