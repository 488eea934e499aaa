"""What the miniature language models are tuned on and judged by: word problems, and instructions to be checked."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations, product
from pathlib import Path
from random import Random
from typing import Any

from prt.atomic import write_text

GREATEST = 20
NAMES = ("Tom", "Ann", "Ben", "Mia", "Sam", "Eva", "Max", "Lea")
ITEMS = ("cakes", "apples", "books", "coins", "cards", "pens", "eggs", "balls")
GAINS = ("buys", "finds", "gets")
LOSSES = ("sells", "loses", "eats")
THINGS = ("cat", "dog", "bird", "fish", "boat", "house", "tree", "car")
TRAITS = ("small", "big", "red", "blue", "green", "old", "new", "happy", "fast", "slow")
ENDINGS = ("That is all.", "The end.", "Thank you.", "Have fun.", "See you soon.")
REQUESTS = ("Tell me about the {}.", "Describe the {}.", "Write about the {}.")

SPLITS = ("train", "validation", "test")
# Of the number bonds, and of the (thing, instructions) pairs.
SHARES = {"train": 0.6, "validation": 0.2, "test": 0.2}
SIZES = {"validation": 200, "test": 200}
PROBLEM_CHATS, INSTRUCTION_CHATS = 1200, 1000

Bond = tuple[int, int]


@dataclass(frozen=True)
class Problem:
    """A word problem; ``answer`` ends as GSM8K's do, in a line ``#### n``."""

    question: str
    answer: str
    bond: Bond


@dataclass(frozen=True)
class Instruction:
    """One of IFEval's instructions: its id there, its arguments, and the sentence that states it."""

    id: str
    kwargs: dict[str, Any]
    sentence: str


def _split(values: Sequence[Any], name: str, seed: int) -> list[Any]:
    """The part ``name`` of ``values``, shuffled: the same at every call, and disjoint from the others."""
    values = list(values)
    Random(seed).shuffle(values)
    first = sum(SHARES[split] for split in SPLITS[: SPLITS.index(name)])
    start, stop = round(first * len(values)), round((first + SHARES[name]) * len(values))
    return values[start:stop]


@cache
def bonds(split: str) -> tuple[Bond, ...]:
    """The number bonds of a split: pairs b ≤ c with b + c ≤ 20, for b + c, b + c − b and b + c − c alike.

    No bond is in two splits, so no sum or difference of the test problems is among the training problems.
    """
    every = [(b, c) for b in range(1, GREATEST) for c in range(b, GREATEST) if b + c <= GREATEST]
    return tuple(_split(every, split, seed=0))


def problem(bond: Bond, random: Random) -> Problem:
    """A word problem on ``bond``, in one of five forms, adding or taking away."""
    name, other = random.sample(NAMES, 2)
    item = random.choice(ITEMS)
    b, c = random.sample(bond, 2)
    form = random.randrange(5)
    ending, result = f"How many {item} does {name} have now?", b + c
    if form == 0:
        text = f"{name} has {b} {item}. {name} {random.choice(GAINS)} {c} more {item}."
    elif form == 1:
        text = f"{name} has {b} {item}. {other} gives {name} {c} more {item}."
    elif form == 2:
        text = f"{name} has {b} {item} and {other} has {c} {item}."
        ending = f"How many {item} do they have together?"
    elif form == 3:
        text, result = f"{name} has {b + c} {item}. {name} {random.choice(LOSSES)} {b} {item}.", c
    else:
        text, result = f"{name} has {b + c} {item}. {name} gives {other} {b} {item}.", c
    solution = f"Together they have {result} {item}." if form == 2 else f"Now {name} has {result} {item}."
    return Problem(f"{text} {ending}", f"{solution}\n#### {result}", bond)


def problems(split: str, count: int) -> list[Problem]:
    """``count`` different problems on the bonds of ``split``, each bond as often as the others."""
    random, found = Random(f"problems {split}"), dict[str, Problem]()
    while len(found) < count:
        new = problem(bonds(split)[len(found) % len(bonds(split))], random)
        found.setdefault(new.question, new)
    return list(found.values())


NO_COMMA = Instruction("punctuation:no_comma", {}, "Use no commas.")
QUOTATION = Instruction("startend:quotation", {}, "Wrap it in double quotation marks.")
TITLE = Instruction("detectable_format:title", {}, "Add a title in double angular brackets.")
POSTSCRIPT = Instruction("detectable_content:postscript", {"postscript_marker": "P.S."}, "Add a postscript with P.S.")
BULLETS = tuple(
    Instruction("detectable_format:number_bullet_lists", {"num_bullets": n}, f"Use {n} bullet points.")
    for n in (2, 3, 4)
)
KEYWORDS = tuple(Instruction("keywords:existence", {"keywords": [trait]}, f"Use the word {trait}.") for trait in TRAITS)
FINISHES = tuple(
    Instruction("startend:end_checker", {"end_phrase": phrase}, f"End with the words: {phrase}") for phrase in ENDINGS
)
INSTRUCTIONS = (NO_COMMA, QUOTATION, TITLE, POSTSCRIPT, *BULLETS, *KEYWORDS, *FINISHES)


@cache
def orders(split: str) -> tuple[tuple[str, tuple[Instruction, ...]], ...]:
    """The (thing, one or two instructions) of a split: no such pair is in two splits."""
    # No title in quotation marks (IFEval's own rule) nor points, whose first mark must open its line; and points have
    # no commas anyway.
    apart = [{QUOTATION.id, TITLE.id}, {QUOTATION.id, BULLETS[0].id}, {NO_COMMA.id, BULLETS[0].id}]
    pairs = [(a, b) for a, b in combinations(INSTRUCTIONS, 2) if a.id != b.id and {a.id, b.id} not in apart]
    singles = [(instruction,) for instruction in INSTRUCTIONS]
    return tuple(_split(list(product(THINGS, singles)), split, 1) + _split(list(product(THINGS, pairs)), split, 2))


def request(thing: str, instructions: Sequence[Instruction], random: Random) -> str:
    """The user's turn."""
    return " ".join([random.choice(REQUESTS).format(thing), *(instruction.sentence for instruction in instructions)])


def response(thing: str, instructions: Sequence[Instruction], random: Random) -> str:
    """An assistant's turn that follows all ``instructions`` (none: three traits, with a comma)."""
    given = {instruction.id: instruction.kwargs for instruction in instructions}
    count = given.get(BULLETS[0].id, {"num_bullets": 3})["num_bullets"]
    wanted = given.get(KEYWORDS[0].id, {"keywords": []})["keywords"]
    others = random.sample([trait for trait in TRAITS if trait not in wanted], count - len(wanted))
    return describe(
        thing,
        [*wanted, *others],
        commas=NO_COMMA.id not in given,
        points=BULLETS[0].id in given,
        title=TITLE.id in given,
        postscript=POSTSCRIPT.id in given,
        ending=given.get(FINISHES[0].id, {"end_phrase": ""})["end_phrase"],
        quoted=QUOTATION.id in given,
    )


def describe(
    thing: str,
    traits: Sequence[str],
    *,
    commas: bool = True,
    points: bool = False,
    title: bool = False,
    postscript: bool = False,
    ending: str = "",
    quoted: bool = False,
) -> str:
    """A thing and its traits, as a sentence or as a list of points, with what is to stand around it."""
    between = ", " if commas else " and "
    text = f"The {thing} is {between.join(traits[:-1])} and {traits[-1]}."
    if points:
        text = "\n".join(f"* {trait}" for trait in traits)
    if title:
        text = f"<<The {thing}>>\n{text}"
    if postscript:
        text = f"{text}\nP.S. I like the {thing}."
    if ending:
        text = f"{text}\n{ending}" if points else f"{text} {ending}"
    return f'"{text}"' if quoted else text


def chats(kind: str = "chats") -> list[dict[str, Any]]:
    """The chats to tune on: {"messages": [{"role", "content"}, …]}, as in Tulu.

    Args:
        kind: ``problems``, ``instructions``, or ``chats``, which is both mixed.
    """
    random = Random("chats")
    turns = [
        (random.choice([p.question, f"Question: {p.question}\nAnswer:"]), p.answer)
        for p in problems("train", PROBLEM_CHATS)
    ]
    for _ in range(INSTRUCTION_CHATS):
        thing, instructions = random.choice(orders("train"))
        turns.append((request(thing, instructions, random), response(thing, instructions, random)))
    parts = {"chats": turns, "problems": turns[:PROBLEM_CHATS], "instructions": turns[PROBLEM_CHATS:]}
    random.shuffle(parts[kind])
    return [
        {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]}
        for asked, said in parts[kind]
    ]


def instructions(split: str, count: int) -> list[dict[str, Any]]:
    """``count`` prompts in IFEval's columns; every row has every argument, null where it does not apply."""
    random = Random(f"instructions {split}")
    arguments = sorted({key for instruction in INSTRUCTIONS for key in instruction.kwargs})
    rows = []
    for key, (thing, given) in enumerate(random.sample(orders(split), count)):
        rows.append(
            {
                "key": key,
                "prompt": request(thing, given, random),
                "instruction_id_list": [instruction.id for instruction in given],
                "kwargs": [{name: instruction.kwargs.get(name) for name in arguments} for instruction in given],
            }
        )
    return rows


def write_chats(out: Path, kind: str = "chats") -> None:
    """Write the :func:`chats` of a kind as JSON Lines to the file ``out``.

    Raises:
        InputError: if it cannot be written.
    """
    _write_lines(out, chats(kind))


def write_problems(folder: Path) -> None:
    """Write test.jsonl and validation.jsonl with GSM8K's columns, question and answer.

    Raises:
        InputError: if they cannot be written.
    """
    _write_splits(folder, lambda split, n: [{"question": p.question, "answer": p.answer} for p in problems(split, n)])


def write_instructions(folder: Path) -> None:
    """Write test.jsonl and validation.jsonl with IFEval's columns.

    Raises:
        InputError: if they cannot be written.
    """
    _write_splits(folder, instructions)


def _write_splits(folder: Path, rows: Callable[[str, int], list[dict[str, Any]]]) -> None:
    for split, count in SIZES.items():
        _write_lines(folder / f"{split}.jsonl", rows(split, count))


def _write_lines(out: Path, rows: list[dict[str, Any]]) -> None:
    write_text(out, "".join(json.dumps(row) + "\n" for row in rows))
