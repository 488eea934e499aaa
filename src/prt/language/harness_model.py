"""A model as lm-evaluation-harness asks it: what would be cut there is refused."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import normalize_gen_kwargs
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from prt.errors import InputError
from prt.language.models import Causal


class Asked(Protocol):
    """A model that benchmarks ask, whatever runs it; ``dtype`` is its precision, as torch names it."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def tokenizer(self) -> PreTrainedTokenizerBase: ...  # noqa: D102
    @property
    def dtype(self) -> str: ...  # noqa: D102
    @property
    def engine(self) -> str: ...  # noqa: D102
    @property
    def versions(self) -> dict[str, str]: ...  # noqa: D102

    def asking(self, benchmark: str, batch: int) -> Any:
        """Lm-eval's wrapper of it, which asks it on a benchmark, ``batch`` prompts at once."""


@dataclass(frozen=True)
class InTransformers:
    """A model that transformers runs."""

    causal: Causal
    engine = "transformers"

    @property
    def name(self) -> str:
        """As messages give it."""
        return self.causal.name

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Its own."""
        return self.causal.tokenizer

    @property
    def dtype(self) -> str:
        """Of its weights."""
        return str(self.causal.model.dtype).removeprefix("torch.")

    @property
    def versions(self) -> dict[str, str]:
        """Nothing beside what is always told."""
        return {}

    def asking(self, benchmark: str, batch: int) -> Any:
        """As :class:`Asked` has it."""
        return HarnessModel(self.causal, benchmark, batch)


class Refusing:
    """What lm-eval's wrappers have in common here: a prompt that would be cut, and a likelihood of NaN, are refused."""

    causal_name: str
    benchmark: str
    spare = 0  # tokens of the context that an engine wants beside a text whose likelihood is asked

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Answers to prompts.

        Raises:
            InputError: if a prompt and its answer do not fit into the context.
        """
        own: Any = self
        for request in requests:
            prompt, options = request.args
            answer = normalize_gen_kwargs(options, own.max_gen_toks)["max_gen_toks"]
            self._fits(request, len(own.tok_encode(prompt)), answer)
        asked: Any = super()
        return list(asked.generate_until(requests, disable_tqdm))

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """The log-likelihood of continuations, and whether greedy decoding gives them.

        Raises:
            InputError: if a prompt and its continuation do not fit into the context, or the model gives NaN.
        """
        self._asked = requests
        asked: Any = super()
        answers: list[tuple[float, bool]] = asked.loglikelihood(requests, disable_tqdm)
        if any(math.isnan(likelihood) for likelihood, _ in answers):
            raise InputError(
                f"{self.causal_name} gives NaN on {self.benchmark}; its weights are broken, tune it again."
            )
        return answers

    def _loglikelihood_tokens(self, requests: Sequence[Any], *arguments: Any, **options: Any) -> list[Any]:
        for request, (_, context, continuation) in zip(self._asked, requests, strict=True):
            self._fits(request, len(context), len(continuation) - 1 + self.spare)  # the last token is never read
        asked: Any = super()
        return list(asked._loglikelihood_tokens(requests, *arguments, **options))

    def _fits(self, request: Any, prompt: int, answer: int) -> None:
        longest = cast(Any, self).max_length
        if prompt + answer > longest:
            raise InputError(
                f"{self.benchmark}: example {request.doc_id} of {request.task_name} has {prompt} tokens, its answer "
                f"needs {answer} more, and the context of {self.causal_name} is {longest}; ask with fewer "
                "shots or, where answers are written, a smaller max_gen_toks in `generation`, or leave this model out."
            )


class HarnessModel(Refusing, HFLM):  # type: ignore[misc]
    """lm-eval's own wrapper of a model of transformers, which asks it on a benchmark, ``batch`` prompts at once."""

    def __init__(self, causal: Causal, benchmark: str, batch: int) -> None:
        # lm-eval sets the tokenizer's padding.
        tokenizer = copy.deepcopy(causal.tokenizer)
        super().__init__(pretrained=causal.model, tokenizer=tokenizer, backend="causal", batch_size=batch)
        self.causal_name, self.benchmark = causal.name, benchmark

    def _model_generate(self, context: Tensor, max_length: int, stop: list[str], **options: Any) -> Tensor:
        # A model's own max_new_tokens would win over max_length (Qwen2.5's base models bring one of 2048).
        return super()._model_generate(
            context, max_length, stop, max_new_tokens=max_length - context.shape[1], **options
        )
