"""What Table 3 measures, each in a process of its own: times and memory of decoding, bytes that it reads.

One prompt at a time, greedily, for exactly as many new tokens as asked for: the end of text does not end it. A run that
stops after two new tokens is taken off a run with all of them, so that reading the prompt, making the caches and what
else is done once is not counted. The device is synchronised before and after each run; one run is a warm-up, in which
kernels are chosen, compiled and captured.

The prompt is a text, since what is drafted in speculative decoding depends on it.
"""

import time
from collections.abc import Sequence
from functools import partial
from math import ceil, isqrt
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    CompileConfig,
    DynamicCache,
    GenerationConfig,
    PreTrainedTokenizerBase,
)

from prt.errors import InputError
from prt.language.composed import compose
from prt.language.decoding_speed import DRAFTED, Measured, Pair
from prt.language.models import DTYPES, Causal, load, load_config, load_tokenizer, shared_ids, vocabulary
from prt.language.reward import load_tuned
from prt.language.speculative import Speculative, Statistics
from prt.methods import METHODS
from prt.profiling import device_name, forget_peak, memory, start

SHORT = 2  # new tokens of the run that is taken off
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


def about(device: torch.device, least: int) -> tuple[str, float, str]:
    """On what is measured; the bytes per second of its memory, and whether a data sheet or a measurement says so.

    ``least`` are the bytes of the smallest step: a cache that holds them is faster than the memory.
    """
    start(device)
    name = device_name(device)
    if name in BANDWIDTH:
        return name, BANDWIDTH[name], "datasheet"
    return name, _reached(device, least), "measured"


def sizes(pair: Pair, precision: str, prompt_tokens: int, new_tokens: int) -> tuple[int, int]:
    """:func:`bytes_read` of the source and of the target, half way through the new tokens.

    Raises:
        InputError: for different tokenizers, a context that is too short, a model that cannot be had.
    """
    length, context_read = prompt_tokens + new_tokens, prompt_tokens + (new_tokens + 1) // 2
    target, source = (vocabulary(load_tokenizer(folder)) for folder in (pair.target_folder, pair.source_folder))
    shared_ids(target, source, (pair.target, pair.source))
    for name, folder in ((pair.target, pair.target_folder), (pair.source, pair.source_folder)):
        context = getattr(load_config(folder), "max_position_embeddings", None)
        if context is not None and length > context:
            raise InputError(
                f"prompt and new tokens are {length} tokens, but the context of {name} is {context}; take fewer."
            )
    source_bytes, target_bytes = (
        bytes_read(folder, DTYPES[precision], context_read) for folder in (pair.source_folder, pair.target_folder)
    )
    return source_bytes, target_bytes


def bytes_read(folder: str, dtype: torch.dtype, context: int) -> int:
    """Bytes that one decoding step of a model reads: its weights, and keys and values of ``context`` positions.

    Of an input embedding a row is read, which is not counted; where it is the output layer as well, all of it is read.
    """
    config = load_config(folder)
    with torch.device("meta"):  # shapes alone, no numbers
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
        cache = DynamicCache(config=config)
        model(torch.zeros(1, context, dtype=torch.long), past_key_values=cache, use_cache=True)
    total = sum(parameter.nbytes for parameter in model.parameters())
    embedding = model.get_input_embeddings().weight
    if model.get_output_embeddings().weight is not embedding:
        total -= embedding.nbytes
    layers: list[Any] = cache.layers
    return total + sum(layer.keys.nbytes + layer.values.nbytes for layer in layers)


def decode(
    pair: Pair,
    method: str,
    variants: Sequence[str],
    prompt_tokens: int,
    new_tokens: int,
    repeats: int,
    precision: str,
    device: torch.device,
) -> dict[str, Measured]:
    """Every variant of one method on one pair; see :func:`prt.language.decoding_speed.decoding`."""
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
                measured.acceptance = many.accepted / many.drafted
                measured.tokens_per_target_forward = many.tokens / many.target_forwards
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
                network = AutoModelForCausalLM.from_config(load_config(folder), dtype=dtype, trust_remote_code=False)
            loaded = Causal(name, network.eval(), load_tokenizer(folder))
        loaded.model.generation_config = GenerationConfig(pad_token_id=0)  # greedy, and nothing ends a text
        return loaded

    def tuned() -> Causal:
        if pair.reward is None:
            return model(pair.source_folder, "reward")
        return load_tuned(Path(pair.reward), dtype, device, pair.source_folder)

    target = model(pair.target_folder, pair.target)
    plain = method.removesuffix("_speculative")
    parts = [
        (model(pair.source_folder, pair.source) if network.model == "pretrained" else tuned(), float(sign))
        for sign, network in METHODS[plain].added
    ]
    decoder = compose(target, parts, plain) if parts else target
    return decoder, None if method == plain else model(pair.source_folder, pair.source)


def prompt(tokenizer: PreTrainedTokenizerBase, tokens: int) -> Tensor:
    """The last ``tokens`` ids (1, positions) of a text with word problems, repeated as often as needed."""
    one = len(tokenizer(PROMPT, add_special_tokens=False)["input_ids"])
    text = "\n\n".join([PROMPT] * ceil(tokens / one))
    return torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"][-tokens:]])


def _options(variant: str, device: torch.device) -> dict[str, Any]:
    """What makes generate() decode so."""
    if variant == "eager":
        return {}
    if variant == "static":
        return {"cache_implementation": "static", "disable_compile": True}
    # A GPU's default captures graphs, which a CPU has not.
    config: Any = CompileConfig() if device.type == "cuda" else CompileConfig(mode="default")
    config._compile_all_devices = True  # else transformers does not compile on a CPU
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


def _reached(device: torch.device, least: int) -> float:
    """Bytes per second of so many bytes, or of more than any cache: the best of copies and products with a vector."""
    size = min(16384 if device.type == "cuda" else 8192, max(256, isqrt(least // 4)))
    here, vector = torch.ones(size, size, device=device), torch.ones(size, device=device)
    there, speeds = torch.empty_like(here), []
    for count, work in ((2, partial(there.copy_, here)), (1, partial(torch.mv, here, vector))):
        for _ in range(10):
            _synchronise(device)
            clock = time.perf_counter()
            work()
            _synchronise(device)
            speeds.append(count * here.nbytes / (time.perf_counter() - clock))
    return max(speeds)
