"""lm-evaluation-harness asking vLLM: the sums of networks of :mod:`prt.language.parts`, one engine at a time."""

import importlib.metadata
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import vllm
from transformers import GenerationConfig, PreTrainedTokenizerBase
from vllm.distributed import cleanup_dist_env_and_memory

from prt.atomic import scratch
from prt.cell import Cell
from prt.engine.folder import Part, folder_for_vllm, published, tuned
from prt.engine.plugin import MODE
from prt.errors import InputError
from prt.language.composed import generation_of
from prt.language.fit import fitted
from prt.language.harness import SEED
from prt.language.harness_model import Refusing
from prt.language.parts import Models
from prt.methods import Network, method

# Habits that change greedy answers, which vLLM does not have, or has otherwise.
HABITS = (
    *("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids", "min_length", "min_new_tokens"),
    *("suppress_tokens", "begin_suppress_tokens", "forced_bos_token_id", "forced_eos_token_id", "sequence_bias"),
    *("exponential_decay_length_penalty", "guidance_scale", "encoder_repetition_penalty"),
)


def _wrapper() -> Any:
    """lm-eval's wrapper, which asks for the version of a package called vllm: vLLM for CPUs is called otherwise."""
    of = importlib.metadata.version

    def version(distribution_name: str) -> str:
        return str(vllm.__version__) if distribution_name == "vllm" else of(distribution_name)

    importlib.metadata.version = version
    try:
        from lm_eval.models.vllm_causallms import VLLM
    finally:
        importlib.metadata.version = of
    return VLLM


class VllmModel(Refusing, _wrapper()):  # type: ignore[misc]
    """lm-eval's own wrapper of vLLM, which has all prompts of a benchmark at once, and batches them itself."""

    spare = 2  # it reads the whole text, and writes one token more
    penalty = 1.0

    def modify_gen_kwargs(self, *arguments: Any, **options: Any) -> tuple[dict[str, Any], list[str], int]:
        """As for transformers: with the target's repetition penalty, and without control tokens in answers."""
        changed, until, longest = super().modify_gen_kwargs(*arguments, **options)
        return {"repetition_penalty": self.penalty} | changed | {"skip_special_tokens": True}, until, longest

    def _model_generate(
        self, requests: list[list[int]], generate: bool = False, sampling_params: Any = None
    ) -> Sequence[Any]:
        if not generate:
            sampling_params = vllm.SamplingParams(temperature=0, prompt_logprobs=1, max_tokens=1, detokenize=False)
        prompts = [vllm.TokensPrompt(prompt_token_ids=request) for request in requests]
        return list(self.model.generate(prompts, sampling_params=sampling_params, use_tqdm=False))

    def close(self) -> None:
        """End the engine, and free its memory."""
        self.model.llm_engine.engine_core.shutdown()
        del self.model
        cleanup_dist_env_and_memory()


@dataclass(frozen=True)
class InVllm:
    """A sum of networks that vLLM runs, as :class:`prt.language.harness_model.Asked`."""

    name: str
    tokenizer: PreTrainedTokenizerBase
    dtype: str
    model: Any
    engine = "vllm"

    @property
    def versions(self) -> dict[str, str]:
        """vLLM's."""
        return {"vllm": str(vllm.__version__)}

    def asking(self, benchmark: str, batch: int) -> Any:
        """The wrapper. vLLM itself sees how many prompts fit: ``batch`` is not read."""
        self.model.causal_name, self.model.benchmark = self.name, benchmark
        return self.model


class EngineModels(Models):
    """The models of some cells, in vLLM: a network alone, or a target with others put on it.

    Only one runs at a time; it stays for the next cell of the same sum, such as on another benchmark. Arguments are
    those of :class:`prt.language.parts.Models`, but that vLLM knows its device.

    Args:
        stack: closes it.
    """

    def __init__(
        self,
        folder: Callable[[Cell, Network], str],
        dtype: torch.dtype,
        device: torch.device,
        template: str,
        stack: ExitStack,
    ) -> None:
        super().__init__(folder, dtype, device, template)
        found: dict[tuple[str, str], Part] = {}

        def load_tuned(folder: str, base: str) -> Part:
            if (folder, base) not in found:
                found[folder, base] = stack.enter_context(tuned(Path(folder), base))
            return found[folder, base]

        self._tuned: Any = load_tuned
        self._in_transformers = Models(folder, dtype, torch.device("cpu"), template)
        self._key: Cell | None = None
        self._running: Any = None
        self._open = stack.enter_context(ExitStack())

    def of(self, cell: Cell) -> Any:
        """The model that a cell measures; the one before is ended, if it is another.

        Raises:
            InputError: as :meth:`prt.language.parts.Models.of`; if vLLM does not know a network, or the target has
                habits that vLLM has not.
        """
        if (key := cell.model_copy(update={"dataset": ""})) != self._key:
            self._key = None
            self._open.close()
            if method(cell.method).merged:
                parts = [self._merged(cell)]
                template = parts[0].tokenizer.chat_template
            else:
                base, added, template = self._sum(cell)
                parts = [base, *(replace(part, weight=weight) for part, weight in added)]
            self._running = self._run(parts, template, cell)
            self._key = key
        return self._running

    def _read(self, spec: str, name: str) -> Part:
        return published(spec, name)

    def _merged(self, cell: Cell) -> Part:
        """A network of summed weights, which transformers makes; its folder stays as long as it runs."""
        made: Any = self._in_transformers.of(cell)  # of weights, so of one tokenizer
        folder = self._open.enter_context(scratch("merged"))
        made.model.save_pretrained(folder)
        made.tokenizer.save_pretrained(folder)
        return published(str(folder), made.name)

    def _run(self, parts: list[Part], template: str | None, cell: Cell) -> InVllm:
        target, *others = (part.causal for part in parts)
        name = ", ".join(f"{part.weight:+g} {part.causal.name}" for part in parts[1:])
        name = f"{target.name} ({cell.method}: {name})" if name else target.name
        barred = set(fitted(target, others).barred)
        penalty = _penalty(generation_of([part.causal.model for part in parts], barred), target.name)
        folder = self._open.enter_context(folder_for_vllm(parts, template))
        dtype = str(self._dtype).removeprefix("torch.")
        model = VllmModel(str(folder), dtype=dtype, tokenizer_mode=MODE, seed=SEED)
        self._open.callback(model.close)
        model.penalty = penalty
        return InVllm(name, model.tokenizer, dtype, model)


def _penalty(own: GenerationConfig, name: str) -> float:
    """The repetition penalty of a target's habits.

    Raises:
        InputError: for a habit that vLLM has not.
    """
    for habit in HABITS:
        if getattr(own, habit, None) not in (None, 0, 1.0, [], {}):
            raise InputError(
                f"generation_config.json of {name} sets {habit}, which vLLM does not do as transformers does; measure "
                "it with the engine transformers."
            )
    return float(own.repetition_penalty or 1.0)
