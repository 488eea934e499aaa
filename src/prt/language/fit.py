"""How the vocabulary of a target fits those of the models that are put on it: tokens by their ids, not rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from prt.errors import InputError
from prt.language.models import Causal, shared_ids, vocabulary


@dataclass(frozen=True)
class Fit:
    """How the vocabularies of a target and of other models fit.

    Args:
        size: tokens of the target's tokenizer.
        barred: the ids that do not mean the same token in all models, or have no row in one.
        unread: id → token, of those that have no row in one of the models.
    """

    size: int
    barred: list[int]
    unread: dict[int, str]


def fitted(target: Causal, others: Sequence[Causal]) -> Fit:
    """Compare the vocabularies of a target and of others: tokens by their ids, whatever rows there are.

    Raises:
        InputError: for tokenizers that differ, and for a model with too few rows for the target's ordinary tokens.
    """
    own = vocabulary(target.tokenizer)
    shared = {i for _, i in own.pairs}
    for other in others:
        shared &= set(shared_ids(own, vocabulary(other.tokenizer), (target.name, other.name)))
    fewest = own.size
    for causal in (target, *others):
        rows = rows_of(causal.model)
        if rows <= max(own.ordinary.values()):
            raise InputError(
                f"{causal.name} has {rows} rows for {own.size} tokens of {target.name}'s tokenizer: its files do not "
                "belong together; fetch or make it again."
            )
        fewest = min(fewest, rows)
    barred = sorted(i for i in range(own.size) if i >= fewest or i not in shared)
    unread = {i: token for token, i in own.pairs if i >= fewest}
    return Fit(own.size, barred, unread)


def rows_of(model: Any) -> int:
    """The tokens that a model can read and write."""
    return min(len(layer.weight) for layer in (model.get_input_embeddings(), model.get_output_embeddings()))


def refuse_unread(unread: dict[int, str], ids: Tensor, mask: Tensor | None, *, padded: bool = False) -> None:
    """Refuse a text with a token that one of the models has no row for; as padding it may stand.

    Args:
        unread: id → token.
        ids: (batch, positions).
        mask: (batch, at least so many positions), 0 at padding; None: there is none.
        padded: what such tokens end a text with is padding, too: generate() without a cache does not mask it.

    Raises:
        InputError: naming the token.
    """
    if not unread:
        return
    strange = torch.isin(ids, torch.tensor(sorted(unread), device=ids.device))
    text = strange if mask is None else strange & mask[:, -ids.shape[1] :].to(ids.device).bool()
    if padded:
        text = text & ((~strange).flip(-1).cumsum(-1).flip(-1) > 0)  # something is read after it
    if text.any():
        i = int(ids[text][0])
        raise InputError(
            f"the text has the token {unread[i]!r} (id {i}), which one of the models has no row for; leave it out."
        )


def shortest_context(models: Sequence[Any]) -> int | None:
    """The longest text that every one of some networks takes, in tokens; None where none has a limit."""
    lengths = [getattr(model.config, "max_position_embeddings", None) for model in models]
    return min((length for length in lengths if length is not None), default=None)
