"""Table 3: time of a decoded token, beside the bound that the bytes it moves set.

What is measured, and how, is in ``decoding_runs``. Every pair and method runs in a process of its own, so that its
memory is its own; only these processes import transformers.
"""

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from prt.errors import InputError, known
from prt.language.recipe import PRECISIONS
from prt.methods import METHODS as TERMS
from prt.profiling import check, in_own_process
from prt.progress import progress

RUNS = "prt.language.decoding_runs"
REMEDY = "the models do not fit into memory; take smaller ones, a larger device, or precision bf16."
DRAFTED = 4  # tokens drafted at a time
SUPPOSED = 0.8  # share of the drafts that are accepted, where there is no tuned reward to measure it with
LEAST = 16  # new tokens of a run
METHODS = ("pretrained", "eft", "prt", "prt_speculative")
PLACE = ["table", "source", "target", "method", "variant", "weights"]
COLUMNS = [*PLACE, "quantity", "value", "std", "unit"]


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
    acceptance: float | None = None  # of the drafted tokens
    tokens_per_target_forward: float | None = None


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
        acceptance (of the drafted tokens) and tokens_per_target_forward. ``std`` is over the repeats, of
        tokens_per_second to first order. No bytes_bound is
        given where a measured time is below its own: the bandwidth was none of what was read. Where other work made a
        mean time negative, it and what hangs on it are left out, and standard error says so.

    Raises:
        InputError: for numbers that are too small, an unknown precision, a context that is too short, different
            tokenizers, models that cannot be had or do not fit into memory.
    """
    known(precision, PRECISIONS, "precision")
    check({"number of prompt tokens": prompt_tokens, "number of repeats": repeats}, device)
    if new_tokens < LEAST:
        raise InputError(f"{new_tokens} new tokens are too few to time; take {LEAST} or more.")
    reads = [in_own_process(REMEDY, f"{RUNS}:sizes", pair, precision, prompt_tokens, new_tokens) for pair in pairs]
    variants = ["eager", "static"]
    if compiled and device.type == "cpu" and shutil.which(os.environ.get("CXX", "g++")) is None:
        print("compiled steps are not measured: they need a C++ compiler, and there is no g++.", file=sys.stderr)
    elif compiled:
        variants.append("compiled")
    rows: list[list[Any]] = []
    least = min((target for _, target in reads), default=0)
    name, bandwidth, origin = in_own_process(REMEDY, f"{RUNS}:about", device, least)
    refuted = False
    with progress("benchmark decoding", len(pairs) * len(METHODS), "measurement") as bar:
        for pair, (source, target) in zip(pairs, reads, strict=True):
            alone: dict[str, float] = {}
            for method in METHODS:
                how = (variants, prompt_tokens, new_tokens, repeats, precision, device)
                for variant, measured in in_own_process(REMEDY, f"{RUNS}:decode", pair, method, *how).items():
                    if method == "pretrained":
                        alone[variant] = float(np.mean(measured.per_token))
                    place = ["table3", pair.source, pair.target, method, variant, pair.weights]
                    bound = 1000 * bytes_moved(method, target, source, measured.acceptance or 0.0) / bandwidth
                    rows += _rows(place, measured, bound, alone[variant])
                    # Of means: a single time is a difference of two runs, and may be too short.
                    refuted |= bool(0 < np.mean(measured.per_token) < bound)
                    if measured.acceptance is not None and pair.weights != "tuned":
                        place[4] = f"{variant}, if {SUPPOSED} accepted"
                        bound = 1000 * bytes_moved(method, target, source, SUPPOSED) / bandwidth
                        rows += _rows(place, _supposed(measured), bound, alone[variant])
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
    table = pd.DataFrame(rows, columns=COLUMNS).assign(**facts)
    if refuted:
        print("no bounds are given: some tokens were faster than theirs.", file=sys.stderr)
    return table[~(table["quantity"].eq("bytes_bound") & refuted)]


def bytes_moved(method: str, target: int, source: int, acceptance: float = 0.0) -> float:
    """Bytes that a decoded token costs, from those that a step of target and source reads.

    A round of speculative decoding steps once with the target, and with source and reward once for each draft; it gives
    one token more than were accepted.
    """
    if method == "prt_speculative":
        return (target + 2 * DRAFTED * source) / (1 + DRAFTED * acceptance)
    return target + source * len(TERMS[method].added)


def _rows(place: list[Any], measured: Measured, bound: float, alone: float) -> list[list[Any]]:
    """Rows of :data:`COLUMNS` for one measurement."""
    times = np.array(measured.per_token)
    mean, std = times.mean(), times.std(ddof=1) if len(times) > 1 else None
    rows: list[list[Any]] = [["bytes_bound", bound, None, "ms"], ["peak_memory", measured.memory, None, "GB"]]
    # A time is a difference of two runs: on a busy machine even the mean may be none, and its inverse is no speed.
    if mean > 0:
        speed = 1000 / mean
        rows.append(["time_per_token", mean, std, "ms"])
        rows.append(["tokens_per_second", speed, None if std is None else speed * std / mean, "1/s"])
        rows += [["relative_speed", alone / mean, None, "1"]] if alone > 0 else []
    else:
        source, target, method, variant = place[1:5]
        print(f"no time of {method} of {source} on {target}, {variant}: other work took more than the tokens; measure "
              "on a quiet machine, or more of them.", file=sys.stderr)  # fmt: skip
    if measured.acceptance is not None:
        rows.append(["acceptance", measured.acceptance, None, "1"])
        rows.append(["tokens_per_target_forward", measured.tokens_per_target_forward, None, "1"])
    return [[*place, *row] for row in rows]


def _supposed(measured: Measured) -> Measured:
    """The same rounds, in which a share :data:`SUPPOSED` of the drafts were accepted."""
    tokens = 1 + DRAFTED * SUPPOSED  # of a round
    per_token = [t / tokens for t in measured.per_round]
    return Measured(per_token, measured.per_round, measured.memory, SUPPOSED, tokens)
