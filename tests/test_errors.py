"""What messages take over from the errors of others."""

import io

import pytest
from PIL import Image
from pydantic import BaseModel, ValidationError

from prt.errors import InputError, first_line


class Facts(BaseModel):
    numbers: list[int]


def test_one_line_of_an_error() -> None:
    assert first_line(ValueError("one\ntwo")) == "ValueError: one"
    assert first_line(OSError()) == "OSError: no message"
    with pytest.raises(ValidationError) as wrong:
        Facts.model_validate({"numbers": [1, "x"]})
    assert first_line(wrong.value).startswith("numbers.1: Input should be a valid integer")
    with pytest.raises(OSError, match=" at 0x") as unknown:
        Image.open(io.BytesIO(b"none"))
    assert first_line(unknown.value).endswith("cannot identify image file <_io.BytesIO object>")


def test_a_message_is_one_line_whatever_it_quotes() -> None:
    assert str(InputError("unknown 'a\nb\x1b[2J\u2028': choose 'ä'")) == "unknown 'a b [2J ': choose 'ä'"
