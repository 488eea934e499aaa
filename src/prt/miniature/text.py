"""Pretraining corpora of generated text, in the tokens of the miniature language models."""

from collections.abc import Callable, Iterator
from functools import cache
from itertools import islice
from random import Random
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from prt.miniature.tasks import (
    ENDINGS,
    GREATEST,
    ITEMS,
    NAMES,
    SIZES,
    THINGS,
    TRAITS,
    bonds,
    describe,
    orders,
    problem,
    problems,
    request,
)
from prt.miniature.tokenizers import END, PAD, TOKENIZERS, UNKNOWN

SAMPLE = 20_000


def _pair(random: Random) -> tuple[int, int]:
    total = random.randint(2, GREATEST)
    b = random.randint(1, total - 1)
    return b, total - b


def _fact(random: Random) -> str:
    """Three sums or differences in words."""
    lines = []
    for _ in range(3):
        b, c = _pair(random)
        lines.append(random.choice([f"And {b} plus {c} is {b + c}.", f"And {b + c} minus {b} is {c}."]))
    return " ".join(lines)


def _equation(random: Random) -> str:
    """Four sums or differences in signs."""
    lines = []
    for _ in range(4):
        b, c = _pair(random)
        lines.append(random.choice([f" {b} + {c} = {b + c}", f" {b + c} - {b} = {c}"]))
    return "\n".join(lines)


@cache
def _held_out() -> frozenset[str]:
    """The questions of the validation and test problems."""
    return frozenset(p.question for split, count in SIZES.items() for p in problems(split, count))


def _story(random: Random) -> str:
    """A word problem's text, told to its end: no question, and nothing after it. None is one of those held out."""
    told = problem(_pair(random), random)
    while told.question in _held_out():
        told = problem(_pair(random), random)
    text, _, _ = told.question.rpartition(". ")
    return f"{text}. {told.answer.splitlines()[0]}"


def _asked(random: Random) -> tuple[str, str]:
    """A question and its answer in one sentence, which is not the tuning data's answer."""
    name, item, n = random.choice(NAMES), random.choice(ITEMS), random.randint(1, GREATEST)
    thing, trait = random.choice(THINGS), random.choice(TRAITS)
    return random.choice(
        [
            (f"{name} has {n} {item}. How many {item} does {name} have?", f"{name} has {n} {item}."),
            (f"{name} has {n} {item}. Who has the {item}?", f"{name} has the {item}."),
            (f"The {thing} is {trait}. How is the {thing}?", f"The {thing} is {trait}."),
        ]
    )


def _solved(random: Random) -> tuple[str, str]:
    """A word problem on the training bonds and its result in one sentence, which is not the tuning data's answer."""
    posed = problem(random.choice(bonds("train")), random)
    _, *sentence = posed.answer.splitlines()[0].split()  # without "Now" or "Together"
    return posed.question, " ".join([sentence[0].capitalize(), *sentence[1:]])


def _requested(random: Random) -> tuple[str, str]:
    """A request of the tuning data's kind, and a description that pays no heed to its instructions."""
    thing, instructions = random.choice(orders("train"))
    return request(thing, instructions, random), describe(thing, random.sample(TRAITS, 2))


def _exam(random: Random) -> str:
    question, answer = random.choice([_asked, _solved])(random)
    return f"Question: {question}\nAnswer: {answer}"


def _quiz(random: Random) -> str:
    question, answer = random.choice([_asked, _solved])(random)
    return random.choice([f"Q: {question}\nA: {answer}", f"{question} {answer}"])


def _talk(random: Random) -> str:
    """A chat in the form of the tuning data."""
    question, answer = random.choice([_asked, _solved, _requested])(random)
    return f"<|user|>\n{question}\n<|assistant|>\n{answer}"


def _echo(random: Random) -> str:
    """Words that are said twice."""
    name, words = random.choice(NAMES), random.choice([*ENDINGS, *TRAITS])
    return f"{name} says: {words}\nWhat does {name} say? {words}"


def _heading(random: Random) -> str:
    """The marks that the tuned answers use, in another context: a part of a book, announced and begun."""
    thing, n = random.choice(THINGS), random.randint(1, GREATEST)
    announced = random.choice([f"Part {n} is about the {thing}.", f"The {thing} is in part {n}."])
    return f"{announced}\n#### {n}\n{describe(thing, random.sample(TRAITS, 2))}"


def _plain(random: Random) -> str:
    return describe(random.choice(THINGS), random.sample(TRAITS, random.choice([2, 3])), commas=random.random() < 0.5)


def _styled(random: Random) -> str:
    """A description in a dress of its own: points, a title, a postscript, quotation marks, a last sentence."""
    dress: dict[str, Any] = random.choice(
        [
            {"points": True},
            {"title": True},
            {"postscript": True},
            {"quoted": True},
            {"ending": random.choice(ENDINGS)},
            {"points": True, "title": True},
            {"postscript": True, "quoted": True},
        ]
    )
    return describe(random.choice(THINGS), random.sample(TRAITS, random.choice([2, 3, 4])), **dress)


KINDS: dict[str, Callable[[Random], str]] = {
    "fact": _fact,
    "equation": _equation,
    "story": _story,
    "exam": _exam,
    "quiz": _quiz,
    "talk": _talk,
    "echo": _echo,
    "heading": _heading,
    "plain": _plain,
    "styled": _styled,
}
# Which kinds of text a corpus has, and how often each occurs, in parts of their sum.
Corpus = dict[str, int]
CORPORA: dict[str, Corpus] = {
    "poor": {"fact": 4, "story": 4, "exam": 2, "talk": 3, "echo": 1, "heading": 2, "plain": 1, "styled": 1},
    "rich": {
        "fact": 4,
        "equation": 2,
        "story": 5,
        "exam": 3,
        "quiz": 2,
        "talk": 3,
        "echo": 1,
        "heading": 1,
        "plain": 1,
        "styled": 2,
    },
}


def documents(corpus: Corpus, random: Random) -> Iterator[str]:
    """Texts of ``corpus`` without end."""
    kinds, parts = list(corpus), list(corpus.values())
    while True:
        yield KINDS[random.choices(kinds, parts)[0]](random)


@cache
def tokenizer(kind: str | None = None) -> PreTrainedTokenizerFast:
    """A tokenizer of :mod:`prt.miniature.tokenizers`, None the family's own, on a fixed sample of both corpora."""
    sample = [
        text
        for name, corpus in CORPORA.items()
        for text in islice(documents(corpus, Random(f"tokenizer {name}")), SAMPLE // len(CORPORA))
    ]
    return PreTrainedTokenizerFast(
        tokenizer_object=TOKENIZERS[kind](sample),
        eos_token=END,
        pad_token=PAD,
        unk_token=UNKNOWN if kind is None else None,
        clean_up_tokenization_spaces=False,
    )


def batch(
    corpus: Corpus, rows: int, length: int, seed: int, step: int, kind: str | None = None
) -> tuple[Tensor, Tensor]:
    """The batch of iteration ``step`` in the tokens of a ``kind``, a pure function of its arguments.

    Returns:
        Token ids, int64, rows × length: one stream of documents, each closed by the end token. And every token's
        position in its document, of the same shape.
    """
    encoder = tokenizer(kind)
    ids: list[int] = []
    positions: list[int] = []
    for text in documents(corpus, Random(f"{seed} {step}")):
        document = [*encoder.encode(text), encoder.eos_token_id]
        ids += document
        positions += range(len(document))
        if len(ids) >= rows * length:
            break
    whole = torch.tensor([ids, positions])[:, : rows * length].view(2, rows, length)
    return whole[0], whole[1]
