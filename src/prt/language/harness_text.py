"""A target with a tuning on it as text, as lm-evaluation-harness asks it: one prompt at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from lm_eval.api.model import LM
from lm_eval.models.utils import normalize_gen_kwargs

from prt.errors import InputError
from prt.language import prompts
from prt.language.harness_model import InTransformers
from prt.language.tasks import ACROSS
from prt.language.text_decode import TextRewarded
from prt.progress import progress


@dataclass(frozen=True)
class AsText(InTransformers):
    """A tuning put on a target as text; ``causal`` is the tuned source, whose tokenizer and precision are told."""

    rewarded: TextRewarded

    @property
    def name(self) -> str:
        """As messages give it."""
        return self.rewarded.name

    def asking(self, benchmark: str, batch: int) -> "TextHarnessModel":
        """As :class:`prt.language.harness_model.Asked` has it, but one prompt at a time."""
        return TextHarnessModel(self.rewarded, benchmark)


class TextHarnessModel(LM):  # type: ignore[misc]
    """``rewarded`` on a benchmark. Of a conversation, each of its models reads its own template's text."""

    def __init__(self, rewarded: TextRewarded, benchmark: str) -> None:
        super().__init__()
        self.rewarded, self.benchmark = rewarded, benchmark
        self._conversations: dict[str, prompts.Turns] = {}  # by the text that lm-eval is given in their place

    @property
    def tokenizer_name(self) -> str:
        """What lm-eval would tell its cache of prompts apart by."""
        return self.rewarded.name

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """A conversation as the source reads it."""
        text = prompts.filled(self.rewarded.tuned, chat_history)
        self._conversations[text] = chat_history
        return text

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Answers to prompts.

        Raises:
            InputError: if a prompt and its answer do not fit into a context, or the answer is to be drawn in a way that
                is not known here.
        """
        answers = []
        with progress(f"{self.benchmark} {self.rewarded.name}", len(requests), "request") as bar:
            for request in requests:
                context, given = request.args
                options = normalize_gen_kwargs(given)
                if others := sorted(options.keys() - ACROSS):
                    raise InputError(
                        f"{self.benchmark} is to be answered with '{others[0]}', which a target of another tokenizer "
                        "is not; leave it out."
                    )
                stops = [stop for stop in options["until"] if stop]
                said = self._asked(
                    request,
                    self.rewarded.generate,
                    context,
                    max_new_tokens=options["max_gen_toks"],
                    temperature=options["temperature"] if options["do_sample"] else 0.0,
                    stop=stops,
                )
                for stop in stops:
                    said = said.split(stop)[0]
                answers.append(said)
                bar.update()
        return answers

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """The log-likelihood of continuations, and whether greedy decoding gives them.

        Raises:
            InputError: if a prompt and its continuation do not fit into a context, or there is no prompt.
        """
        answers = []
        with progress(f"{self.benchmark} {self.rewarded.name}", len(requests), "request") as bar:
            for context, group in groupby(requests, lambda request: request.args[0]):
                of = list(group)
                answers += self._asked(of[0], self.rewarded.likelihoods, context, [each.args[1] for each in of])
                bar.update(len(of))
        return answers

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """No task that is measured here asks for it."""
        raise NotImplementedError

    def _asked(self, request: Any, ask: Any, context: str, *arguments: Any, **options: Any) -> Any:
        turns = self._conversations.get(context)
        try:
            return ask(context if turns is None else turns, *arguments, chat=turns is not None, **options)
        except InputError as error:
            place = f"{self.benchmark}: example {request.doc_id} of {request.task_name}"
            raise InputError(f"{place} cannot be asked of {self.rewarded.name}: {error}") from error
