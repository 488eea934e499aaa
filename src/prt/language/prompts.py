"""Prompts as a model reads them: a text to go on from, or what a user says in a chat template."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, tensor
from transformers import PreTrainedTokenizerBase

from prt.errors import InputError, first_line
from prt.language.models import Causal

ANSWER = "An answer"

Turns = Sequence[Mapping[str, str]]  # a conversation, each turn with its role and its content


def encode(causal: Causal, prompt: str | Turns, max_new_tokens: int, template: str | None = None) -> tuple[Tensor, str]:
    """Token ids (1, positions) of a prompt that ``max_new_tokens`` more are to follow, and the text that they are of.

    Args:
        prompt: a text; in a chat template also a conversation, of which a last turn of the assistant is gone on with.
        template: the prompt is what a user says, in this chat template.

    Raises:
        InputError: if the prompt is empty or no text, the template fails, or the context is too short.
    """
    tokenizer = causal.tokenizer
    turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else [dict(turn) for turn in prompt]
    text = said = "".join(turn["content"] for turn in turns)
    _check_text(said, "the prompt")
    if template is None:
        ids = tokenizer(text)["input_ids"]
    else:
        text = filled(causal, turns, template)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if not said.strip() or not ids:
        raise InputError("the prompt is empty; write what the model shall go on from.")
    if max_new_tokens < 1:
        raise InputError(f"{max_new_tokens} new tokens were asked for, but it must be 1 or more.")
    context = causal.model.config.max_position_embeddings
    if context is not None and len(ids) + max_new_tokens > context:
        raise InputError(
            f"a prompt of {len(ids)} tokens and {max_new_tokens} new ones exceed the context of {context} tokens; "
            "ask for fewer, or shorten the prompt."
        )
    return tensor([ids], device=causal.model.device), text


def template_of(
    tuned: Sequence[tuple[str, PreTrainedTokenizerBase]], remedy: str = "ask without a chat template"
) -> str | None:
    """The chat template that rewards were tuned with, each with its name; None where none of them has one.

    Raises:
        InputError: if there are two, with the remedy.
    """
    having = [(name, str(tokenizer.chat_template)) for name, tokenizer in tuned if tokenizer.chat_template]
    for name, template in having[1:]:
        if template != having[0][1]:
            raise InputError(
                f"the rewards {having[0][0]} and {name} were tuned with different chat templates, so it is not known "
                f"which a chat is to be written in; {remedy}."
            )
    return having[0][1] if having else None


def check_stops(stop: Sequence[str]) -> None:
    """Refuse texts at which an answer is to end that are empty, or no text.

    Raises:
        InputError: saying which.
    """
    for text in stop:
        _check_text(text, "a text to stop at")
        if not text:
            raise InputError("a text to stop at is empty; leave it out, or write one.")


def _check_text(text: str, what: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(f"{what} is no text in UTF-8; turn it into that.") from None


def ends(causal: Causal, template: str | None = None) -> set[int]:
    """The ids at which an answer ends: the end of a text, and the end of a turn in a chat template.

    Raises:
        InputError: if there is none.
    """
    tokenizer: Any = causal.tokenizer
    own: Any = causal.model.generation_config
    stated = own.eos_token_id if isinstance(own.eos_token_id, list) else [own.eos_token_id]
    found = {i for i in (*stated, tokenizer.eos_token_id) if i is not None}
    if template is not None:
        turns = [{"role": "user", "content": "A question"}, {"role": "assistant", "content": ANSWER}]
        after = _filled(causal, turns, template).rpartition(ANSWER)[2].lstrip()
        first = tokenizer(after, add_special_tokens=False)["input_ids"][:1]
        found |= set(first) & tokenizer.added_tokens_decoder.keys()
    if not found:
        raise InputError(
            f"{causal.name} has no token that ends a text; set eos_token_id in its generation_config.json."
        )
    return found


def filled(causal: Causal, turns: Turns, template: str | None = None) -> str:
    """A conversation that the assistant goes on with, in this chat template or the model's own.

    Raises:
        InputError: if the template fails.
    """
    goes_on = turns[-1]["role"] == "assistant"
    return _filled(causal, turns, template, add_generation_prompt=not goes_on, continue_final_message=goes_on)


def _filled(causal: Causal, turns: Turns, template: str | None, **options: Any) -> str:
    try:
        text = causal.tokenizer.apply_chat_template(
            [dict(turn) for turn in turns], chat_template=template, tokenize=False, **options
        )
    except Exception as error:  # it is a program, and may do anything wrong
        raise InputError(
            f"the chat template of {causal.name} refuses the prompt ({first_line(error)}); write it as the model knows "
            "it, without --chat."
        ) from error
    return str(text)
