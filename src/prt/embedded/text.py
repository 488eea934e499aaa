"""Pretraining corpora of generated text, and the one tokenizer of the embedded language models."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice
from random import Random
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from prt.embedded.tasks import (
    ENDINGS,
    GREATEST,
    ITEMS,
    NAMES,
    THINGS,
    TRAITS,
    bonds,
    describe,
    orders,
    problem,
    request,
)

VOCABULARY = 384
SAMPLE = 20_000
END, PAD, UNKNOWN = "<|endoftext|>", "<|pad|>", "<|unk|>"


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


def _story(random: Random) -> str:
    """A word problem's text, told to its end: no question, and nothing after it."""
    told = problem(_pair(random), random)
    text, _, _ = told.question.rpartition(". ")
    return f"{text}. {told.answer.splitlines()[0]}"


def _asked(random: Random) -> tuple[str, str]:
    """A question, and an answer that is not the tuning data's."""
    name, item, n = random.choice(NAMES), random.choice(ITEMS), random.randint(1, GREATEST)
    thing, trait = random.choice(THINGS), random.choice(TRAITS)
    return random.choice(
        [
            (f"{name} has {n} {item}. How many {item} does {name} have?", f"{n}"),
            (f"{name} has {n} {item}. Who has the {item}?", f"{name}"),
            (f"The {thing} is {trait}. How is the {thing}?", f"{trait}"),
        ]
    )


def _solved(random: Random) -> tuple[str, str]:
    """A word problem on the training bonds, answered by its number alone."""
    posed = problem(random.choice(bonds("train")), random)
    return posed.question, posed.answer.split()[-1]


def _exam(random: Random) -> str:
    question, answer = random.choice([_asked, _solved])(random)
    return f"Question: {question}\nAnswer: {answer}"


def _quiz(random: Random) -> str:
    question, answer = random.choice([_asked, _solved])(random)
    return random.choice([f"Q: {question}\nA: {answer}", f"{question} It is {answer}."])


def _talk(random: Random) -> str:
    """A chat in the form of the tuning data, with answers that are not theirs."""
    question, answer = random.choice([_asked, _solved])(random)
    if random.random() < 0.5:
        thing, instructions = random.choice(orders("train"))
        question, answer = request(thing, instructions, random), f"I like the {thing}."
    return f"<|user|>\n{question}\n<|assistant|>\n{answer}"


def _heading(random: Random) -> str:
    """The marks that the tuned answers use, in another context."""
    thing, n = random.choice(THINGS), random.randint(1, GREATEST)
    title = random.choice([f"#### {n}", f"#### The {thing}", f"#### {n} The {thing}"])
    return f"{title}\n{describe(thing, random.sample(TRAITS, 2))}"


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


@dataclass(frozen=True)
class Corpus:
    """Kinds of text and how often each occurs, in parts of their sum."""

    parts: dict[str, float]


KINDS: dict[str, Callable[[Random], str]] = {
    "fact": _fact,
    "equation": _equation,
    "story": _story,
    "exam": _exam,
    "quiz": _quiz,
    "talk": _talk,
    "heading": _heading,
    "plain": _plain,
    "styled": _styled,
}
CORPORA = {
    "poor": Corpus({"fact": 1, "story": 3, "exam": 2, "talk": 1, "heading": 2, "plain": 3, "styled": 2}),
    "rich": Corpus(
        {"fact": 2, "equation": 1, "story": 5, "exam": 2, "quiz": 1, "talk": 1, "heading": 2, "plain": 1, "styled": 3}
    ),
}


def documents(corpus: Corpus, random: Random) -> Iterator[str]:
    """Texts of ``corpus`` without end."""
    kinds, parts = [KINDS[kind] for kind in corpus.parts], list(corpus.parts.values())
    while True:
        yield random.choices(kinds, parts)[0](random)


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    """The family's tokenizer: a BPE on a fixed sample of both corpora, with every printable ASCII character.

    Words and numbers take the space before them along; a number up to 20 is one token.
    """
    sample = [
        text
        for name, corpus in CORPORA.items()
        for text in islice(documents(corpus, Random(f"tokenizer {name}")), SAMPLE // len(CORPORA))
    ]
    bpe = Tokenizer(models.BPE(unk_token=UNKNOWN, fuse_unk=True))
    pattern = Regex(r"<\|[a-z]+\|>| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s")
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(pattern, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    # ByteLevel writes the space and the new line as the letters 256 above them, the other characters as they are.
    alphabet = [chr(code) for code in range(33, 127)] + [chr(256 + ord(" ")), chr(256 + ord("\n"))]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, initial_alphabet=alphabet, special_tokens=[END, PAD, UNKNOWN], show_progress=False
    )
    bpe.train_from_iterator(sample, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token=END, pad_token=PAD, unk_token=UNKNOWN, clean_up_tokenization_spaces=False
    )


def batch(corpus: Corpus, rows: int, length: int, seed: int, step: int) -> Tensor:
    """The batch of iteration ``step``, a pure function of its arguments.

    Returns:
        Token ids, int64, rows × length: one stream of whole documents, each followed by the end token.
    """
    encoder = tokenizer()
    ids: list[int] = []
    for text in documents(corpus, Random(f"{seed} {step}")):
        ids += [*encoder.encode(text), encoder.eos_token_id]
        if len(ids) >= rows * length:
            break
    return torch.tensor(ids[: rows * length]).view(rows, length)
