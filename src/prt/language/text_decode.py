"""Decoding with a source's tuning on a target of another tokenizer, by the log-ratio of texts (docs/tokenizers.md).

A target's token u after the tokens t gets log π̃(u | t) + s·(Ψ(t + u) − Ψ(t)), see :mod:`prt.language.prefix`. Of the
target's vocabulary, only the likeliest tokens are candidates, and what the tuned source would say in their place.
"""

import math
import sys
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers.generation.streamers import BaseStreamer

from prt import combine
from prt.errors import InputError
from prt.language import prompts
from prt.language.models import Causal
from prt.language.prefix import Prefixes
from prt.language.prompts import Turns
from prt.language.text import Answer, Texts
from prt.language.tree import Costs, Tree
from prt.methods import AS_TEXT

# Candidates: the target's likeliest tokens, until their mass passes this bound, at least and at most so many.
MASS, FEWEST, MOST = 0.99, 8, 50
SUGGESTED = 5  # tokens that the tuned source would go on with, whose beginnings are candidates, too


class TextRewarded:
    """A target with the tuning of a source of another tokenizer on it, at strength 1/λ.

    Args:
        tuned: a reward, with ``method`` prt, or a fine-tuned source, with ``method`` eft.
        pretrained: the source that it was tuned from.

    Raises:
        InputError: if the tokens of either tokenizer cannot be turned into bytes, or the strength is not finite.
    """

    def __init__(
        self, target: Causal, tuned: Causal, pretrained: Causal, strength: float = 1.0, method: str = "prt"
    ) -> None:
        combine.check_strength(strength)
        self.target, self.tuned, self.pretrained = target, tuned, pretrained
        self.strength, self.method = strength, method
        self.name = f"{target.name} ({AS_TEXT[method]}: {strength:+g} {tuned.name})"
        self.costs = Costs(), Costs()  # of the target and the source, in the last answer
        self.tokens = 0  # of the last answer, its end included
        self._texts = [Texts(causal.name, causal.tokenizer) for causal in (target, tuned)]

    def announce(self, place: str) -> None:
        """Say on standard error what is done in place of a sum over tokens; ``place``: of the pretrained source."""
        print(
            f"{self.target.name} and {self.tuned.name} have different tokenizers: what was tuned is put on as text "
            f"({AS_TEXT[self.method]}), with a third network, {place}, which it was tuned from.",
            file=sys.stderr,
        )

    def generate(
        self,
        prompt: str | Turns,
        *,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        stop: Sequence[str] = (),
        chat: bool = False,
        streamer: BaseStreamer | None = None,
    ) -> str:
        """The text that follows a prompt, which each model reads in its own tokens.

        Args:
            max_new_tokens: of the target.
            temperature: 0 takes the likeliest candidate, above it samples from the candidates.
            stop: texts at which it ends; the one found is part of the result.
            chat: the prompt is what a user says, or a conversation. The source reads it in the template that it was
                tuned with, the target in its own, if it has one.
            streamer: is given every token of the target as it comes.

        Raises:
            InputError: if the prompt is empty, or ends within what is a token to one of the models; if there is no chat
                template, or a context is too short; for a temperature below 0 or not finite.
        """
        if not 0 <= temperature <= combine.GREATEST:
            raise InputError(f"the temperature is {temperature}, but must be 0 (greedy) or a number above it.")
        prompts.check_stops(stop)
        (target, answer), (source, own) = (
            self._begun(n, prompt, max_new_tokens, template) for n, template in enumerate(self._templates(chat))
        )
        prefixes = Prefixes(source, own, answer)
        self.costs, self.tokens = (target.costs, source.costs), 0
        if streamer is not None:
            streamer.put(target.prompt.cpu())
        while self.tokens < max_new_tokens:
            token = self._next(target, prefixes, temperature)
            self.tokens += 1
            if streamer is not None:
                streamer.put(torch.tensor([token]))
            if token in answer.ends:
                break
            prefixes.take(token)
            if any(text.encode() in answer.text for text in stop):
                break
            if self.tokens < max_new_tokens:
                target.read([answer.ids])
        if streamer is not None:
            streamer.end()
        return answer.text.decode(errors="replace")

    def likelihoods(
        self, prompt: str | Turns, continuations: Sequence[str], *, chat: bool = False
    ) -> list[tuple[float, bool]]:
        """The log-probability of each continuation of a prompt, and whether each of its tokens is the likeliest.

        As where answers are sampled, a token has its share of the candidates, of which it is one, however improbable.
        Spaces at a prompt's end belong to the continuation.

        Raises:
            InputError: as :meth:`generate`; for a continuation whose first token begins in the prompt.
        """
        spaces = ""
        if isinstance(prompt, str) and not chat:
            spaces, prompt = prompt[len(prompt.rstrip()) :], prompt.rstrip()
        (target, answer), (source, own) = (
            self._begun(n, prompt, 1, template) for n, template in enumerate(self._templates(chat))
        )
        self.costs, self.tokens = (target.costs, source.costs), 0
        found = []
        for continuation in continuations:
            for tree, empty in ((target, answer), (source, own)):
                tree.keep(())
                empty.become(b"", ())
            found.append(self._likelihood(target, Prefixes(source, own, answer), spaces + continuation))
        return found

    def _likelihood(self, target: Tree, prefixes: Prefixes, text: str) -> tuple[float, bool]:
        ways = prefixes.other.cuts([text.encode()])[0]
        if not ways:
            raise InputError(
                f"{self.target.name} has a token that begins in the prompt and ends in its continuation {text!r}; end "
                "the prompt where a word ends."
            )
        total, greedy = 0.0, True
        target.read(ways[:1])
        for token in ways[0]:
            candidates, scores = self._scored(target, prefixes, token)
            mine, best = scores[candidates.index(token)], scores.max()
            if bool(mine.isneginf()):  # the source cannot say it
                self.tokens += len(ways[0])
                return -math.inf, False
            total += float(mine - scores.logsumexp(0))
            greedy = greedy and bool(mine == best)
            prefixes.take(token)
        self.tokens += len(ways[0])
        return total, greedy

    def _templates(self, chat: bool) -> list[str | None]:
        """The chat templates of target and source."""
        if not chat:
            return [None, None]
        source = self.tuned.tokenizer.chat_template
        target = self.target.tokenizer.chat_template or source
        if source is None:
            raise InputError(
                f"{self.tuned.name} has no chat template; write the prompt as the model knows it, without --chat."
            )
        return [target, source]

    def _begun(self, n: int, prompt: str | Turns, max_new_tokens: int, template: str | None) -> tuple[Tree, Answer]:
        """The networks of the target (0) or the source (1) after their prompt, and the empty answer."""
        networks = ([self.target], [self.tuned, self.pretrained])[n]
        ids, text = prompts.encode(networks[0], prompt, max_new_tokens, template)
        answer = Answer(self._texts[n], text, prompts.ends(networks[0], template))
        if text[-1].isspace() and not answer.cuts([b"a"])[0]:
            raise InputError(
                f"the prompt ends with a space, which {networks[0].name} takes into the answer's first token; end the "
                "prompt before it."
            )
        heads = (_alone, _reward if self.method == "prt" else _finetuned)
        return Tree(networks, heads[n], ids, self._texts[n].size), answer

    def _next(self, target: Tree, prefixes: Prefixes, temperature: float) -> int:
        answer = prefixes.other
        candidates, total = self._scored(target, prefixes)
        if bool(total.isneginf().all()):  # the answer so far is not how its tokenizer would write it
            answer.forgive()
            prefixes.forget()
            candidates, total = self._scored(target, prefixes)
        if bool(total.isneginf().all()):  # nor can the source say anything that the target can
            return min(answer.ends)
        if temperature == 0:
            return candidates[int(total.argmax())]
        scores = total / temperature
        if not bool(scores.amax().isfinite()):
            raise InputError(
                f"at strength {self.strength:g} and temperature {temperature:g} the next token's scores are no "
                "numbers; take values nearer to 1."
            )
        return candidates[int(torch.multinomial(scores.softmax(0), 1))]

    def _scored(self, target: Tree, prefixes: Prefixes, token: int | None = None) -> tuple[list[int], Tensor]:
        """The candidates, ``token`` among them, and log π̃ and what each gains, (n,), float64."""
        logs = target.logs(prefixes.other.ids)[0]
        given = set() if token is None else {token}
        candidates = sorted(self._candidates(logs, prefixes) | given)
        gains = prefixes.gains(candidates, token)
        if more := sorted(prefixes.otherwise.difference(candidates)):
            candidates, gains = candidates + more, torch.cat([gains, prefixes.gains(more)])
        scores = logs[candidates].double() + self.strength * gains
        return candidates, scores.masked_fill(gains.isneginf(), -torch.inf)  # also at strength 0

    def _candidates(self, logs: Tensor, prefixes: Prefixes) -> set[int]:
        best = logs.topk(min(MOST, len(logs)))
        before = best.values.exp().cumsum(0) - best.values.exp()
        count = max(int((before < MASS).sum()), FEWEST)
        answer = prefixes.other
        found = {i for i in best.indices[:count].tolist() if answer.texts.bytes[i]} | answer.ends
        return found | prefixes.suggested(SUGGESTED)


def _alone(logits: list[Tensor]) -> Tensor:
    return combine.log_probs(logits[0])[None]


def _reward(logits: list[Tensor]) -> Tensor:
    """The tuned and the pretrained source, from a reward and the pretrained source."""
    reward, pretrained = logits
    return torch.stack([combine.prt(pretrained, reward), combine.log_probs(pretrained)])


def _finetuned(logits: list[Tensor]) -> Tensor:
    return torch.stack([combine.log_probs(each) for each in logits])
