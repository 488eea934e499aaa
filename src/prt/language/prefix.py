"""How probable a source finds it that its answer, as another tokenizer cuts it, begins with given tokens.

A target's tokens t of the text C are the beginning of an answer of the source if its text begins with C, and the
target's tokenizer cuts that text into t and more. P(t) sums over the source's own tokens (Phan et al. 2024,
https://arxiv.org/abs/2410.09303, section 4; Vieira et al. 2024, https://arxiv.org/abs/2412.03719):

    P(t) = Σ_p P(path of C[:p]) · Σ_w P(w | path of C[:p])   +   P(path of C) · P(cut stays | path of C)

where p are places in C, a path is how the source's tokenizer cuts a text, and w its tokens that begin with C[p:] and go
on beyond C, such that path and w are what the tokenizer makes of their text, and the target cuts this text into t and
more. The cut stays unless the next token makes the target cut C otherwise ("." before a new line, where ".⏎" is one
token). Tokens that no tokenizer would write are left out. Where both tokenizers are one, P(t) is the product of the
probabilities of the tokens, and what follows is PRT.

For a source tuned to softmax(log π_pt + r), and π_pt itself, Ψ(t) = log P_θ(t) − log P_pt(t). A target's next token u
gains Ψ(t + u) − Ψ(t), so an answer gains its own log-ratio, whatever the tokens are that it is written in.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from prt.language.text import Answer, is_whole
from prt.language.tree import Path, Tree

# Under the pretrained probability of a token, given those before it, where the tuned source gives it less, too: what
# neither finds likely gains nothing, as the ratio is noise. Not for one token of the source's own, which is PRT.
FLOOR = 1e-3
DEEPEST = 5  # times that LEAST is multiplied with itself to find a given token
LEAST = 1e-4  # share of P(t) below which a way to go on from t is not followed
# For what it does to the target's cut, a next token is looked at if it is as probable as this, under either head, and
# among so many likeliest.
MERGING, NEXT = 1e-3, 32


@dataclass
class Measured:
    """log P of a beginning under both heads, (2,)."""

    total: Tensor
    single: bool  # one path of the source's, and whatever it goes on with leaves the target's cut as it is
    plain: bool  # single, as what comes before is, and one token of the source more
    read: bool  # or else ``total`` is an upper bound, below LEAST
    onwards: list[tuple[float, bytes]] = field(default_factory=list)  # texts that go on beyond it, and log P_θ


class Prefixes:
    """Beginnings of one answer; every call goes on from those that were taken.

    Args:
        tree: the source's networks after their prompt, with two heads: tuned and pretrained.
        own: the answer in the source's tokens.
        other: the answer in the target's.
        floor: see ``FLOOR``.
        least: see ``LEAST``; 0: every way is followed.
        merging: see ``MERGING``.
    """

    def __init__(
        self,
        tree: Tree,
        own: Answer,
        other: Answer,
        floor: float = FLOOR,
        least: float = LEAST,
        merging: float = MERGING,
    ) -> None:
        self.tree, self.own, self.other = tree, own, other
        self._floor, self._least, self._merging = _log(floor), _log(least), _log(merging)
        self.now = Measured(torch.zeros(2, dtype=torch.float64), single=True, plain=True, read=True)
        self.otherwise: set[int] = set()
        self._measured: dict[int, Measured] = {}

    def gains(self, tokens: Sequence[int], exact: int | None = None) -> Tensor:
        """Ψ(t + u) − Ψ(t) of the target's tokens u, (n,), float64; −inf where the source has no way to say it so.

        ``exact``: one of them, which is measured however improbable it is.
        """
        if exact is not None:
            self._measured[exact] = self._exactly(exact)
        logs = self.logs(tokens) - self.now.total[:, None]
        theta, pt = logs
        plain = torch.tensor([self._measured[token].plain for token in tokens], dtype=torch.bool)
        trusted = (plain | (theta >= self._floor)) & ~pt.isneginf()
        gains = theta - torch.where(trusted, pt, pt.clamp(min=self._floor))
        return gains.masked_fill(logs.isneginf().all(0), -torch.inf)

    def logs(self, tokens: Sequence[int]) -> Tensor:
        """log P_θ(t + u) and log P_pt(t + u) of the target's tokens u, (2, n), float64."""
        limit = self.now.total + self._least
        new = [token for token in tokens if token not in self._measured]
        self._measured |= dict(zip(new, self._measure(new, limit), strict=True))
        return torch.stack([self._measured[token].total for token in tokens], dim=1)

    def suggested(self, top: int) -> set[int]:
        """The target's next tokens in what the tuned source would most probably go on with."""
        texts = [text for _, text in sorted(self.now.onwards, reverse=True)[:top]]
        if self.own.text == self.other.text and self.tree.knows(self.own.ids):
            said = self.own.texts.bytes
            best = self.tree.logs(self.own.ids)[0].topk(min(top, self.tree.size)).indices.tolist()
            texts += [self.own.text + said[i] for i in best if said[i]]
        ids = self.other.ids
        ways = [way for ways in self.other.cuts(texts) for way in ways]
        return {way[len(ids)] for way in ways if way[: len(ids)] == ids and len(way) > len(ids)}

    def forget(self) -> None:
        """Measure anew what could come next: the target's answer is held against another cut."""
        self._measured = {}

    def take(self, token: int) -> None:
        """Go on with a token of the target's."""
        text = self.other.text + (self.other.texts.bytes[token] or b"")
        ids = (*self.other.ids, token)
        self.now = self._measured[token]
        if not self.now.read:
            (self.now,) = self._measure([token], self.now.total + self._least)
        self._measured, self.otherwise = {}, set()
        self.own.follow(text)
        self.other.become(text, ids)
        self.tree.keep(self.own.ids)

    def _measure(self, tokens: Sequence[int], limit: Tensor) -> list[Measured]:
        """The beginnings with these tokens; what cannot be above ``limit``, log (2,), is not read."""
        ended, bytes_of = self.other.text, self.other.texts.bytes
        ends = [token in self.other.ends for token in tokens]
        texts = [ended if end else ended + (bytes_of[t] or b"") for t, end in zip(tokens, ends, strict=True)]
        paths = self.own.paths(texts)
        starts = [[] if end else self._starts(text) for text, end in zip(texts, ends, strict=True)]
        nodes = self._nodes({text[:p] for text, places in zip(texts, starts, strict=True) for p in places})
        within = [
            [(p, node) for p in places if (node := nodes[text[:p]]) is not None]
            for text, places in zip(texts, starts, strict=True)
        ]
        wanted = {path for path in paths if path is not None} | {node for each in within for _, node in each}
        self.tree.read(path for path in wanted if bool((self.tree.total(path) > limit).any()))
        beyond = [
            self._beyond(text, (*self.other.ids, token), each, limit)
            for token, text, each in zip(tokens, texts, within, strict=True)
        ]
        return [
            self._ended(paths[n]) if ends[n] else self._summed(texts[n], token, paths[n], beyond[n])
            for n, token in enumerate(tokens)
        ]

    def _exactly(self, token: int) -> Measured:
        """A beginning, each way to it that has ``LEAST`` of its own probability followed."""
        limit = self.now.total
        for _ in range(DEEPEST):
            limit = limit + self._least
            (found,) = self._measure([token], limit)
            if found.read and bool(found.total.isfinite().all()):
                return self._measure([token], torch.minimum(limit, found.total + self._least))[0]
        return found

    def _starts(self, text: bytes) -> list[int]:
        """Places from which some token of the source goes beyond the end of a text."""
        first = max(len(text) - self.own.texts.longest + 1, 0)
        return [p for p in range(first, len(text)) if self.own.texts.goes_on(text[p:])]

    def _nodes(self, texts: set[bytes]) -> dict[bytes, Path | None]:
        return dict(zip(texts, self.own.paths(list(texts)), strict=True))

    def _beyond(
        self, text: bytes, ids: Path, within: list[tuple[int, Path]], limit: Tensor
    ) -> list[tuple[Tensor, bytes]]:
        """What a token that goes beyond the end adds to P, log (2,), and the text with it."""
        found: list[tuple[Path, Tensor, bytes]] = []
        for p, node in within:
            if not self.tree.knows(node):
                continue
            tokens = self.own.texts.extending(text[p:])
            logs = self.tree.logs(node)[:, tokens] + self.tree.total(node)[:, None]
            for k in (logs > limit[:, None]).any(0).nonzero()[:, 0].tolist():
                token = int(tokens[k])
                found.append(((*node, token), logs[:, k], text[:p] + (self.own.texts.bytes[token] or b"")))
        right = _begins(self.own, [(whole, path) for path, _, whole in found])
        found = [each for each, fits in zip(found, right, strict=True) if fits]
        alike = _begins(self.other, [(whole, ids) for _, _, whole in found])
        return [(log, whole) for (_, log, whole), fits in zip(found, alike, strict=True) if fits]

    def _summed(self, text: bytes, token: int, path: Path | None, beyond: list[tuple[Tensor, bytes]]) -> Measured:
        terms, read, single, plain = [log for log, _ in beyond], True, False, False
        if path is not None:
            total, read, single = self.tree.total(path), self.tree.knows(path), not beyond
            if read:
                stays, always = self._stays(text, (*self.other.ids, token), path)
                total, single = total + stays, single and always
            terms.append(total)
            plain = single and self.now.single and path[:-1] == self.own.ids
        summed = torch.stack(terms).logsumexp(0) if terms else torch.full((2,), -torch.inf, dtype=torch.float64)
        return Measured(summed, single, plain, read, [(float(log[0]), whole) for log, whole in beyond])

    def _stays(self, text: bytes, ids: Path, path: Path) -> tuple[Tensor, bool]:
        """log P that the target's cut of a text stays whatever follows, (2,), and whether it always does."""
        logs, said = self.tree.logs(path), self.own.texts.bytes
        best = logs.amax(0).topk(min(NEXT, logs.shape[1]))
        likely = best.indices[best.values > self._merging].tolist()
        texts = {i: text + piece for i in likely if (piece := said[i])}
        right = _begins(self.own, [(whole, (*path, i)) for i, whole in texts.items()])
        nexts = [(i, whole) for (i, whole), fits in zip(texts.items(), right, strict=True) if fits]
        alike = _begins(self.other, [(whole, ids) for _, whole in nexts])
        self._note(nexts, alike, ids, logs[0] + self.tree.total(path)[0])
        every, staying = [i for i, _ in nexts], [i for (i, _), fits in zip(nexts, alike, strict=True) if fits]
        if is_whole(text):
            ends = sorted(self.own.ends)
            every += ends
            staying += ends if self.other.cuts([text])[0] == [ids] else []
        if len(staying) == len(every):
            return torch.zeros(2, dtype=torch.float64), True
        return (logs[:, staying].logsumexp(-1) - logs[:, every].logsumexp(-1)).double(), False

    def _note(self, nexts: list[tuple[int, bytes]], alike: list[bool], ids: Path, logs: Tensor) -> None:
        """What the target would write in place of its last token, if the tuned source goes on so."""
        likely = self.now.total[0] + self._floor
        turned = [whole for (i, whole), fits in zip(nexts, alike, strict=True) if not fits and logs[i] > likely]
        before = ids[:-1]
        ways = [way for ways in self.other.cuts(turned) for way in ways]
        self.otherwise |= {way[len(before)] for way in ways if way[: len(before)] == before and len(way) > len(before)}

    def _ended(self, path: Path | None) -> Measured:
        """The answer ends here, and the target's tokenizer would cut it as it has."""
        total = torch.full((2,), -torch.inf, dtype=torch.float64)
        if path is None or not self.tree.knows(path) or self.other.cuts([self.other.text])[0] != [self.other.ids]:
            return Measured(total, single=False, plain=False, read=True)
        total = self.tree.total(path) + self.tree.logs(path)[:, sorted(self.own.ends)].logsumexp(-1)
        return Measured(total, single=True, plain=self.now.single, read=True)


def _begins(answer: Answer, texts: Sequence[tuple[bytes, Path]]) -> list[bool]:
    """Whether each text is cut into tokens that begin with these."""
    ways = answer.cuts([text for text, _ in texts])
    return [any(way[: len(ids)] == ids for way in each) for each, (_, ids) in zip(ways, texts, strict=True)]


def _log(probability: float) -> float:
    return math.log(probability) if probability else -math.inf
