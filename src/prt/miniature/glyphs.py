"""Pretraining corpora without a download: captioned glyphs of the fonts that matplotlib ships."""

import string
import unicodedata
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2.functional import gaussian_blur

IMAGE_SIZE = 32
CHARACTERS = string.digits + string.ascii_uppercase
CAPTIONS = (
    "{name}",
    "the {name}",
    "a picture of the {name}",
    "{name} in {font}",
    "the {name} set in {font}",
    "{font} type: {name}",
    "a picture of the {name} in {font}",
)
# Every text font in matplotlib's folder; the others hold symbols, or old-style figures (cmmi10, cmsy10).
FONTS = {
    "DejaVuSans": "sans",
    "DejaVuSans-Bold": "bold sans",
    "DejaVuSans-Oblique": "oblique sans",
    "DejaVuSans-BoldOblique": "bold oblique sans",
    "DejaVuSansMono": "mono",
    "DejaVuSansMono-Bold": "bold mono",
    "DejaVuSansMono-Oblique": "oblique mono",
    "DejaVuSansMono-BoldOblique": "bold oblique mono",
    "DejaVuSerif": "serif",
    "DejaVuSerif-Bold": "bold serif",
    "DejaVuSerif-Italic": "italic serif",
    "DejaVuSerif-BoldItalic": "bold italic serif",
    "STIXGeneral": "times",
    "STIXGeneralBol": "bold times",
    "STIXGeneralItalic": "italic times",
    "STIXGeneralBolIta": "bold italic times",
    "cmr10": "roman",
    "cmb10": "bold roman",
    "cmti10": "italic roman",
    "cmss10": "modern sans",
    "cmtt10": "typewriter",
}


@dataclass(frozen=True)
class Corpus:
    """Fonts (file names without ``.ttf``) and the strength of the augmentation (0: none)."""

    fonts: tuple[str, ...]
    augmentation: float


CORPORA = {
    "poor": Corpus(("DejaVuSans", "DejaVuSerif", "DejaVuSansMono", "cmr10"), 0.6),
    "rich": Corpus(tuple(FONTS), 1.0),
}


def captions(corpus: Corpus) -> list[str]:
    """Every caption of ``corpus``: fonts × characters × templates, the last fastest."""
    names = [unicodedata.name(character).lower() for character in CHARACTERS]
    return [
        template.format(name=name, font=FONTS[font]) for font in corpus.fonts for name in names for template in CAPTIONS
    ]


def batch(corpus: Corpus, size: int, seed: int, step: int) -> tuple[Tensor, Tensor]:
    """The batch of iteration ``step``, a pure function of its arguments.

    Returns:
        Images, size × 3 × 32 × 32, white on black in 0..1, and the indices of their :func:`captions`.
    """
    generator = torch.Generator().manual_seed(int(np.random.SeedSequence((seed, step)).generate_state(1)[0]))
    # Digits are half of every batch: they are what the data sets hold.
    digit = torch.rand(size, generator=generator) < 0.5
    draw = torch.rand(size, generator=generator)
    character = torch.where(digit, draw * 10, 10 + draw * (len(CHARACTERS) - 10)).long()
    font = torch.randint(len(corpus.fonts), (size,), generator=generator)
    template = torch.randint(len(CAPTIONS), (size,), generator=generator)
    glyph = font * len(CHARACTERS) + character
    images = _augment(_rendered(corpus.fonts)[glyph], corpus.augmentation, generator)
    return images.expand(-1, 3, -1, -1), glyph * len(CAPTIONS) + template


@cache
def _rendered(fonts: tuple[str, ...], side: int = 48, points: int = 42) -> Tensor:
    """All glyphs in 0..1, (fonts · characters) × 6 × 48 × 48: thin, plain, thick; then the same blurred."""
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    images = []
    for name in fonts:
        font = ImageFont.truetype(folder / f"{name}.ttf", points)
        for character in CHARACTERS:
            left, top, right, bottom = font.getbbox(character)
            image = Image.new("L", (side, side))
            corner = ((side - left - right) / 2, (side - top - bottom) / 2)
            ImageDraw.Draw(image).text(corner, character, fill=255, font=font)
            images.append(np.asarray(image))
    plain = torch.from_numpy(np.stack(images)).unsqueeze(1) / 255
    strokes = torch.cat([-F.max_pool2d(-plain, 3, 1, 1), plain, F.max_pool2d(plain, 3, 1, 1)], 1)
    return torch.cat([strokes, gaussian_blur(strokes, [13, 13], [3.0, 3.0])], 1)


def _augment(variants: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Mix the variants (erosion, dilation, blur), warp to 32 × 32, add noise.

    Args:
        variants: N × 6 × 48 × 48, from :func:`_rendered`.

    Returns:
        N × 1 × 32 × 32, in 0..1.
    """
    n = len(variants)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(n, *shape, generator=generator)

    weight, blur = strength * uniform(-1, 1, 1), strength * uniform(0, 1, 1)
    stroke = torch.cat([(-weight).clamp(min=0), 1 - weight.abs(), weight.clamp(min=0)], 1)
    mix = torch.cat([stroke * (1 - blur), stroke * blur], 1)
    images = torch.einsum("nv,nvhw->nhw", mix, variants).unsqueeze(1)

    angle, shear = strength * uniform(-0.3, 0.3), strength * uniform(-0.4, 0.4)
    wide, high = (0.75 * torch.exp(strength * uniform(-0.3, 0.3, 2))).unbind(1)
    cos, sin = angle.cos(), angle.sin()
    rows = [wide * cos, wide * (shear * cos - sin), high * sin, high * (shear * sin + cos)]
    shift = strength * uniform(-0.12, 0.12, 2, 1)
    affine = torch.cat([torch.stack(rows, 1).view(n, 2, 2), shift], 2)
    shape = [n, 1, IMAGE_SIZE, IMAGE_SIZE]
    elastic = F.interpolate(strength * uniform(-0.2, 0.2, 2, 5, 5), shape[2:], mode="bilinear", align_corners=True)
    grid = F.affine_grid(affine, shape, align_corners=False) + elastic.permute(0, 2, 3, 1)
    images = F.grid_sample(images, grid, align_corners=False)
    noise = torch.randn(shape, generator=generator)
    return (images + 0.1 * strength * uniform(0, 1, 1, 1, 1) * noise).clamp(0, 1)
