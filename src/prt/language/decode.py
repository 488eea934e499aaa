"""Using language rewards: put one or several on a target, and generate (Algorithm 2).

A target of another tokenizer gets it as text, see :mod:`prt.language.text_decode`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedTokenizerBase
from transformers.generation.stopping_criteria import StopStringCriteria
from transformers.generation.streamers import BaseStreamer

from prt import combine
from prt import reward as tuned
from prt.errors import InputError
from prt.language import prompts
from prt.language.composed import compose
from prt.language.models import Causal, load, shared_ids, vocabulary
from prt.language.reward import base_of, load_tuned, read_manifest
from prt.language.speculative import Speculative
from prt.language.text_decode import TextRewarded
from prt.methods import AS_TEXT, METHODS, SOURCE_PRETRAINED

TOP = 5  # tokens that are shown of a distribution, as in Figure 5
BEFORE = 40  # characters of the text before a position that are shown
WINDOW = 8  # tokens that a token's own text is read after: some tokenizers drop the space of a text's first


@dataclass(frozen=True)
class Reward:
    """A trained reward network, or the fine-tuned model that ``method`` takes in its place.

    ``pretrained``: what it was tuned from, where the method subtracts that. ``folder``, ``base``: where that is found.
    """

    causal: Causal
    manifest: dict[str, Any]
    folder: Path
    base: str | None = None
    method: str = "prt"
    pretrained: Causal | None = None

    @property
    def named(self) -> tuple[str, PreTrainedTokenizerBase]:
        """What it is called, and its tokenizer, for :func:`prt.language.prompts.template_of`."""
        return str(self.folder), self.causal.tokenizer

    @property
    def added(self) -> list[tuple[int, Causal]]:
        """What is put on a target, each with its sign."""
        source = self.pretrained or self.causal  # a method that subtracts it has it
        return [
            (s, source if network == SOURCE_PRETRAINED else self.causal) for s, network in METHODS[self.method].added
        ]

    def on(self, target: str, strength: float = 1.0, name: str = "") -> "Rewarded | TextRewarded":
        """Put the reward on ``target`` at strength 1/λ, see :func:`put_on`; ``name`` is the target's in messages."""
        return put_on(target, [self], strength, name)


def put_on(
    target: str, rewards: Sequence[Reward], strengths: float | Sequence[float] = (), name: str = ""
) -> "Rewarded | TextRewarded":
    """Put rewards on ``target``, a folder or a name on the hub, on their device and in their precision.

    A target of another tokenizer takes one reward, and needs what that was tuned from; a line on standard error says
    so.

    Args:
        strengths: 1/λ of each, or of all; default: 1, the paper's.

    Raises:
        InputError: if the target cannot be had, the rewards have different tokenizers, or the strengths are not as many
            or not finite; for a target of another tokenizer: if there are several rewards, what the reward was tuned
            from is missing or another, the method is neither prt nor eft, or tokens cannot be turned into bytes.
    """
    put_together(rewards, strengths)  # before a large target is loaded
    reward = rewards[0]
    model = reward.causal.model
    on = load(target, model.dtype, model.device, name)
    try:
        shared_ids(vocabulary(on.tokenizer), vocabulary(reward.causal.tokenizer), (on.name, reward.causal.name))
    except InputError as error:
        if reward.method not in AS_TEXT:
            raise
        if len(rewards) > 1:
            raise InputError(
                f"{on.name} has another tokenizer than the {len(rewards)} rewards, and such a target takes one at a "
                "time, as text; put on one, or take a target with their tokenizer."
            ) from error
        place = base_of(reward.folder, reward.base)
        pretrained = reward.pretrained or load(place, model.dtype, model.device, reward.causal.name)
        across = TextRewarded(on, reward.causal, pretrained, combine.strengths_for(1, strengths)[0], reward.method)
        across.announce(place)
        return across
    return Rewarded(on, rewards, strengths)


def put_together(rewards: Sequence[Reward], strengths: float | Sequence[float] = ()) -> list[tuple[Causal, float]]:
    """The networks that rewards put on a target, each with its weight: see :func:`put_on`.

    Raises:
        InputError: if the rewards have different tokenizers, or the strengths are not as many or not finite.
    """
    chosen = combine.strengths_for(len(rewards), strengths)
    first, *others = rewards
    for other in others:
        names = (f"the reward {first.folder}", f"the reward {other.folder}")
        shared_ids(vocabulary(first.causal.tokenizer), vocabulary(other.causal.tokenizer), names)
    pairs = combine.working(rewards, chosen)
    return [(part, sign * strength) for reward, strength in pairs for sign, part in reward.added]


def load_reward(
    folder: str | Path,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    base: str | None = None,
    method: str = "prt",
) -> Reward:
    """Load a tuned reward, or a fine-tuned model to be used as one, for use on ``device``.

    Args:
        base: the model that it was tuned from, if it is no longer where its manifest says. An adapter needs it, EFT,
            and a target of another tokenizer.
        method: prt, or eft or poe of a fine-tuned model (:mod:`prt.methods`).

    Raises:
        InputError: if the folder is no whole tuned language model, is not what the method adds to a target, its weights
            are damaged, or its base is missing or another.
    """
    folder, device = Path(folder), torch.device(device)
    manifest = read_manifest(folder)
    tuned.check_method(folder, manifest, method)
    name = manifest["base"]["name"]
    pretrained = load(base_of(folder, base), dtype, device, name) if METHODS[method].subtracts else None
    causal = replace(load_tuned(folder, dtype, device, base), name=name)
    return Reward(causal, manifest, folder, base, method, pretrained)


class Rewarded:
    """A target with rewards on it, each at its strength 1/λ; as one model of transformers it is ``composed``.

    ``added``: what is put on the target, each with its weight.

    Raises:
        InputError: if the tokenizers differ, or the strengths are not as many or not finite.
    """

    def __init__(self, target: Causal, rewards: Sequence[Reward], strengths: float | Sequence[float] = ()) -> None:
        self.target, self.rewards, self.added = target, list(rewards), put_together(rewards, strengths)
        self.name = " + ".join(reward.causal.name for reward in rewards)
        self.composed = compose(target, self.added, rewards[0].method)
        own: Any = self.composed.model.generation_config
        # A target's habits (temperature, penalties) were chosen for it alone. Where its texts end is kept.
        kept = GenerationConfig(eos_token_id=own.eos_token_id, pad_token_id=_pad(own))
        self.composed.model.generation_config = kept

    def encode(self, prompt: str, max_new_tokens: int, *, chat: bool = False) -> Tensor:
        """Token ids (1, positions) of a prompt that ``max_new_tokens`` more are to follow.

        Args:
            chat: the prompt is what a user says, in the chat template that the rewards were tuned with.

        Raises:
            InputError: if the prompt is empty or no text, there is no chat template, or two, or it fails, or the
                context is too short.
        """
        template = (
            (prompts.template_of([r.named for r in self.rewards]) or self.target.tokenizer.chat_template)
            if chat
            else None
        )
        if chat and template is None:
            raise InputError(
                f"neither {self.name} nor {self.target.name} has a chat template; write the prompt as the "
                "model knows it, without --chat."
            )
        named = replace(self.composed, name=self.name)  # whose template it is
        return prompts.encode(named, prompt, max_new_tokens, template)[0]

    def generate(
        self,
        prompt: str,
        *,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        stop: Sequence[str] = (),
        chat: bool = False,
        draft: Causal | None = None,
        streamer: BaseStreamer | None = None,
    ) -> str:
        """The text that follows a prompt.

        Args:
            temperature: 0 takes the likeliest token, above it samples from the whole distribution.
            stop: texts at which it ends; the one found is part of the result.
            chat: see :meth:`encode`.
            draft: the reward's source: it drafts with the same reward, and the target verifies. The result is
                distributed as without.
            streamer: is given every token as it comes, such as transformers' TextStreamer.

        Raises:
            InputError: as :meth:`encode`; for a temperature below 0 or not finite; for a draft with another
                tokenizer.
        """
        ids = self.encode(prompt, max_new_tokens, chat=chat)
        out = self.continued(ids, max_new_tokens, temperature, stop, draft, streamer)
        return str(self.target.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True))

    def continued(
        self,
        ids: Tensor,
        max_new_tokens: int,
        temperature: float = 0.0,
        stop: Sequence[str] = (),
        draft: Causal | None = None,
        streamer: BaseStreamer | None = None,
    ) -> Tensor:
        """Token ids (1, positions) of a prompt and what follows it; see :meth:`generate`."""
        if not 0 <= temperature <= combine.GREATEST:
            raise InputError(f"the temperature is {temperature}, but must be 0 (greedy) or a number above it.")
        options: dict[str, Any] = {"max_new_tokens": max_new_tokens, "do_sample": temperature > 0, "streamer": streamer}
        options["logits_processor"] = LogitsProcessorList([_Numbers(max(abs(w) for _, w in self.added), temperature)])
        if temperature > 0:
            options |= {"temperature": temperature, "top_k": 0, "top_p": 1.0}
        prompts.check_stops(stop)
        if stop:
            try:
                StopStringCriteria(self.target.tokenizer, list(stop))
            except ValueError:  # it is made again, of what it keeps of this time
                raise InputError(
                    f"{self.target.name} has no tokens that the texts to stop at ({', '.join(map(repr, stop))}) could "
                    "end in; correct them, or leave them out."
                ) from None
            options["stop_strings"] = list(stop)
        if draft is not None:
            return Speculative(self.composed, draft).generate(ids, **options)[0]
        model: Any = self.composed.model
        # One prompt has no padding, whatever stands for it (often the end of text, which may well be in a prompt).
        mask = torch.ones_like(ids)
        return model.generate(ids, attention_mask=mask, tokenizer=self.target.tokenizer, **options)


class _Numbers(LogitsProcessor):
    """Refuses logits that no token can be chosen by: of too great a strength, or at too low a temperature."""

    def __init__(self, strength: float, temperature: float) -> None:
        self.asked = f"strength {strength:g} and temperature {temperature:g}"
        self.temperature = temperature or 1.0

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        if not bool((scores.amax(-1) / self.temperature).isfinite().all()):
            raise InputError(f"at {self.asked} the next token's scores are no numbers; take values nearer to 1.")
        return scores


def next_tokens(
    rewarded: Rewarded | TextRewarded,
    prompt: str,
    *,
    max_new_tokens: int,
    stop: Sequence[str] = (),
    positions: int | None = 6,
    chat: bool = False,
) -> dict[str, Any]:
    """Figure 5: :func:`explained` of the greedy answer to a prompt.

    Args:
        stop: texts at which the answer ends.
        positions: how many are shown; None: all.
        chat: see :meth:`Rewarded.encode`.

    Raises:
        InputError: as :meth:`Rewarded.generate`; for a target of another tokenizer.
    """
    if isinstance(rewarded, TextRewarded):
        raise InputError(
            f"the next tokens with and without a reward are shown of one tokenizer, but {rewarded.target.name} and "
            f"{rewarded.tuned.name} have different ones; take a target of the family that the reward was tuned on."
        )
    ids = rewarded.encode(prompt, max_new_tokens, chat=chat)
    return explained(rewarded, rewarded.continued(ids, max_new_tokens, stop=stop), ids.shape[1], positions)


@torch.no_grad()
def explained(rewarded: Rewarded, text: Tensor, first: int, positions: int | None = None) -> dict[str, Any]:
    """The likeliest next tokens with and without the reward, along an answer.

    Args:
        text: token ids of a prompt and its answer, (1, positions); the answer begins at ``first``.
        positions: how many are shown, those where the reward changes the distribution most (the divergence
            KL(with ‖ without)); None: all.

    Returns:
        ``target``, ``reward`` (names), ``prompt``, ``answer``, and ``positions``: for each its ``index`` in the answer,
        the text ``before`` it (its end), the token ``chosen``, and [token, probability] of the likeliest five
        ``without`` and ``with`` the reward, among the tokens that both models know.
    """
    target, tokenizer = rewarded.target, rewarded.target.tokenizer
    composed: Any = rewarded.composed.model
    barred = set(composed.barred.tolist())
    shared = torch.tensor([i for i in range(composed.config.vocab_size) if i not in barred])

    def logits(model: Any) -> Tensor:
        """After each token from the prompt's last to the answer's last but one, (answer, shared ids)."""
        said = model(text[:, :-1].to(model.device), use_cache=False, logits_to_keep=text.shape[1] - first).logits[0]
        return said[:, shared.to(said.device)].float().to(target.model.device)

    alone, added = logits(target.model), [logits(part.model) for part, _ in rewarded.added]
    weights = [weight for _, weight in rewarded.added]
    without, rewarded_logs = combine.log_probs(alone), combine.prt(alone, added, weights)
    change = (rewarded_logs.exp() * (rewarded_logs - without)).sum(-1)
    shown = change.topk(min(positions or len(change), len(change))).indices.sort().values.tolist()
    whole = text[0].tolist()

    def top(logs: Tensor, i: int) -> list[list[Any]]:
        best = logs[i].exp().topk(min(TOP, len(shared)))
        return [
            [_text_of(tokenizer, whole[: first + i], int(shared[k])), p]
            for k, p in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]

    return {
        "target": target.name,
        "reward": rewarded.name,
        "prompt": tokenizer.decode(whole[:first], skip_special_tokens=True),  # as the model read it
        "answer": tokenizer.decode(whole[first:], skip_special_tokens=True),
        "positions": [
            {
                "index": i,
                "before": tokenizer.decode(whole[: first + i], skip_special_tokens=True)[-BEFORE:],
                "chosen": _text_of(tokenizer, whole[: first + i], whole[first + i]),
                "without": top(without, i),
                "with": top(rewarded_logs, i),
            }
            for i in shown
        ],
    }


def as_text(found: dict[str, Any]) -> str:
    """What :func:`next_tokens` found, as lines for a terminal; tokens in quotes, as JSON writes them."""
    lines = []
    for position in found["positions"]:
        before, chosen = _quoted("…" + position["before"]), _quoted(position["chosen"])
        lines.append(f"token {position['index']}, {chosen}, after {before}")
        lines.append(f"  {'without the reward':<30}with the reward")
        for without, with_it in zip(position["without"], position["with"], strict=True):
            cells = [f"{_quoted(token):<20} {p:6.1%}" for token, p in (without, with_it)]
            lines.append(f"  {cells[0]:<30}{cells[1]}")
    return "\n".join(lines)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _text_of(tokenizer: Any, before: list[int], token: int) -> str:
    """What a token adds to the text before it."""
    near = before[-WINDOW:]
    return tokenizer.decode([*near, token])[len(tokenizer.decode(near)) :]


def _pad(own: GenerationConfig) -> int | None:
    """What stands for padding: never used with one prompt, but generate() warns where nothing does."""
    if own.pad_token_id is not None or own.eos_token_id is None:
        return own.pad_token_id
    return own.eos_token_id[0] if isinstance(own.eos_token_id, list) else own.eos_token_id
