"""Figures 5, 8 and 9: the chosen tokens are highlighted where they stand, and their bars are their probabilities."""

from pathlib import Path
from typing import Any

import pytest
from helpers.made_up import inside
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from prt.errors import InputError
from prt.figures import next_tokens

QUESTION = (
    "Question: Janet’s ducks lay 16 eggs per day. She eats three for breakfast every morning and bakes muffins for her "
    "friends every day with four. She sells the remainder at the farmers' market daily for $2 per fresh duck egg. How "
    "much in dollars does she make every day at the farmers' market?\nAnswer:"
)
ANSWER = (
    " Janet eats 3 eggs and bakes 4, so she sells 16 - 3 - 4 = 9 eggs per day.\nShe makes 9 * $2 = $18 every day at "
    "the farmers' market.\n#### 18"
)


def position(index: int, before: str, chosen: str, without: str) -> dict[str, Any]:
    """One chosen place: the reward turns the target from ``without`` to ``chosen``."""
    top = [[without, 0.41], [chosen, 0.22], [" the", 0.12], ["\n\n", 0.05], [" dollars_and_cents", 0.01]]
    return {
        "index": index,
        "before": (QUESTION + before)[-40:],
        "chosen": chosen,
        "without": top,
        "with": [[chosen, 0.93], [without, 0.03], [" $", 0.02], ["   ", 0.01], ["\t", 0.001]],
    }


def next_content() -> dict[str, Any]:
    """Figure 5 as it is written by the decoding: the last position is the end of the text."""
    cuts = [(" Janet", " $"), (" 9", "9"), ("\n", " So"), ("####", "The")]
    positions = []
    for number, (chosen, without) in enumerate(cuts):
        at = ANSWER.index(chosen, 20 if number in (1, 2) else 0)
        positions.append(position(3 * number, ANSWER[:at], chosen, without))
    positions.append(position(60, ANSWER, "<|end_of_text|>", "\n"))
    return {
        "target": "Llama-3-8B",
        "reward": "Llama-3.2-1B",
        "prompt": QUESTION,
        "answer": ANSWER,
        "positions": positions,
    }


def test_next_tokens_are_where_the_text_says() -> None:
    """Bars as high as the probabilities; the highlighted letters are the chosen tokens'."""
    content = next_content()
    figure = next_tokens.figure(content)
    inside(figure)
    page, *axes = figure.axes
    widths = [[bar.get_width() for bar in axis.patches] for axis in axes]
    assert widths == [
        [p for _, p in position[side]] for position in content["positions"] for side in ("without", "with")
    ]
    assert [label.get_text() for label in axes[1].get_yticklabels()] == ["␣Janet", "␣$", "␣$", "␣␣␣", "⇥"]
    assert "␣dollars_and_c…" in [label.get_text() for label in axes[0].get_yticklabels()]
    bold = [label.get_text() for axis in axes for label in axis.get_yticklabels() if label.get_fontweight() == "bold"]
    assert bold[:4] == ["␣Janet", "␣Janet", "␣9", "␣9"]
    assert bold[-1] == "<|end_of_text|>"
    text = QUESTION + ANSWER
    spans = next_tokens.places(text, len(QUESTION), content["positions"])
    assert [text[a:b] for a, b in spans] == ["Janet", "9", "\n", "####", ""]
    words = {w.get_text(): w.get_position()[0] for w in page.texts}
    marked = [r.get_x() for r in page.patches if isinstance(r, Rectangle) and to_hex(r.get_facecolor()) == "#ffe08a"]
    assert marked[0] == pytest.approx(words["Janet"])
    assert {"$18", "$2"} <= set(words)
    # Each number stands above its token, and below whatever is written in the line before.
    renderer = FigureCanvasAgg(figure).get_renderer()
    numbers = [word for word in page.texts if word.get_fontsize() == 5]
    assert [number.get_text() for number in numbers] == list("12345")
    assert [number.get_position()[0] for number in numbers] == pytest.approx(marked[:5])
    others = [word.get_window_extent(renderer) for word in page.texts if word not in numbers]
    for number in numbers:
        assert not any(number.get_window_extent(renderer).overlaps(other) for other in others), number
    table = next_tokens.rows(content)
    assert len(table) == 5 * 2 * 5
    assert table.query("index == 0 and side == 'with' and rank == 1").token.item() == " Janet"


def test_a_token_is_found_however_its_tokenizer_writes_spaces() -> None:
    """Without the space before a word, split letters, and the second of two equal places."""
    text, answer = "Q: 1 2 A: yes 1 yes 1 é", 10

    def at(before: str, chosen: str) -> dict[str, Any]:
        return {"index": 0, "before": before, "chosen": chosen}

    found = next_tokens.places(text, answer, [at("yes", "1"), at("yes", " 1"), at("1 ", "\ufffd")])
    assert [text[a:b] for a, b in found] == ["1", "1", "é"]
    assert found[0][0] < found[1][0]
    with pytest.raises(InputError, match="position 0, 'no', is not in the answer"):
        next_tokens.places(text, answer, [at("no", "1")])


def test_long_text_is_wrapped_and_nothing_is_lost() -> None:
    text = "word " * 40 + "\n\n" + "x" * 150 + "\nend"
    pieces = next_tokens.wrapped(text, 60)
    assert max(len(p.text) for p in pieces) <= 60
    assert all(text[p.start : p.start + len(p.text)] == p.text for p in pieces)
    assert "".join(p.text for p in pieces) == text.replace("\n", "")
    assert [p.line for p in pieces] == list(range(len(pieces)))


def test_next_tokens_of_strange_texts(tmp_path: Path) -> None:
    """A long prompt, letters that no font has, control characters, a position at the very start; another form."""
    top = [["\U0001f986", 0.5], ["$x_1$", 0.25]]
    first = {"index": 0, "before": "", "chosen": "鴨", "without": top, "with": top}
    content = next_content() | {"prompt": "A duck. " * 400, "answer": "鴨 is $x_1$ \U0001f986", "positions": [first]}
    inside(next_tokens.figure(content))
    next_tokens.draw(content, tmp_path / "strange")
    written = next_tokens.figure(content | {"answer": "鴨\x1c\x1c\x08 end"}).axes[0].texts
    assert "□□□□" in [text.get_text() for text in written]  # each has its place, as the highlights count on
    with pytest.raises(InputError, match=r"positions.0.with is wrong"):
        next_tokens.draw(content | {"positions": [first | {"with": []}]}, tmp_path / "x")
    with pytest.raises(InputError, match=r"the top level is wrong.*'answer' is a required"):
        next_tokens.draw({k: v for k, v in content.items() if k != "answer"}, tmp_path / "x")
    assert not list(tmp_path.glob("x*"))
