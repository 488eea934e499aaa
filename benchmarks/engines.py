"""Tokens a CPU second of a target with a reward on it: vLLM beside transformers' batches, answers of uneven length.

One thread each, CPU time of the process, so that what else the machine does counts little. Random Llamas in fp32.
A static batch goes on until its longest answer has ended; only tokens of answers are counted.
"""

import os

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")
os.environ.update(VLLM_ENABLE_V1_MULTIPROCESSING="0", VLLM_CPU_OMP_THREADS_BIND="nobind", VLLM_CPU_KVCACHE_SPACE="1")
os.environ["VLLM_LOGGING_LEVEL"] = "ERROR"

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from prt.language.composed import compose
from prt.language.models import load
from prt.miniature.text import tokenizer

# Width, layers and rows of target and of reward; requests; mean length of answers, which are uneven or all equal.
SIZES: dict[str, tuple[tuple[int, int, int], tuple[int, int, int], int, int]] = {
    "0.5M + 0.1M": ((128, 2, 384), (64, 2, 384), 96, 48),
    "24M + 8M": ((384, 6, 32000), (192, 4, 32000), 48, 32),
    "117M + 24M": ((768, 12, 32000), (384, 6, 32000), 24, 24),
}
BATCHES = (16, 64)


def network(width: int, layers: int, rows: int, seed: int) -> LlamaForCausalLM:
    """A random Llama with heads of 32 (64 where it is wide) and tied embeddings."""
    torch.manual_seed(seed)
    words, head = tokenizer(), 64 if width > 128 else 32
    config = LlamaConfig(
        vocab_size=rows,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // head,
        head_dim=head,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
        bos_token_id=None,
        dtype="float32",
    )
    return LlamaForCausalLM(config).eval()


def lengths(count: int, mean: int, uneven: bool) -> list[int]:
    """How long the answers are: exponential, from 2 to six times the mean, or all the mean."""
    if not uneven:
        return [mean] * count
    torch.manual_seed(0)
    return [int(min(6 * mean, 2 + each)) for each in torch.empty(count).exponential_(1 / mean).tolist()]


def static(folders: list[Path], prompts: list[list[int]], batch: int) -> Callable[[list[int]], None]:
    """Gives answers of such lengths in transformers' batches."""
    cpu = torch.device("cpu")
    target, reward = (load(str(folder), torch.float32, cpu) for folder in folders)
    model: Any = compose(target, [(reward, 1.0)], "prt").model

    def run(wanted: list[int]) -> None:
        for start in range(0, len(prompts), batch):
            ids = torch.tensor(prompts[start : start + batch])
            longest = max(wanted[start : start + batch])
            options = {"max_new_tokens": longest, "min_new_tokens": longest, "do_sample": False}
            model.generate(ids, attention_mask=torch.ones_like(ids), **options)

    return run


def continuous(folder: Path, prompts: list[list[int]]) -> Callable[[list[int]], None]:
    """Gives answers of such lengths in vLLM."""
    from vllm import LLM, SamplingParams

    from prt.engine.plugin import MODE

    engine = LLM(str(folder), dtype="float32", enforce_eager=True, tokenizer_mode=MODE, enable_prefix_caching=False)
    asked = [{"prompt_token_ids": prompt} for prompt in prompts]

    def run(wanted: list[int]) -> None:
        how = [SamplingParams(temperature=0, max_tokens=n, ignore_eos=True, detokenize=False) for n in wanted]
        engine.generate(asked, how, use_tqdm=False)

    return run


def measure(name: str, repeats: int) -> None:
    """Print the rows of one size."""
    from prt.engine.folder import folder_for_vllm, published

    target, reward, count, mean = SIZES[name]
    with tempfile.TemporaryDirectory() as top:
        folders = [Path(top, "target"), Path(top, "reward")]
        for seed, (folder, sizes) in enumerate(zip(folders, (target, reward), strict=True)):
            network(*sizes, seed).save_pretrained(folder)
            tokenizer().save_pretrained(folder)
        torch.manual_seed(1)
        prompts = torch.randint(4, 384, (count, 32)).tolist()
        with folder_for_vllm([published(str(folder)) for folder in folders], None) as place:
            runs = {f"transformers, batch {n}": static(folders, prompts, n) for n in BATCHES}
            runs["vLLM, eager"] = continuous(place, prompts)
            for uneven in (True, False):
                wanted = lengths(count, mean, uneven)
                rates: dict[str, list[float]] = {engine: [] for engine in runs}
                for number in range(repeats + 1):  # the first warms up
                    for engine, run in runs.items():
                        begin = time.process_time()
                        run(wanted)
                        if number:
                            rates[engine].append(sum(wanted) / (time.process_time() - begin))
                for engine, found in rates.items():
                    spread = f"{statistics.median(found):.0f} ({min(found):.0f} to {max(found):.0f})"
                    print(f"| {name} | {'uneven' if uneven else 'even'} | {engine} | {spread} |", flush=True)


def main() -> None:
    """Print a table in Markdown, a size as soon as it is measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sizes", nargs="*", default=list(SIZES))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print("| target + reward | answers | engine | tokens a CPU second, median (least to most) |\n|---|---|---|---|")
    from vllm.distributed import cleanup_dist_env_and_memory

    for name in asked.sizes:
        measure(name, asked.repeats)
        cleanup_dist_env_and_memory()  # once the engine of that size is gone


if __name__ == "__main__":
    main()
