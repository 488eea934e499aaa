"""Tokenizers as maps between ids and bytes: what a token says, and how a tokenizer cuts a text into tokens.

Two vocabularies have nothing in common but the bytes that their tokens stand for.
"""

import json
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from prt.errors import InputError
from prt.language.models import vocabulary

# Steps of a decoder that only join the strings of tokens and put spaces and bytes for their signs.
JOINING = {"Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"}
SPACE = "\u2581"  # SentencePiece's sign for a space
PROBE = "Now a-b is 12, or 345.\nIt is."
WINDOW = 96  # bytes at a text's end that are cut anew when it grows; no tokenizer looks that far back
ANCHOR = 48  # bytes before them, which keep the beginning of the window from being taken for that of a text
# Second, third or fourth bytes that make a character whole; not all are allowed after every first one.
CONTINUATIONS = (0x80, 0x90, 0xA0, 0xAA, 0xBF)


class Texts:
    """The tokens of a tokenizer as bytes.

    Args:
        name: of the model, for messages.
        tokenizer: byte-level, of SentencePiece's kind (with or without bytes to fall back on), or of whole strings.

    Raises:
        InputError: if its tokens cannot be turned into bytes.
    """

    def __init__(self, name: str, tokenizer: PreTrainedTokenizerBase) -> None:
        self.name = name
        self.size = vocabulary(tokenizer).size
        self._backend: Any = getattr(tokenizer, "backend_tokenizer", None)
        if self._backend is None:
            raise self._refusal("it is no tokenizer of the library tokenizers")
        self._written, control = self._tokens(tokenizer)
        # What a token says: nothing, if it is a control token.
        self.bytes = [None if i in control else said for i, said in enumerate(self._written)]
        ordered = sorted((said, i) for i, said in enumerate(self.bytes) if said)
        self._keys, self._ids = [said for said, _ in ordered], torch.tensor([i for _, i in ordered])
        self.longest = max(map(len, self._keys))
        unknown = self._backend.token_to_id(getattr(self._backend.model, "unk_token", None) or "")
        known = "".join(c for c in PROBE if (ids := self._encoded(c)) and unknown not in ids)
        if not self.keeps(known):
            raise self._refusal("it does not keep a text as it is written")

    def _encoded(self, text: str) -> list[int]:
        return list(self._backend.encode(text, add_special_tokens=False).ids)

    def _refusal(self, why: str) -> InputError:
        return InputError(
            f"the tokens of {self.name} cannot be turned into bytes ({why}), so no reward of another tokenizer can be "
            "put on it, nor its own on another; take a model with a byte-level or SentencePiece tokenizer."
        )

    def _tokens(self, tokenizer: Any) -> tuple[list[bytes | None], set[int]]:
        """The bytes that every id is written as (None where there is no token), and the ids of control tokens."""
        decoder: dict[str, Any] = {"type": "none"}
        if self._backend.decoder:
            decoder = json.loads(self._backend.decoder.__getstate__())
        steps = decoder["decoders"] if decoder["type"] == "Sequence" else [decoder]
        kinds = {step["type"] for step in steps}
        byte_level = "ByteLevel" in kinds
        if not byte_level and not kinds <= JOINING:
            raise self._refusal(f"its decoder is {decoder['type']}")
        letters = _byte_letters()
        added = tokenizer.added_tokens_decoder
        found: list[bytes | None] = [None] * self.size
        for token, i in tokenizer.get_vocab().items():
            if i in added:
                found[i] = token.encode()
            elif byte_level:
                if not all(letter in letters for letter in token):
                    raise self._refusal(f"its token {token!r} is not written in the letters of bytes")
                found[i] = bytes(letters[letter] for letter in token)
            elif "ByteFallback" in kinds and len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
                found[i] = bytes([int(token[3:5], 16)])
            else:
                found[i] = token.replace(SPACE, " ").encode()
        return found, {i for i, token in added.items() if token.special} | set(tokenizer.all_special_ids)

    def _joined(self, ids: Iterable[int]) -> bytes:
        return b"".join(self._written[i] or b"" for i in ids)

    def keeps(self, text: str) -> bool:
        """Whether the tokens of a text say it as it is written, but for the space that may come first."""
        return self._joined(self._encoded(text)) in (text.encode(), b" " + text.encode())

    def extending(self, rest: bytes) -> Tensor:
        """Ids of the tokens that begin with these bytes and go on beyond them, (n,)."""
        first = bisect_right(self._keys, rest)
        return self._ids[first : bisect_left(self._keys, rest + b"\xff" * (self.longest + 1))]

    def goes_on(self, rest: bytes) -> bool:
        """Whether a token begins with these bytes and goes on beyond them."""
        next_key = bisect_right(self._keys, rest)
        return next_key < len(self._keys) and self._keys[next_key].startswith(rest)

    def cut(self, texts: Sequence[tuple[bytes, bytes]]) -> list[list[tuple[int, ...]]]:
        """How each text is cut after what stands before it, both given as bytes (before, text).

        A text that ends within a character is made whole in every way that is tried (see ``CONTINUATIONS``); else there
        is one way. A way is left out where a token goes across the end of what stands before, and where the tokens do
        not say the text as it is written (a character that the tokenizer does not know, or rewrites).
        """
        whole = [[before + text for text in _completed(text)] for before, text in texts]
        flat = [text.decode() for ways in whole for text in ways]
        encoded = iter(self._backend.encode_batch_fast(flat, add_special_tokens=False)) if flat else iter(())
        return [
            [ids for way in ways if (ids := self._after(len(before), way, next(encoded).ids)) is not None]
            for (before, _), ways in zip(texts, whole, strict=True)
        ]

    def _after(self, before: int, text: bytes, ids: list[int]) -> tuple[int, ...] | None:
        said = self._joined(ids)
        if said == text:
            at = 0
        elif said == b" " + text:  # SentencePiece puts a space before every text
            at = -1
        else:
            return None
        for n, i in enumerate(ids):
            if at == before:  # a control token may be written in a text, but says nothing
                return None if any(self.bytes[k] is None for k in ids[n:]) else tuple(ids[n:])
            at += len(self._written[i] or b"")
        return () if at == before else None


class Answer:
    """An answer as one tokenizer cuts it: its bytes so far, and where the tokens begin.

    Args:
        prompt: the text before it, as the model reads it.
        ends: ids that end an answer.
    """

    def __init__(self, texts: Texts, prompt: str, ends: Iterable[int]) -> None:
        self.texts, self.ends = texts, set(ends)
        # After a control token a tokenizer begins anew.
        control = [w for w, b in zip(texts._written, texts.bytes, strict=True) if w and b is None]
        tail = prompt.encode()
        for token in control:
            tail = tail.rpartition(token)[2]
        anchor = _whole_characters(tail[-ANCHOR:]).decode() or "\n"
        while not texts.keeps(anchor):  # from a character on that the tokenizer does not know
            anchor = anchor[1:]
        self._before = anchor.encode()
        self._from = 0  # number of the first token that is held against the tokenizer's own cut
        self.become(b"", ())

    def become(self, text: bytes, ids: tuple[int, ...]) -> None:
        """The answer is now this text, and has been cut like this."""
        self.text, self.ids, self.at = text, ids, [0]
        for i in ids:
            self.at.append(self.at[-1] + len(self.texts.bytes[i] or b""))
        self._begin()

    def follow(self, text: bytes) -> None:
        """The answer is now this text, cut as the tokenizer does, up to the last token that is whole in it."""
        ways = self.cuts([text])[0]
        if not ways:
            return
        at, n = self.at[self._start], self._start
        while n < len(ways[0]) and (after := at + len(self.texts.bytes[ways[0][n]] or b"")) <= len(text):
            at, n = after, n + 1
        self.become(text[:at], ways[0][:n])

    def _begin(self) -> None:
        """Where the window begins, and what stands before it."""
        self._start = max(self._from, bisect_left(self.at, len(self.text) - WINDOW + 1) - 1, 0)
        forgiven = self._from and self._start == self._from  # another cut would not begin here
        before = b"" if forgiven else (self._before + self.text[: self.at[self._start]])[-ANCHOR:]
        self._anchor = _whole_characters(before)
        self._known: dict[bytes, list[tuple[int, ...]]] = {}

    def forgive(self) -> None:
        """Hold no token so far against the tokenizer's own cut: a model may have chosen others."""
        self._from = len(self.ids)
        self._begin()

    def cuts(self, texts: Sequence[bytes]) -> list[list[tuple[int, ...]]]:
        """The ways that :meth:`Texts.cut` finds of texts which begin as this answer does; all ids of the answer."""
        offset = self.at[self._start]
        new = list({text for text in texts if text not in self._known and len(text) >= offset})
        for text, ways in zip(new, self.texts.cut([(self._anchor, text[offset:]) for text in new]), strict=True):
            self._known[text] = [self.ids[: self._start] + way for way in ways]
        return [self._known.get(text, []) for text in texts]

    def paths(self, texts: Sequence[bytes]) -> list[tuple[int, ...] | None]:
        """The ids of each text where one of its ways has a token that ends with it, else None."""
        return [self._path(text, ways) for text, ways in zip(texts, self.cuts(texts), strict=True)]

    def _path(self, text: bytes, ways: list[tuple[int, ...]]) -> tuple[int, ...] | None:
        for way in ways:
            at, n = self.at[self._start], self._start
            while at < len(text):
                at += len(self.texts.bytes[way[n]] or b"")
                n += 1
            if at == len(text):
                return way[:n]
        return None


def _completed(text: bytes) -> list[bytes]:
    """The text; if it ends within a character, with bytes that make it whole; nothing if it is no UTF-8."""
    try:
        text.decode()
    except UnicodeDecodeError as error:
        if error.reason != "unexpected end of data":
            return []
        first, there = text[error.start], len(text) - error.start
        missing = (2 if first < 0xE0 else 3 if first < 0xF0 else 4) - there
        ways = [text + bytes([byte]) + b"\x80" * (missing - 1) for byte in CONTINUATIONS]
        return [way for way in ways if is_whole(way)]
    return [text]


def is_whole(text: bytes) -> bool:
    """Whether the bytes are UTF-8 and end with a whole character."""
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _whole_characters(text: bytes) -> bytes:
    """Without the end of a character that begins before these bytes, and the beginning of one that ends after them."""
    return text.decode(errors="ignore").encode()


def _byte_letters() -> dict[str, int]:
    """The letters that a byte-level vocabulary is written in (GPT-2's): byte by letter."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(256 + n): byte for n, byte in enumerate(hidden)}
