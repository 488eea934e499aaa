"""Figures 5, 8 and 9: the likeliest next tokens without and with the reward, at chosen places of a decoded answer."""

import re
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from matplotlib import font_manager, ft2font
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from prt.errors import InputError
from prt.figures.style import INK, plain_style, save
from prt.methods import METHODS

SIDES = {"without": ("pretrained", "without the reward"), "with": ("prt", "with the reward")}
MISSING = "□"  # what no font draws: control characters, and letters that this one lacks
CONTROL = {code: MISSING for code in (*range(32), *range(127, 160)) if code not in b"\n\t"}
VISIBLE = CONTROL | str.maketrans({" ": "␣", "\n": "↵", "\t": "⇥"})
END = "⊣"
GREY = "#777777"
HIGHLIGHT = "#FFE08A"

# Inches. Every letter of DejaVu Sans Mono is 0.602 of its size wide, so that a place in the text is a place on paper.
SIZE = 7.2
LETTER, LINE = 0.602 * SIZE / 72, 1.45 * SIZE / 72
WIDTH, EDGE = 7.4, 0.12
LETTERS = int((WIDTH - 2 * EDGE) / LETTER)
ABOVE = 0.09  # over a line with highlighted tokens: their numbers
ROW, ROOM = 1.05, 0.82  # a row of bar charts; the names of the tokens, left of the bars
LONGEST = 1500  # letters of a prompt that are shown: its end, which is the question
LONGEST_TOKEN = 15  # letters of a token: Llama's <|end_of_text|> is whole

_TOP = {
    "type": "array",
    "minItems": 1,
    "items": {"type": "array", "prefixItems": [{"type": "string"}, {"type": "number"}]},
}
_POSITION = {
    "index": {"type": "integer"},
    "before": {"type": "string"},
    "chosen": {"type": "string"},
    "without": _TOP,
    "with": _TOP,
}
_POSITIONS = {"type": "object", "required": list(_POSITION), "properties": _POSITION}
_CONTENT = {
    "target": {"type": "string"},
    "reward": {"type": "string"},
    "prompt": {"type": "string"},
    "answer": {"type": "string"},
    "positions": {"type": "array", "minItems": 1, "items": _POSITIONS},
}
SCHEMA = {"type": "object", "required": list(_CONTENT), "properties": _CONTENT}


class Piece(NamedTuple):
    """A piece of one line: its place in the text, and what is written."""

    line: int
    start: int
    text: str


def draw(content: dict[str, Any], stem: Path) -> None:
    """Draw the figure to ``stem``.pdf, .png and .csv.

    Args:
        content: ``target`` and ``reward`` (names), ``prompt``, ``answer`` (decoded with the reward) and ``positions``:
            each its ``index`` among the answer's tokens, the text ``before`` it (its last letters), the ``chosen``
            token, and the likeliest tokens ``without`` and ``with`` the reward: [token, probability], the likeliest
            first.
        stem: name of the files, without their ending.

    Raises:
        InputError: if the content is not of this form, or a position is not in the text.
    """
    error = best_match(Draft202012Validator(SCHEMA).iter_errors(content))
    if error is not None:
        place = ".".join(map(str, error.absolute_path)) or "the top level"
        raise InputError(f"the next tokens cannot be drawn: {place} is wrong ({error.message[:200]}); make them again.")
    save(figure(content), rows(content), stem)


def rows(content: dict[str, Any]) -> pd.DataFrame:
    """A row for each bar."""
    facts = {"target": content["target"], "reward": content["reward"]}
    return pd.DataFrame(
        facts
        | {"index": p["index"], "before": p["before"], "chosen": p["chosen"], "side": side, "rank": rank}
        | {"token": token, "probability": probability}
        for p in content["positions"]
        for side in SIDES
        for rank, (token, probability) in enumerate(p[side], start=1)
    )


@plain_style
def figure(content: dict[str, Any]) -> Figure:
    """The text with the positions highlighted and numbered, and below a pair of bar charts for each."""
    prompt = content["prompt"]
    if len(prompt) > LONGEST:
        prompt = "… " + prompt[-LONGEST:]
    text = prompt + content["answer"]
    positions = sorted(content["positions"], key=lambda p: p["index"])
    spans = places(text, len(prompt), positions)
    if spans[-1][0] >= len(text):
        text += END  # the token that ends the answer has no text of its own
    text = text.translate(CONTROL)
    pieces = wrapped(text, LETTERS)
    bottom, middles = 0.3, []
    for piece in pieces:
        numbered = any(0 <= start - piece.start <= len(piece.text) for start, _ in spans)
        bottom += LINE + ABOVE * numbered
        middles.append(bottom - LINE / 2)
    deepest = max(len(p[side]) for p in positions for side in SIDES)
    row = ROW * (0.3 + 0.14 * deepest)
    top = bottom + 0.3
    height = top + row * ((len(positions) + 1) // 2) + 0.08

    drawn = Figure(figsize=(WIDTH, height))
    page = drawn.add_axes((0, 0, 1, 1))
    page.set(xlim=(0, WIDTH), ylim=(height, 0))
    page.set_axis_off()
    page.text(
        EDGE, 0.16, f"{content['target']} with the reward of {content['reward']}, greedy", fontweight="bold",
        fontsize=7.5, va="center",
    )  # fmt: skip
    _text(page, text, len(prompt), pieces, middles, spans)
    for x, (method, side) in zip((EDGE, EDGE + 1.5), SIDES.values(), strict=True):
        y = top - 0.14
        page.add_patch(Rectangle((x, y - 0.035), 0.12, 0.07, color=METHODS[method].colour))
        page.text(x + 0.17, y, side, va="center")
    page.text(
        EDGE + 3.0, top - 0.14, f"probability of the {deepest} likeliest next tokens, in %", va="center", color=GREY
    )

    half = (WIDTH - 2 * EDGE) / 2
    for number, position in enumerate(positions):
        left, upper = EDGE + half * (number % 2), top + row * (number // 2)
        title = f"{number + 1}   …{position['before'][-24:].translate(VISIBLE)}"
        page.text(left, upper + 0.1, _drawable(title), va="center", family="DejaVu Sans Mono", fontsize=6)
        page.add_patch(Rectangle((left - 0.03, upper + 0.04), 0.12, 0.12, color=HIGHLIGHT, zorder=0))
        quarter = half / 2
        for column, side in enumerate(SIDES):
            box = (left + quarter * column + ROOM, upper + 0.19, quarter - ROOM - 0.32, row - 0.27)
            axis = drawn.add_axes((box[0] / WIDTH, 1 - (box[1] + box[3]) / height, box[2] / WIDTH, box[3] / height))
            _bars(axis, position[side], position["chosen"], METHODS[SIDES[side][0]].colour, deepest)
    return drawn


def _bars(axis: Axes, top: list[tuple[str, float]], chosen: str, colour: str, deepest: int) -> None:
    """Horizontal bars, the likeliest on top; the token that was decoded is bold."""
    y = range(len(top))
    axis.barh(y, [probability for _, probability in top], 0.72, color=colour)
    axis.set(xlim=(0, 1), ylim=(deepest - 0.5, -0.5), xticks=[], yticks=list(y))
    axis.grid(visible=False)
    axis.spines["bottom"].set_visible(False)
    labels = axis.set_yticklabels([_drawable(_short(token)) for token, _ in top], family="DejaVu Sans Mono", fontsize=6)
    for label, (token, _) in zip(labels, top, strict=True):
        label.set_fontweight("bold" if token == chosen else "normal")
    axis.tick_params(axis="y", length=0, pad=2)
    for at, (_, probability) in zip(y, top, strict=True):
        axis.text(probability + 0.03, at, f"{100 * probability:.1f}", va="center_baseline", fontsize=5.5, color=INK)


def _text(
    page: Axes, text: str, answer: int, pieces: list[Piece], middles: list[float], spans: list[tuple[int, int]]
) -> None:
    """Write the text, each line at its height, the prompt in grey, with the spans highlighted and numbered."""
    for piece, y in zip(pieces, middles, strict=True):
        cut = min(max(answer - piece.start, 0), len(piece.text))
        for word in re.finditer(r"\S+", piece.text):  # each at its own place: renderers round a letter's width
            for start, end, colour in (
                (word.start(), min(word.end(), cut), GREY),
                (max(word.start(), cut), word.end(), INK),
            ):
                if start < end:
                    page.text(
                        EDGE + start * LETTER, y, _drawable(piece.text[start:end]), va="center_baseline",
                        family="DejaVu Sans Mono", fontsize=SIZE, color=colour,
                    )  # fmt: skip
        for number, (start, end) in enumerate(spans, start=1):
            last = piece.start + len(piece.text)
            a, b = max(start, piece.start), min(end, last + text.startswith("\n", last))
            if a >= b:
                continue
            x = EDGE + (a - piece.start) * LETTER
            page.add_patch(Rectangle((x, y - LINE / 2), (b - a) * LETTER, LINE, color=HIGHLIGHT, zorder=0))
            if a == start:
                page.text(x, y - (LINE + ABOVE) / 2, str(number), fontsize=5, fontweight="bold", va="center")
            if not text[a:b].strip():
                page.text(x, y, text[a:b].translate(VISIBLE), va="center_baseline", fontsize=SIZE, color=GREY)


def places(text: str, answer: int, positions: list[dict[str, Any]]) -> list[tuple[int, int]]:
    """Where each chosen token stands in ``text``, as (start, end); the answer begins at ``answer``.

    A token is found by the text before it. Its own text alone may not tell how it stands there: tokenizers add or drop
    the space before a word.

    Raises:
        InputError: if the text before a position does not occur where it could.
    """
    found: list[tuple[int, int]] = []
    for p in positions:
        behind = found[-1][1] if found else answer
        at = text.find(p["before"], max(0, behind - len(p["before"])))
        if at < 0:
            raise InputError(
                f"the text before position {p['index']}, '{p['before']}', is not in the answer; make the next tokens"
                " again."
            )
        start = at + len(p["before"])
        word = p["chosen"].strip()
        if word:
            start += len(text[start:]) - len(text[start:].lstrip())
        found.append((start, start + max(1, len(word or p["chosen"]))))
    return found


def wrapped(text: str, width: int) -> list[Piece]:
    """The lines of ``text``, broken after a space where they are longer than ``width`` letters."""
    pieces: list[Piece] = []
    start = 0
    for paragraph in text.split("\n"):
        rest = paragraph
        while True:
            cut = len(rest) if len(rest) <= width else rest.rfind(" ", 0, width) + 1 or width
            pieces.append(Piece(len(pieces), start, rest[:cut]))
            start, rest = start + cut, rest[cut:]
            if not rest:
                break
        start += 1  # the line break
    return pieces


def _short(token: str) -> str:
    """A token as it is, with its white space to be seen; cut where it is long."""
    shown = token.translate(VISIBLE)
    return shown if len(shown) <= LONGEST_TOKEN else shown[: LONGEST_TOKEN - 1] + "…"


def _drawable(text: str) -> str:
    """A box for each letter that the font lacks; matplotlib would draw one, too, and warn."""
    font = ft2font.FT2Font(font_manager.findfont("DejaVu Sans Mono"))
    return "".join(letter if font.get_char_index(ord(letter)) else MISSING for letter in text)
