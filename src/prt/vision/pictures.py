"""Pictures of a user's own are read as people see them.

The rule: turned as their EXIF data say; what is transparent lies on white, or on black if nothing would be seen on
white; of 16 bits the upper 8 are taken, as Pillow does with colour; floating-point values go from 0 (black) to 1
(white). The paper's data sets are read as the field reads them, by ``convert("RGB")`` alone: see
:func:`prt.vision.prepared.decode`.
"""

import io

import numpy as np
from PIL import ExifTags, Image, ImageOps

from prt.errors import InputError
from prt.vision.parts import png
from prt.vision.prepared import decode, unreadable

WHITE16 = 65535


def as_seen(content: bytes, name: str) -> Image.Image:
    """An RGB picture from the bytes of a user's file, by the rule of this module.

    Raises:
        InputError: if it cannot be decoded, or it cannot be known which of its values is white; ``name`` says which
            picture it is.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            return _in_rgb(_turned(image), name)
    except InputError:
        raise
    except Exception as error:  # Pillow raises many kinds for broken pictures
        raise unreadable(name, error) from None


def kept(content: bytes, name: str) -> bytes:
    """What a data set keeps of a user's file: bytes that ``decode`` reads as :func:`as_seen` reads the file.

    They are the file's own wherever the rule changes nothing, else a PNG.

    Raises:
        InputError: as for :func:`as_seen`.
    """
    if _is_unturned_photograph(content):
        return content
    seen = as_seen(content, name)
    try:
        plain = decode(content, name)
    except InputError:  # of modes that Pillow turns into RGB in two steps only
        return png(seen)
    return content if (plain.size, plain.tobytes()) == (seen.size, seen.tobytes()) else png(seen)


def _is_unturned_photograph(content: bytes) -> bool:
    """Whether the rule changes nothing, where that is known without decoding."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            return image.format in ("JPEG", "MPO") and image.getexif().get(ExifTags.Base.Orientation, 1) == 1
    except Exception:  # Pillow raises many kinds
        return False


def _turned(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # broken EXIF data: it is seen as it lies
        return image


def _in_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _in_8_bits(image, name).convert("RGB")
    if image.has_transparency_data:
        on_white = _laid_on("white", image)
        is_plain = all(band.getextrema()[0] == band.getextrema()[1] for band in on_white.split())
        return _laid_on("black", image) if is_plain else on_white
    return image.convert("RGB")


def _laid_on(colour: str, image: Image.Image) -> Image.Image:
    paper = Image.new("RGBA", image.size, colour)
    paper.alpha_composite(image.convert("RGBA"))
    return paper.convert("RGB")


def _in_8_bits(image: Image.Image, name: str) -> Image.Image:
    values = np.array(image)
    if values.dtype.kind == "f":
        if not (values.min() >= 0 and values.max() <= 1):  # so that NaN is refused, too
            raise InputError(
                f"the image {name} has floating-point values outside 0 (black) to 1 (white); save it with 8 bits."
            )
        return Image.fromarray((255 * values).round().astype(np.uint8))
    if values.min() < 0 or values.max() > WHITE16 or 0 < values.max() < 256:
        raise InputError(
            f"the image {name} has more than 8 bits, and values from {values.min()} to {values.max()}, so it is not "
            "known which is white; save it with 8 bits, or with 16 of which all are used."
        )
    values[values == image.info.get("transparency", -1)] = WHITE16
    return Image.fromarray((values >> 8).astype(np.uint8))
