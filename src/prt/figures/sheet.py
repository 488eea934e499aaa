"""A table as a picture: names on the left, groups of number columns on the right, rules as in a paper."""

import textwrap
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from prt.figures.style import INK, plain_style

# Inches: a letter, the space before a column, the gap before a group of columns, the height of a line.
LETTER, SPACE, GAP, LINE = 0.055, 0.14, 0.1, 0.17

Group = tuple[str, Sequence[str]]  # a title over its columns' headers
Line = tuple[Sequence[str], Sequence[str]]  # names, then a cell for each column


@plain_style
def sheet(names: Sequence[str], groups: Sequence[Group], lines: Sequence[Line], foot: str = "") -> Figure:
    """Draw ``lines`` under the headers ``names`` and ``groups``, and ``foot`` in grey below, folded where it is long.

    A name that repeats the one above is left out; where the first name changes, a thin rule is drawn.
    """
    headers = [header for _, columns in groups for header in columns]
    left, x = [], 0.0
    for i, header in enumerate(names):
        left.append(x)
        x += SPACE + LETTER * max(len(header) * 1.1, *(len(line[0][i]) for line in lines))
    right: list[float] = []
    spans = []
    for title, columns in groups:
        x += GAP
        start, wide = x, 0.0
        for header in columns:
            texts = [header, *(line[1][len(right)] for line in lines)]
            wide += SPACE + LETTER * max(map(len, texts))
            right.append(start + wide)
        spare = max(0.0, LETTER * 1.15 * len(title) - wide)  # a long title over narrow columns
        right[-len(columns) :] = [at + spare * (i + 1) / len(columns) for i, at in enumerate(right[-len(columns) :])]
        x = right[-1]
        spans.append((start + SPACE / 2, x))
    feet = textwrap.wrap(foot, int(x / (0.9 * LETTER)))
    top = 2 if any(title for title, _ in groups) else 1  # lines of headers
    height = LINE * (len(lines) + top + len(feet))

    drawn = Figure(figsize=(x + 0.2, height + 0.2))
    axis = drawn.add_axes((0, 0, 1, 1))
    axis.set(xlim=(-0.1, x + 0.1), ylim=(height + 0.1, -0.1))
    axis.set_axis_off()

    def write(at: float, line: float, text: str, **how: Any) -> None:
        axis.text(at, (line + 0.5) * LINE, text, va="center_baseline", **how)

    def rule(line: float, start: float, end: float, thick: float) -> None:
        axis.plot([start, end], [line * LINE] * 2, color=INK, linewidth=thick)

    rule(0, 0, x, 1)
    rule(top, 0, x, 0.6)
    rule(len(lines) + top, 0, x, 1)
    for at, header in zip(left, names, strict=True):
        write(at, top - 1, header, fontweight="bold")
    for (title, _), (start, end) in zip(groups, spans, strict=True):
        if title:
            write((start + end) / 2, 0, title, ha="center", fontweight="bold")
            rule(1, start, end, 0.4)
    for at, header in zip(right, headers, strict=True):
        write(at, top - 1, header, ha="right")
    above: Sequence[str] = [""] * len(names)
    for number, (own, cells) in enumerate(lines, start=top):
        if own[0] != above[0] and number > top:
            rule(number, 0, x, 0.4)
        for i, (at, name) in enumerate(zip(left, own, strict=True)):
            if own[: i + 1] != above[: i + 1]:
                write(at, number, name)
        for at, text in zip(right, cells, strict=True):
            write(at, number, text, ha="right")
        above = own
    for number, line_of_foot in enumerate(feet):
        write(0, len(lines) + top + 0.1 + number, line_of_foot, color="#777777")
    return drawn
