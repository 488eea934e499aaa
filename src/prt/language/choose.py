"""The strength of a reward, or the scale of a difference of weights, that suits held-out chats best."""

import math
from collections.abc import Callable, Sequence
from itertools import islice

import torch
from torch.nn import functional as F

from prt.errors import InputError
from prt.language.chats import IGNORED, Manifest, collator, encode
from prt.language.models import Causal
from prt.progress import progress

MOST = 200  # conversations: enough to tell strengths apart, as each has many tokens
TOGETHER = 8


@torch.no_grad()
def loss(causal: Causal, data: Manifest, max_length: int) -> float:
    """Mean cross-entropy, in nats, of the assistant's tokens in the first ``MOST`` validation conversations.

    Texts are as the model's own chat template has them, cut at ``max_length`` tokens.

    Raises:
        InputError: if the data set has no validation conversations, or none with a token of the assistant.
    """
    import datasets

    source = data.folder / "validation.arrow"
    if not source.is_file():
        raise InputError(f"the data set {data.folder} has no {source.name}; prepare it again.")
    conversations = list(islice(datasets.Dataset.from_file(str(source))["messages"], MOST))
    rows = encode(conversations, causal.tokenizer, str(causal.tokenizer.chat_template), max_length)
    kept = [{"input_ids": ids, "labels": labels} for ids, labels, _ in rows]
    kept = sorted((row for row in kept if set(row["labels"]) != {IGNORED}), key=lambda row: len(row["labels"]))
    if not kept:
        raise InputError(f"no validation conversation of {data.folder} has a token of the assistant; give longer ones.")
    collate, total, count = collator(False, causal.tokenizer.eos_token_id or 0), 0.0, 0
    for start in range(0, len(kept), TOGETHER):
        batch = {k: v.to(causal.model.device) for k, v in collate(kept[start : start + TOGETHER]).items()}
        labels = batch.pop("labels")[:, 1:]
        logits = causal.model(**batch, use_cache=False).logits[:, :-1]
        learned = labels != IGNORED
        total += F.cross_entropy(logits[learned].float(), labels[learned], reduction="sum").item()
        count += int(learned.sum())
    return total / count


def choose(
    at: Callable[[float], Causal], strengths: Sequence[float], data: Manifest, max_length: int, name: str
) -> float:
    """The strength of the least :func:`loss`, of several the nearest to 1.

    Args:
        at: makes the model of a strength.
        name: of the progress bar.
    """
    found = {}
    with progress(f"choose {name}", len(strengths), "strength") as bar:
        for strength in strengths:
            found[strength] = loss(at(strength), data, max_length)
            bar.update()
    return min(found, key=lambda strength: (math.isnan(found[strength]), found[strength], abs(strength - 1)))
