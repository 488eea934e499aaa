"""A user's pictures are read as people see them, in a data set as elsewhere; ordinary files are kept as they are."""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

from prt.errors import InputError
from prt.vision.pictures import as_seen, kept
from prt.vision.prepared import decode

Y, X = np.mgrid[:16, :24]
GREY = (16 * Y).astype(np.uint8)  # all of 0, 16, …, 240
COLOURS = np.dstack([GREY, 255 - GREY, (10 * X).astype(np.uint8)])
LEFT = np.where(X < 12, 255, 0).astype(np.uint8)  # opaque on the left only
WHITE, BLACK = np.full_like(COLOURS, 255), np.zeros_like(COLOURS)


def file(picture: Image.Image | np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(buffer, kind, **options)
    return buffer.getvalue()


def grey(values: np.ndarray) -> np.ndarray:
    return np.dstack([values] * 3).astype(np.uint8)


def reads(content: bytes, expected: np.ndarray, own: bool) -> None:
    """It is read as ``expected``, and so is what a data set keeps of it: its ``own`` bytes or others."""
    np.testing.assert_array_equal(np.asarray(as_seen(content, "x")), expected)
    np.testing.assert_array_equal(np.asarray(decode(kept(content, "x"), "x")), expected)
    assert (kept(content, "x") == content) == own


def exif(orientation: int) -> Image.Exif:
    data = Image.Exif()
    data[ExifTags.Base.Orientation] = orientation
    return data


TURNED = {
    1: COLOURS,
    2: COLOURS[:, ::-1],
    3: COLOURS[::-1, ::-1],
    4: COLOURS[::-1],
    5: COLOURS.transpose(1, 0, 2),
    6: COLOURS[::-1].transpose(1, 0, 2),
    7: COLOURS[::-1, ::-1].transpose(1, 0, 2),
    8: COLOURS[:, ::-1].transpose(1, 0, 2),
    9: COLOURS,  # there is no such orientation
}


@pytest.mark.parametrize("orientation", TURNED)
def test_pictures_are_turned(orientation: int) -> None:
    content = file(COLOURS, exif=exif(orientation))
    reads(content, TURNED[orientation], own=orientation in (1, 9))
    photograph = file(COLOURS, "JPEG", exif=exif(orientation), quality=100, subsampling=0)
    seen = np.asarray(as_seen(photograph, "x")).astype(int)
    assert abs(seen - TURNED[orientation]).max() < 25
    reads(photograph, seen, own=orientation in (1, 9))


def test_broken_exif_data_turn_nothing() -> None:
    reads(file(COLOURS, exif=b"no such data"), COLOURS, own=True)


DEEP = {
    "16 bits": file(GREY.astype(np.uint16) * 257),
    "16 bits, TIFF": file(GREY.astype(np.uint16) * 257, "TIFF"),
    "16 bits, low ones left empty": file(GREY.astype(np.uint16) * 256),
    "16 bits, big endian": file(
        Image.frombytes("I;16B", (24, 16), (GREY * np.array(257, ">u2")).astype(">u2").tobytes()), "TIFF"
    ),
    "16 bits, PGM": b"P5 24 16 65535\n" + (GREY * np.array(257, ">u2")).astype(">u2").tobytes(),
    "32 bits": file(GREY.astype(np.int32) * 257, "TIFF"),
    "floating point": file(GREY.astype(np.float32) / 255, "TIFF"),
}


@pytest.mark.parametrize("name", DEEP)
def test_more_than_8_bits(name: str) -> None:
    reads(DEEP[name], grey(GREY), own=False)


@pytest.mark.parametrize(("values", "complaint"), [
    (GREY.astype(np.uint16), "has more than 8 bits, and values from 0 to 240"),
    (GREY.astype(np.int32) - 5, "has more than 8 bits, and values from -5 to 235"),
    (GREY.astype(np.int32) * 1000, "has more than 8 bits, and values from 0 to 240000"),
    (GREY.astype(np.float32), "has floating-point values outside 0"),
    (np.where(GREY == 0, np.nan, 0.5).astype(np.float32), "has floating-point values outside 0"),
])  # fmt: skip
def test_white_is_not_guessed(values: np.ndarray, complaint: str) -> None:
    for read in (as_seen, kept):
        with pytest.raises(InputError, match=f"the image deep.tif {complaint}"):
            read(file(values, "TIFF"), "deep.tif")


def test_transparency_lies_on_white() -> None:
    half = np.where(LEFT[..., None] == 255, COLOURS, 255)
    reads(file(np.dstack([COLOURS, LEFT])), half, own=False)
    reads(file(np.dstack([COLOURS, 0 * LEFT + 255])), COLOURS, own=True)  # nothing is transparent
    reads(file(np.dstack([GREY, LEFT])), np.where(LEFT[..., None] == 255, grey(GREY), 255), own=False)
    without_16 = grey(np.where(GREY == 16, 255, GREY))
    reads(file(GREY, transparency=16), without_16, own=False)
    reads(file(GREY.astype(np.uint16) * 257, transparency=16 * 257), without_16, own=False)
    reads(file(COLOURS, transparency=(1, 2, 3)), COLOURS, own=True)  # no pixel has that colour
    palette = Image.fromarray(GREY).convert("P")
    reads(file(palette), grey(GREY), own=True)
    for kind in ("PNG", "GIF"):
        reads(file(palette, kind, transparency=16), without_16, own=False)


def test_a_shape_in_the_transparency_alone_is_seen() -> None:
    reads(file(np.dstack([BLACK, GREY])), grey(255 - GREY), own=False)
    reads(file(np.dstack([WHITE, GREY])), grey(GREY), own=False)  # nothing would be seen on white
    reads(file(np.dstack([WHITE, 0 * GREY + 255])), WHITE, own=True)


@given(st.sampled_from(["1", "L", "P", "RGB", "CMYK", "YCbCr"]), st.sampled_from(["PNG", "TIFF", "JPEG", "GIF"]))
def test_ordinary_pictures_are_kept(mode: str, kind: str) -> None:
    picture = Image.fromarray(COLOURS).convert(mode)
    try:
        content = file(picture, kind)
    except (OSError, ValueError):  # this kind has no such mode
        return
    reads(content, np.asarray(Image.open(io.BytesIO(content)).convert("RGB")), own=True)


@pytest.mark.parametrize("content", [b"", b"<html>", file(COLOURS)[:-60], file(COLOURS, "JPEG")[:-300]])
def test_broken_pictures(content: bytes) -> None:
    for read in (as_seen, decode):
        with pytest.raises(InputError, match=r"the image x\.png cannot be read \(") as error:
            read(content, "x.png")
        assert "BytesIO" not in str(error.value)


def test_a_picture_runs_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An EPS file is a program, which Pillow has Ghostscript run."""
    (tmp_path / "gs").write_text(f"#!/bin/sh\n: > {tmp_path}/mark\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    for read in (as_seen, decode, kept):
        with pytest.raises(InputError, match="the image x cannot be read"):
            read(file(COLOURS, "EPS"), "x")
    assert not (tmp_path / "mark").exists()
