"""Which way of using a reward on a target is best on a few chats, by their loss: see :mod:`prt.advice`."""

import sys
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prt.advice import FEWEST, LOSS, STRENGTHS, Values, with_strengths
from prt.errors import InputError
from prt.language.chats import IGNORED, chat_template, read_manifest, read_split
from prt.language.conversations import EMPTY, Messages, read_file
from prt.language.decode import Reward
from prt.language.fit import fitted, shortest_context
from prt.language.losses import TOGETHER, Row, Sum, losses, rows_of
from prt.language.merged import merged
from prt.language.models import Causal, load, shared_ids, vocabulary
from prt.language.recipe import Recipe
from prt.language.reward import base_of, weights_hash
from prt.progress import progress
from prt.reward import MANIFEST


def examples(data: Path) -> list[Messages]:
    """The chats in a file, or the validation chats of a prepared data set.

    Raises:
        InputError: if it is neither, there are fewer than ten, or one is wrong.
    """
    what = "chats"
    if data.is_dir():
        if not (data / MANIFEST).is_file():
            raise InputError(
                f"the reward is of a language model, but {data} holds no prepared chats (no {MANIFEST}); name a file "
                "of chats, or a data set such as results/EXPERIMENT/language/data."
            )
        what = "validation chats"
        chats = list(read_split(read_manifest(data), "validation")["messages"])
    elif data.is_file():
        left_out: Counter[str] = Counter()
        chats = [messages for _, messages in read_file(data, left_out)[1]]
        if left_out[EMPTY]:
            print(f"{data}: {left_out[EMPTY]} {EMPTY} left out.", file=sys.stderr)
    else:
        raise InputError(f"there is no file of chats {data}; correct its name.")
    if len(chats) < FEWEST:
        raise InputError(f"{data} has {len(chats)} {what}, which say nothing; give {FEWEST} or more.")
    return chats


def ways(
    target: str, reward: Reward, finetuned: Reward | None, chats: list[Messages], base: str | None = None
) -> dict[str, Values]:
    """Way → its mean loss on each chat, in nats per token of the assistant, (N,); the simplest first.

    They are the target alone; the source's tuned models kept (with the reward, and with fine-tuning, if that is
    given); PRT; PoE, EFT and, on another target of the source's shapes, the weight difference, of the fine-tuned model;
    and what has a strength (the weight difference: a scale) also with that chosen by cross-validation.

    All read the same tokens: the target's, in the chat template that the reward was tuned with, cut as in tuning. So a
    target that was tuned to another template is not seen at its best. Every model is loaded once; for the weight
    difference, one more of the target's size fits beside them.

    Args:
        finetuned: the source's fine-tuned model, loaded for poe.
        base: the model that the reward was tuned from, if it is no longer where its manifest says.

    Raises:
        InputError: if the target or what the reward was tuned from cannot be had, the tokenizers differ, the fine-tuned
            model was tuned from another model or with another chat template, or fewer than ten chats have a token of
            the assistant that all models know.
    """
    template = _template(reward, finetuned)
    like = reward.causal.model
    place, known = base_of(reward.folder, base), reward.manifest["base"]
    on = load(target, like.dtype, like.device)
    try:
        shared_ids(vocabulary(on.tokenizer), vocabulary(reward.causal.tokenizer), (on.name, reward.causal.name))
    except InputError:
        raise InputError(
            f"{target} has another tokenizer than {reward.folder}, and a reward that is put on as text has no loss to "
            "compare; take a target with the tokenizer that the reward was tuned with."
        ) from None
    itself = weights_hash(target) == known["weights_sha256"]
    own = on if itself else load(place, like.dtype, like.device, known["name"])
    added = {"PRT": [(1, reward.causal)]}
    alone = {"target alone": Sum(on), "source's PRT kept": Sum(own, added["PRT"])}
    difference: list[tuple[Causal, int]] = []
    if finetuned is not None:
        tuned = finetuned.causal
        alone["source's FT kept"] = Sum(tuned)
        added |= {"PoE": [(1, tuned)], "EFT": [(1, tuned), (-1, own)]}
        if not itself and _same_shapes(on, own, tuned):
            difference = [(tuned, 1), (own, -1)]
    swept = {name: Sum(on, parts, STRENGTHS) for name, parts in added.items()}
    others = [own, *(part for parts in added.values() for _, part in parts)]
    rows = _rows(on, others, chats, template, Recipe(**(reward.manifest["recipe"] or {})).max_length)
    with progress("advise", len(rows) * (1 + len(STRENGTHS) * bool(difference)), "chat") as bar:

        def measured(sums: list[Sum]) -> list[NDArray[np.float64]]:
            batches = []
            for start in range(0, len(rows), TOGETHER):
                some = rows[start : start + TOGETHER]
                batches.append(losses(sums, some))
                bar.update(len(some))
            return [np.concatenate(each, axis=1) for each in zip(*batches, strict=True)]

        sums = alone | swept
        values = dict(zip(sums, measured(list(sums.values())), strict=True))
        table = {name: dict(zip(STRENGTHS, values[name], strict=True)) for name in swept}
        for scale in STRENGTHS if difference else ():
            parts = [(part, sign * scale) for part, sign in difference]
            (found,) = measured([Sum(merged(on, parts, "difference"))])  # which is gone before the next one is made
            table.setdefault("weight difference", {})[scale] = found[0]
    return with_strengths({name: values[name][0] for name in alone}, table, LOSS)


def _template(reward: Reward, finetuned: Reward | None) -> str:
    """The chat template that a reward was tuned with, once the fine-tuned model is seen to be its own."""
    template = chat_template(reward.causal.tokenizer, "own", str(reward.folder))
    if finetuned is None:
        return template
    if finetuned.manifest["base"]["weights_sha256"] != reward.manifest["base"]["weights_sha256"]:
        raise InputError(
            f"{reward.folder} and {finetuned.folder} were tuned from different models; name a run of ft of the "
            "reward's own."
        )
    if finetuned.causal.tokenizer.chat_template != template:
        raise InputError(
            f"{reward.folder} and {finetuned.folder} were tuned with different chat templates; name a run of ft with "
            "the reward's."
        )
    return template


def _rows(on: Causal, others: list[Causal], chats: list[Messages], template: str, longest: int) -> list[Row]:
    """The tokens of the chats, all of which every model knows."""
    context = shortest_context([causal.model for causal in (on, *others)])
    length = min(longest, context or longest)
    rows, cut = rows_of(chats, on.tokenizer, template, length)
    if len(rows) < FEWEST:
        raise InputError(
            f"only {len(rows)} of {len(chats)} chats have a token of the assistant within the first {length} tokens; "
            f"give {FEWEST} or more that have."
        )
    if cut:
        print(f"{cut} chats are longer than {length} tokens and were cut.", file=sys.stderr)
    fit = fitted(on, others)
    tokens = {i for row in rows for i in (*row["labels"], *(i for i in row["input_ids"] if i in fit.unread))}
    if strange := sorted((tokens - {IGNORED}) & set(fit.barred)):
        raise InputError(
            f"the chats have the token {on.tokenizer.convert_ids_to_tokens(strange[0])!r} (id {strange[0]}) of "
            f"{on.name}, which not all the models know; leave it out, or take another target."
        )
    return rows


def _same_shapes(*causals: Causal) -> bool:
    """Whether models differ in their weights alone."""
    shapes = [{name: tuple(value.shape) for name, value in causal.model.named_parameters()} for causal in causals]
    return all(each == shapes[0] for each in shapes)
