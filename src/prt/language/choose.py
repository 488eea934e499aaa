"""The strength of a reward, or the scale of a difference of weights, that suits held-out chats best."""

import math
from collections.abc import Callable, Sequence
from itertools import islice

import numpy as np

from prt.errors import InputError
from prt.language.chats import IGNORED, Manifest, read_split
from prt.language.losses import Sum, losses, rows_of
from prt.language.models import Causal
from prt.progress import progress

MOST = 200  # conversations: enough to tell strengths apart, as each has many tokens


def loss(causal: Causal, data: Manifest, max_length: int) -> float:
    """Mean cross-entropy, in nats, of the assistant's tokens in the first ``MOST`` validation conversations.

    Texts are as the model's own chat template has them, cut at ``max_length`` tokens.

    Raises:
        InputError: if the validation conversations are missing or damaged, or none has a token of the assistant.
    """
    conversations = list(islice(read_split(data, "validation")["messages"], MOST))
    rows, _ = rows_of(conversations, causal.tokenizer, str(causal.tokenizer.chat_template), max_length)
    if not rows:
        raise InputError(f"no validation conversation of {data.folder} has a token of the assistant; give longer ones.")
    tokens = [len(row["labels"]) - row["labels"].count(IGNORED) for row in rows]
    return float(np.average(losses([Sum(causal)], rows)[0][0], weights=tokens))


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
