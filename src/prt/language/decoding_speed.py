"""Table 3: time of a decoded token, beside the bound that the bytes it moves set.

One prompt at a time, greedily, for exactly as many new tokens as asked for: the end of text does not end it. A run that
stops after two new tokens is taken off a run with all of them, so that reading the prompt, making the caches and what
else is done once is not counted. The device is synchronised before and after each run; one run is a warm-up, in which
kernels are chosen, compiled and captured.

The prompt is a text, since what is drafted in speculative decoding hangs on it. Every pair and method runs in a process
of its own, so that its memory is its own.
"""

import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    CompileConfig,
    DynamicCache,
    GenerationConfig,
    PreTrainedTokenizerBase,
)

from prt.errors import InputError, known
from prt.language import composed
from prt.language.models import DTYPES, Causal, load, load_tokenizer, shared_ids, vocabulary
from prt.language.reward import load_tuned
from prt.language.speculative import Speculative, Statistics
from prt.profiling import apart, check, device_name, forget_peak, memory, start
from prt.progress import progress

DRAFTED = 4  # tokens drafted at a time
SUPPOSED = 0.8  # share of the drafts that are accepted, where there is no tuned reward to measure it with
SHORT, LEAST = 2, 16  # new tokens of the run that is taken off, and of a run at least
METHODS = ("pretrained", "eft", "prt", "prt_speculative")
PLACE = ["table", "source", "target", "method", "variant", "weights"]
COLUMNS = [*PLACE, "quantity", "value", "std", "unit"]
PROMPT = (
    "Question: Nora has 14 apples and buys 9 more. She gives 5 of them to her brother. How many apples does she have "
    "left?\nAnswer: Nora has 14 + 9 = 23 apples. After giving 5 away she has 23 - 5 = 18.\n#### 18\n\nQuestion: A "
    "train has 6 wagons with 20 seats in each, and 35 seats are taken. How many seats are free?\nAnswer:"
)
# Bytes per second, from NVIDIA's data sheets of the A100, the H100 (SXM) and the H200.
BANDWIDTH = {
    "NVIDIA A100-SXM4-40GB": 1555e9,
    "NVIDIA A100-SXM4-80GB": 2039e9,
    "NVIDIA A100-PCIE-40GB": 1555e9,
    "NVIDIA A100 80GB PCIe": 1935e9,
    "NVIDIA H100 80GB HBM3": 3350e9,
    "NVIDIA H200": 4800e9,
}


@dataclass(frozen=True)
class Pair:
    """A source and a target of Table 3: names, and folders in transformers' format.

    A folder without weights (only config.json and a tokenizer) gives a model with random ones. ``reward`` is the folder
    of a reward tuned on the source; without one the reward is a second copy of the source, which is as fast, but whose
    drafts are accepted more rarely or more often than a tuned one's.
    """

    source: str
    source_folder: str
    target: str
    target_folder: str
    reward: str | None = None

    @property
    def weights(self) -> str:
        """``tuned`` with a tuned reward, ``pretrained`` with the source in its place, or else ``random``."""
        real = all(any(Path(folder).glob("*.safetensors")) for folder in (self.source_folder, self.target_folder))
        return "random" if not real else "tuned" if self.reward else "pretrained"


@dataclass
class Measured:
    """Times in ms, one a repeat; peak memory in GB of 10⁹ bytes; what speculative decoding did."""

    per_token: list[float] = field(default_factory=list)
    per_round: list[float] = field(default_factory=list)  # k drafts and their verification
    memory: float = 0.0
    statistics: Statistics | None = None


def decoding(
    pairs: Sequence[Pair],
    prompt_tokens: int,
    new_tokens: int,
    repeats: int,
    precision: str,
    device: torch.device,
    *,
    compiled: bool = True,
) -> pd.DataFrame:
    """Decode with the target alone, EFT (three models), PRT (two) and speculative PRT (three).

    Each with a cache that grows (``eager``), one of fixed size (``static``) and steps compiled by torch.compile on the
    latter (``compiled``; CUDA graphs on a GPU). Where the reward is not tuned, a line of speculative PRT says what the
    measured time of a round makes of it ``if 0.8 accepted``: it is computed, not measured, and a little too fast, as
    after a round in which every draft is accepted the reward has one token more to read.

    Args:
        new_tokens: at least 16.
        repeats: runs that are counted.
        precision: fp32 or bf16.
        compiled: measure compiled steps, too; they take a minute or more before the first token.

    Returns:
        A row for each method, variant and quantity: time_per_token and bytes_bound in ms, tokens_per_second,
        relative_speed (to the target alone, of the same variant), peak_memory in GB, and of speculative decoding
        acceptance (of the drafted tokens) and tokens_per_target_forward. ``std`` is over the repeats.

    Raises:
        InputError: for numbers that are too small, an unknown precision, a context that is too short, different
            tokenizers, models that cannot be had or do not fit into memory.
    """
    known(precision, DTYPES, "precision")
    check({"number of prompt tokens": prompt_tokens, "number of repeats": repeats}, device)
    if new_tokens < LEAST:
        raise InputError(f"{new_tokens} new tokens are too few to time; take {LEAST} or more.")
    for pair in pairs:
        _must_fit(pair, prompt_tokens + new_tokens)
    variants = ["eager", "static"]
    if compiled and device.type == "cpu" and shutil.which(os.environ.get("CXX", "g++")) is None:
        print("compiled steps are not measured: they need a C++ compiler, and there is no g++.", file=sys.stderr)
    elif compiled:
        variants.append("compiled")
    dtype, rows = DTYPES[precision], []
    remedy = "the models do not fit into memory; take smaller ones, a larger device, or precision bf16."
    name, bandwidth, origin = apart(remedy, _about, device)
    with progress("benchmark decoding", len(pairs) * len(METHODS), "measurement") as bar:
        for pair in pairs:
            reads = {
                model: bytes_read(folder, dtype, prompt_tokens + (new_tokens + 1) // 2)
                for model, folder in (("source", pair.source_folder), ("target", pair.target_folder))
            }
            alone: dict[str, float] = {}
            for method in METHODS:
                found = apart(
                    remedy, _decode, pair, method, variants, prompt_tokens, new_tokens, repeats, precision, device
                )
                for variant, measured in found.items():
                    if method == "pretrained":
                        alone[variant] = float(np.mean(measured.per_token))
                    place = ["table3", pair.source, pair.target, method, variant, pair.weights]
                    moved = bytes_moved(method, reads["target"], reads["source"], _acceptance(measured.statistics))
                    rows += _rows(place, measured, 1000 * moved / bandwidth, alone[variant])
                    if measured.statistics is not None and pair.weights != "tuned":
                        place[4] = f"{variant}, if {SUPPOSED} accepted"
                        moved = bytes_moved(method, reads["target"], reads["source"], SUPPOSED)
                        rows += _rows(place, _supposed(measured), 1000 * moved / bandwidth, alone[variant])
                bar.update()
    facts = {
        "prompt_tokens": prompt_tokens,
        "new_tokens": new_tokens,
        "repeats": repeats,
        "precision": precision,
        "bandwidth": bandwidth / 1e9,  # GB/s
        "bandwidth_from": origin,
        "device": name,
        "torch": torch.__version__,
    }
    return pd.DataFrame(rows, columns=COLUMNS).assign(**facts)


def bytes_read(folder: str, dtype: torch.dtype, context: int) -> int:
    """Bytes that one decoding step of a model reads: its weights, and keys and values of ``context`` positions.

    Of an input embedding a row is read, which is not counted; where it is the output layer as well, all of it is read.
    """
    config = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):  # shapes alone, no numbers
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
        cache = DynamicCache(config=config)
        model(torch.zeros(1, context, dtype=torch.long), past_key_values=cache, use_cache=True)
    total = sum(parameter.nbytes for parameter in model.parameters())
    embedding = model.get_input_embeddings().weight
    if model.get_output_embeddings().weight is not embedding:
        total -= embedding.nbytes
    layers: list[Any] = cache.layers
    return total + sum(layer.keys.nbytes + layer.values.nbytes for layer in layers)


def bytes_moved(method: str, target: int, source: int, acceptance: float = 0.0) -> float:
    """Bytes that a decoded token costs, from those that a step of target and source reads.

    A round of speculative decoding steps once with the target, and with source and reward once for each draft; it gives
    one token more than were accepted.
    """
    if method == "prt_speculative":
        return (target + 2 * DRAFTED * source) / (1 + DRAFTED * acceptance)
    return target + source * {"pretrained": 0, "prt": 1, "eft": 2}[method]


def _rows(place: list[Any], measured: Measured, bound: float, alone: float) -> list[list[Any]]:
    """Rows of :data:`COLUMNS` for one measurement."""
    times = np.array(measured.per_token)
    mean, std = times.mean(), times.std(ddof=1) if len(times) > 1 else None
    speeds = 1000 / times
    rows: list[list[Any]] = [
        ["time_per_token", mean, std, "ms"],
        ["tokens_per_second", speeds.mean(), speeds.std(ddof=1) if len(times) > 1 else None, "1/s"],
        ["bytes_bound", bound, None, "ms"],
        ["relative_speed", alone / mean, None, "1"],
        ["peak_memory", measured.memory, None, "GB"],
    ]
    if measured.statistics is not None:
        statistics = measured.statistics
        rows.append(["acceptance", _acceptance(statistics), None, "1"])
        rows.append(["tokens_per_target_forward", statistics.tokens / statistics.target_forwards, None, "1"])
    return [[*place, *row] for row in rows]


def _acceptance(statistics: Statistics | None) -> float:
    return statistics.accepted / statistics.drafted if statistics is not None else 0.0


def _supposed(measured: Measured) -> Measured:
    """The same rounds, in which a share :data:`SUPPOSED` of the drafts were accepted."""
    rounds = 1000
    kept = round(rounds * DRAFTED * SUPPOSED)
    statistics = Statistics(rounds * DRAFTED, kept, rounds, rounds + kept)
    per_token = [t / (1 + DRAFTED * SUPPOSED) for t in measured.per_round]
    return Measured(per_token, measured.per_round, measured.memory, statistics)


def _decode(
    pair: Pair,
    method: str,
    variants: Sequence[str],
    prompt_tokens: int,
    new_tokens: int,
    repeats: int,
    precision: str,
    device: torch.device,
) -> dict[str, Measured]:
    """Every variant of one method on one pair."""
    before = start(device)
    model, draft = _models(pair, method, DTYPES[precision], device)
    drafting = None if draft is None else Speculative(model, draft, DRAFTED)
    ids = prompt(model.tokenizer, prompt_tokens).to(device)
    found = {}
    for variant in variants:
        forget_peak(device)
        options, measured = _options(variant, device), Measured()
        _run(model, drafting, ids, new_tokens, options)
        for _ in range(repeats):
            short, few = _run(model, drafting, ids, SHORT, options)
            whole, many = _run(model, drafting, ids, new_tokens, options)
            measured.per_token.append(1000 * (whole - short) / (new_tokens - SHORT))
            if few is not None and many is not None:
                rounds = many.target_forwards - few.target_forwards
                measured.per_round.append(1000 * (whole - short) / rounds)
                measured.statistics = many
        measured.memory = memory(device, peak=True) - before
        found[variant] = measured
    return found


def _models(pair: Pair, method: str, dtype: torch.dtype, device: torch.device) -> tuple[Causal, Causal | None]:
    """What decodes, and the draft of speculative decoding."""

    def model(folder: str, name: str) -> Causal:
        if any(Path(folder).glob("*.safetensors")):
            loaded = load(folder, dtype, device, name)
        else:
            with device:
                network = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=dtype)
            loaded = Causal(name, network.eval(), load_tokenizer(folder))
        loaded.model.generation_config = GenerationConfig(pad_token_id=0)  # greedy, and nothing ends a text
        return loaded

    def tuned() -> Causal:
        if pair.reward is None:
            return model(pair.source_folder, "reward")
        return load_tuned(Path(pair.reward), dtype, device, pair.source_folder)

    target = model(pair.target_folder, pair.target)
    if method == "pretrained":
        return target, None
    if method == "eft":
        return composed.eft(target, tuned(), model(pair.source_folder, pair.source)), None
    decoder = composed.prt(target, [tuned()], [1.0])
    return decoder, model(pair.source_folder, pair.source) if method == "prt_speculative" else None


def prompt(tokenizer: PreTrainedTokenizerBase, tokens: int) -> Tensor:
    """The last ``tokens`` ids (1, positions) of a text with word problems, repeated as often as needed."""
    one = len(tokenizer(PROMPT, add_special_tokens=False)["input_ids"])
    text = "\n\n".join([PROMPT] * ceil(tokens / one))
    return torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"][-tokens:]])


def _must_fit(pair: Pair, length: int) -> None:
    """Refuse, before anything is measured, different tokenizers and a context that is too short."""
    target, source = (vocabulary(load_tokenizer(folder)) for folder in (pair.target_folder, pair.source_folder))
    shared_ids(target, source, (pair.target, pair.source))
    for name, folder in ((pair.target, pair.target_folder), (pair.source, pair.source_folder)):
        context = getattr(AutoConfig.from_pretrained(folder), "max_position_embeddings", None)
        if context is not None and length > context:
            raise InputError(
                f"prompt and new tokens are {length} tokens, but the context of {name} is {context}; take fewer."
            )


def _options(variant: str, device: torch.device) -> dict[str, Any]:
    """What makes generate() decode so."""
    if variant == "eager":
        return {}
    if variant == "static":
        return {"cache_implementation": "static", "disable_compile": True}
    # A GPU's default captures graphs, which a CPU has not.
    config: Any = CompileConfig() if device.type == "cuda" else CompileConfig(mode="default")
    config._compile_all_devices = True  # transformers compiles on a CPU only where told to
    return {"cache_implementation": "static", "compile_config": config}


@torch.no_grad()
def _run(
    model: Causal, drafting: Speculative | None, ids: Tensor, new_tokens: int, options: dict[str, Any]
) -> tuple[float, Statistics | None]:
    """Seconds that a prompt and so many new tokens take, and what speculative decoding did."""
    network: Any = model.model
    statistics, options = None, options | {"max_new_tokens": new_tokens, "do_sample": False}
    _synchronise(ids.device)
    clock = time.perf_counter()
    if drafting is None:
        out = network.generate(ids, attention_mask=torch.ones_like(ids), **options)
    else:
        out, statistics = drafting.generate(ids, **options)
    _synchronise(ids.device)
    seconds = time.perf_counter() - clock
    assert out.shape[1] == ids.shape[1] + new_tokens
    return seconds, statistics


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _about(device: torch.device) -> tuple[str, float, str]:
    """On what is measured; the bytes per second of its memory, and whether a data sheet or a measurement says so."""
    start(device)
    name = device_name(device)
    if name in BANDWIDTH:
        return name, BANDWIDTH[name], "datasheet"
    return name, _reached(device), "measured"


def _reached(device: torch.device) -> float:
    """Bytes per second of memory larger than any cache: the best of a few copies and products with a vector."""
    size = 16384 if device.type == "cuda" else 8192
    here, vector = torch.ones(size, size, device=device), torch.ones(size, device=device)
    there, speeds = torch.empty_like(here), []
    for count, work in ((2, partial(there.copy_, here)), (1, partial(torch.mv, here, vector))):
        for _ in range(4):
            _synchronise(device)
            clock = time.perf_counter()
            work()
            _synchronise(device)
            speeds.append(count * here.nbytes / (time.perf_counter() - clock))
    return max(speeds)
