"""The loss of each chat, of models alone and of sums of models, each of which reads it once."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from prt.language.chats import IGNORED, collator, encode
from prt.language.conversations import Messages
from prt.language.fit import fitted
from prt.language.models import Causal

TOGETHER = 8  # chats that a model reads at once
Row = dict[str, list[int]]  # input_ids and labels of a chat


def rows_of(
    chats: list[Messages], tokenizer: PreTrainedTokenizerBase, template: str, max_length: int
) -> tuple[list[Row], int]:
    """The tokens of the chats that have one of the assistant, the shortest first; and how many chats were cut.

    Args:
        template: of chats, see :func:`prt.language.chats.chat_template`.
        max_length: tokens after which a chat is cut.

    Raises:
        InputError: if the template refuses a chat.
    """
    encoded = encode(chats, tokenizer, template, max_length)
    rows = [{"input_ids": ids, "labels": labels} for ids, labels, _ in encoded if set(labels) != {IGNORED}]
    return sorted(rows, key=lambda row: len(row["labels"])), sum(cut for _, _, cut in encoded)


class Sum:
    """Logits base + strength · Σ sign · part, as :mod:`prt.language.composed` has them, at several strengths.

    Without parts it is ``base`` alone, as that is.

    Raises:
        InputError: as :func:`prt.language.fit.fitted`.
    """

    def __init__(
        self, base: Causal, parts: Sequence[tuple[int, Causal]] = (), strengths: Sequence[float] = (1.0,)
    ) -> None:
        self.base, self.parts, self.strengths = base, list(parts), list(strengths)
        self._fit = fitted(base, [part for _, part in parts]) if parts else None

    @property
    def models(self) -> list[Any]:
        """All networks of the sum."""
        return [self.base.model, *(part.model for _, part in self.parts)]

    def losses(self, logits: dict[int, Tensor], truth: Tensor) -> Tensor:
        """Mean −log p of the tokens ``truth`` (n,), in nats, at each strength: (strengths,).

        Args:
            logits: id of a network → what it says where these tokens come, (n, its rows).
        """
        # In float64, in which a network that is added and taken away leaves nothing: sums that are one have one loss.
        base = self._fitting(logits[id(self.base.model)])
        added = torch.zeros_like(base)
        for sign, part in self.parts:
            added += sign * self._fitting(logits[id(part.model)]).to(base.device)
        found = []
        for strength in self.strengths:
            total = base + strength * added
            if self._fit is not None:
                total[:, self._fit.barred] = -torch.inf
            found.append(F.cross_entropy(total, truth.to(base.device)))
        return torch.stack(found).cpu()

    def _fitting(self, logits: Tensor) -> Tensor:
        """With a column for each token of the base's tokenizer where anything is added; without a row it is barred."""
        size = logits.shape[1] if self._fit is None else self._fit.size
        return F.pad(logits[:, :size].double(), (0, max(size - logits.shape[1], 0)))


@torch.no_grad()
def losses(sums: Sequence[Sum], rows: Sequence[Row]) -> list[NDArray[np.float64]]:
    """Mean −log p of the assistant's tokens of each chat, in nats, for each sum: (strengths, chats).

    Every network reads the chats once, whatever sums it is part of.
    """
    models = {id(model): model for each in sums for model in each.models}
    found: list[list[Tensor]] = [[] for _ in sums]
    collate = collator(False, 0)
    for start in range(0, len(rows), TOGETHER):
        batch = collate(list(rows[start : start + TOGETHER]))
        following = batch.pop("labels")[:, 1:]
        learned = following != IGNORED
        counts, truth = learned.sum(1).tolist(), following[learned]
        said = {}
        for name, model in models.items():
            inputs = {key: value.to(model.device) for key, value in batch.items()}
            logits = model(**inputs, use_cache=False).logits[:, :-1]
            said[name] = logits[learned.to(logits.device)].split(counts)
        for chat, own in enumerate(truth.split(counts)):
            here = {name: logits[chat] for name, logits in said.items()}
            for each, of in zip(sums, found, strict=True):
                of.append(each.losses(here, own))
    return [torch.stack(of, dim=1).numpy() for of in found]
