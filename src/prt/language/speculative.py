"""Lossless speculative decoding of PRT: the source's PRT model drafts, the target's verifies.

Leviathan et al. 2023 (https://arxiv.org/abs/2211.17192), algorithm 1: a drafted token x, of probability q(x) to the
drafter and p(x) to the model, is kept with probability min(1, p(x)/q(x)); at the first that is not, one is drawn from
max(p − q, 0), normalised. What comes out is distributed as by p alone. Greedily, a draft is kept as long as it is what
p would choose.

Here p adds the same rewards to the target as q does to the drafter. A reward reads no token twice: what it said while
drafting is added again to the target's logits.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    StoppingCriteriaList,
    StopStringCriteria,
)
from transformers.cache_utils import Cache, StaticLayer, StaticSlidingWindowLayer
from transformers.generation.configuration_utils import GenerationMode
from transformers.generation.streamers import BaseStreamer

from prt.errors import InputError
from prt.language.composed import Composed, make_cache, read
from prt.language.fit import fitted, refuse_unread
from prt.language.models import Causal


@dataclass
class Statistics:
    """What one generation cost: tokens drafted and kept, forward passes of the target, tokens that came out."""

    drafted: int = 0
    accepted: int = 0
    target_forwards: int = 0
    tokens: int = 0


class _Reader:
    """One model with its cache, and how many of the text's tokens it has read."""

    def __init__(self, model: Any, cache: Cache, step: Callable[..., Any] | None, width: int, size: int) -> None:
        self.model, self.cache, self.step, self.size = model, cache, step, size
        self.width = width  # of the compiled step, in tokens
        self.length = 0
        cache.activate_past_recording()

    def logits(self, ids: Tensor, keep: int = 1) -> Tensor:
        """Read what is new in a text (1, positions); logits after its last ``keep`` tokens, (keep, tokens)."""
        new = ids[:, self.length :]
        # A compiled step is of one width. Two tokens, where the drafter has one to catch up, are two steps of it.
        pieces = new.split(1, -1) if self.step and self.length and self.width == 1 else (new,)
        for piece in pieces:
            positions = torch.arange(self.length, self.length + piece.shape[1], device=ids.device)[None]
            step = self.step if piece.shape[1] == self.width else None
            logits = read(self.model, self.cache, step, piece, None, positions, keep, self.size)
            self.length += piece.shape[1]
        return logits[0]

    def forget(self, length: int) -> None:
        """Go back to the text's first ``length`` tokens, if more were read."""
        excess = max(self.length - length, 0)
        layers: list[Any] = self.cache.layers
        for layer in layers:
            if isinstance(layer, StaticLayer):
                layer.cumulative_length.sub_(excess)  # what lies beyond is masked, and written over
            else:
                layer.crop(-excess)  # 0 trims a sliding window
        self.length -= excess


class Speculative:
    """Generates as a composed model does, only faster: the same tokens greedily, the same distribution sampled.

    That is up to rounding: in half precision, several tokens read at once can be rounded otherwise than one by one.

    Args:
        model: a composed model (:func:`prt.language.composed.compose`).
        draft: what takes the target's place in drafting; for PRT the reward's source.
        drafted: how many tokens are drafted at a time.

    Raises:
        InputError: if the draft's tokenizer is another, or for less than one drafted token.
    """

    def __init__(self, model: Causal, draft: Causal, drafted: int = 4) -> None:
        if drafted < 1:
            raise InputError(f"{drafted} tokens to draft: speculative decoding needs one at least.")
        composed: Any = model.model
        fit = fitted(Causal(model.name, composed.models[0], model.tokenizer), [draft])
        self.barred = torch.tensor(fit.barred, dtype=torch.long, device=composed.device)
        self.unread = fit.unread | composed.unread
        self.model, self.tokenizer = composed, model.tokenizer
        self.draft, self.drafted = draft.model, drafted

    def generate(
        self,
        input_ids: Tensor,
        *,
        streamer: BaseStreamer | None = None,
        stop_strings: str | list[str] | None = None,
        **options: Any,
    ) -> tuple[Tensor, Statistics]:
        """Prompt and continuation, (1, positions), and what it cost.

        Args:
            input_ids: one prompt, (1, positions).
            streamer: is given every token, as by generate().
            stop_strings: end where one of these has come out.
            options: generate()'s (max_new_tokens, do_sample, temperature, top_p, cache_implementation, …).

        Raises:
            InputError: for several prompts or beams, padding, a cache that cannot go back, a prompt with a token that
                one of the models has no row for, or return_dict_in_generate.
        """
        refuse_unread(self.unread, input_ids, None)
        if stop_strings is not None:  # generate() needs the tokenizer for these, and keeps it from a loop not its own
            criteria = [*options.get("stopping_criteria", []), StopStringCriteria(self.tokenizer, stop_strings)]
            options["stopping_criteria"] = StoppingCriteriaList(criteria)
        statistics = Statistics()
        loop = partial(self._decode, streamer=streamer, statistics=statistics)
        return self.model.generate(input_ids, streamer=streamer, custom_generate=loop, **options), statistics

    def _decode(
        self,
        model: Composed,
        input_ids: Tensor,
        logits_processor: LogitsProcessorList,
        stopping_criteria: StoppingCriteriaList,
        generation_config: GenerationConfig,
        streamer: BaseStreamer | None,
        statistics: Statistics,
        **kwargs: Any,
    ) -> Tensor:
        """The loop, called by generate() with everything prepared: ids of prompt and continuation."""
        if input_ids.shape[0] > 1 or kwargs.get("attention_mask") is not None:
            raise InputError("speculative decoding takes one prompt at a time, without padding and without beams.")
        if generation_config.return_dict_in_generate:
            raise InputError("speculative decoding returns token ids alone: leave out return_dict_in_generate.")
        cache = kwargs.get("past_key_values")
        if cache is None or cache.is_initialized:
            raise InputError(
                "speculative decoding begins with an empty cache: leave out use_cache and past_key_values."
            )
        target, *parts, drafter = self._readers(model, generation_config, cache)
        device, rows = model.device, model.config.vocab_size
        assert generation_config.max_length is not None

        def rewards(text: Tensor) -> Tensor:
            """What is added to the target's logits after ``text``, (tokens,)."""
            total = torch.zeros(rows, device=device)
            for part, weight in zip(parts, model.weights, strict=True):
                total.add_(part.logits(text)[-1].to(device), alpha=weight)
            return total

        def distribution(text: Tensor, logits: Tensor, barred: Tensor) -> Tensor:
            """Of the token after ``text``, (tokens,), as generate() would have it; greedily all on one token."""
            prefix: Any = text
            scores = logits_processor(prefix, logits.index_fill_(-1, barred, -torch.inf)[None])[0]
            return scores.softmax(-1) if generation_config.do_sample else one_hot(scores.argmax(), rows).float()

        def grown(text: Tensor, probabilities: Tensor) -> Tensor:
            """``text`` with a token drawn."""
            token = probabilities.multinomial(1) if generation_config.do_sample else probabilities.argmax(-1, True)
            return torch.cat([text, token[None].to(text.device)], -1)

        ids = input_ids
        while True:
            known = ids.shape[1]
            count = min(self.drafted, generation_config.max_length - known - 1)
            text, added, q = ids, [], []
            for _ in range(count):
                added.append(rewards(text))
                guess = drafter.logits(text)[-1].to(device, torch.float32) + added[-1]
                q.append(distribution(text, guess, self.barred))
                text = grown(text, q[-1])
            # Copied, since a captured graph's output is gone when another graph runs.
            said = target.logits(text, count + 1)[-count - 1 :].to(torch.float32, copy=True)
            p = [distribution(text[:, : known + i], said[i] + added[i], model.barred) for i in range(count)]
            kept = accept(text[0, known:].to(device), q, p)
            if kept == count:  # all: the target has one more to say, and the rewards read the last draft for it
                last = distribution(text, said[count] + rewards(text), model.barred)
            else:
                last = residual(p[kept], q[kept])
            text = grown(text[:, : known + kept], last)
            for reader in (target, *parts, drafter):
                reader.forget(known + kept)
            statistics.drafted += count
            statistics.accepted += kept
            statistics.target_forwards += 1
            while ids.shape[1] < text.shape[1]:  # one at a time, as the stopping criteria look at the last token
                ids = text[:, : ids.shape[1] + 1]
                statistics.tokens += 1
                if streamer is not None:
                    streamer.put(ids[:, -1].cpu())
                if bool(stopping_criteria(ids, None).all()):
                    if streamer is not None:
                        streamer.end()
                    return ids

    def _readers(self, model: Composed, config: GenerationConfig, cache: Any) -> list[_Reader]:
        """Of the target, the parts and the drafter."""
        assert config.max_length is not None
        own = make_cache(self.draft, config, GenerationMode.ASSISTED_GENERATION, 1, config.max_length - 1)
        steps = [*zip(model.models, cache.caches, cache.steps, strict=True), (self.draft, *own)]
        readers = [
            _Reader(m, c, s, 1 if i else self.drafted + 1, model.config.vocab_size) for i, (m, c, s) in enumerate(steps)
        ]
        if any(isinstance(layer, StaticSlidingWindowLayer) for reader in readers for layer in reader.cache.layers):
            raise InputError("a static cache of a sliding window cannot go back; leave out cache_implementation.")
        return readers


def accept(tokens: Tensor, q: list[Tensor], p: list[Tensor]) -> int:
    """How many of the drafted ``tokens`` (n,) are kept, drafted by ``q`` and judged by ``p``: n times (tokens,)."""
    if not q:
        return 0
    ratios = [after.gather(0, x) / before.gather(0, x) for x, before, after in zip(tokens.split(1), q, p, strict=True)]
    ratio = torch.cat(ratios)
    return int((torch.rand_like(ratio) < ratio).long().cumprod(0).sum())


def residual(p: Tensor, q: Tensor) -> Tensor:
    """What a rejected draft is replaced from, (tokens,): max(p − q, 0), not normalised."""
    rest = (p - q).clamp_min(0)
    return torch.where(rest.sum() > 0, rest, p)  # rounding can leave nothing where q is p
