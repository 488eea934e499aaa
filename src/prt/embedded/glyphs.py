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
    glyphs = _rendered(corpus.fonts)
    # Digits are half of every batch: they are what the data sets hold.
    digit = torch.rand(size, generator=generator) < 0.5
    draw = torch.rand(size, generator=generator)
    character = torch.where(digit, draw * 10, 10 + draw * (len(CHARACTERS) - 10)).long()
    font = torch.randint(len(corpus.fonts), (size,), generator=generator)
    template = torch.randint(len(CAPTIONS), (size,), generator=generator)
    glyph = font * len(CHARACTERS) + character
    images = _augment(glyphs[glyph].float() / 255, corpus.augmentation, generator)
    return images.expand(-1, 3, -1, -1), glyph * len(CAPTIONS) + template


@cache
def _rendered(fonts: tuple[str, ...], side: int = 48, points: int = 42) -> Tensor:
    """All glyphs, (fonts · characters) × 1 × 48 × 48, uint8: rendered once, warped to 32 × 32 per batch."""
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
    return torch.from_numpy(np.stack(images)).unsqueeze(1)


def _augment(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Thicker or thinner strokes, affine and elastic warp to 32 × 32, blur, noise; N × 1 × H × W in 0..1."""
    n = len(images)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(n, *shape, generator=generator)

    weight = strength * uniform(-1, 1, 1, 1, 1)
    dilated = F.max_pool2d(images, 3, 1, 1)
    eroded = -F.max_pool2d(-images, 3, 1, 1)
    images = images + weight.clamp(min=0) * (dilated - images) - weight.clamp(max=0) * (eroded - images)

    angle, shear = strength * uniform(-0.3, 0.3), strength * uniform(-0.4, 0.4)
    wide, high = (0.75 * torch.exp(strength * uniform(-0.3, 0.3, 2))).unbind(1)
    cos, sin = angle.cos(), angle.sin()
    rows = [wide * cos, wide * (shear * cos - sin), high * sin, high * (shear * sin + cos)]
    shift = strength * uniform(-0.12, 0.12, 2, 1)
    theta = torch.cat([torch.stack(rows, 1).view(n, 2, 2), shift], 2)
    grid = F.affine_grid(theta, [n, 1, IMAGE_SIZE, IMAGE_SIZE], align_corners=False)
    elastic = F.interpolate(
        strength * uniform(-0.2, 0.2, 2, 4, 4),
        size=(IMAGE_SIZE, IMAGE_SIZE),
        mode="bicubic",
        align_corners=True,
    )
    images = F.grid_sample(images, grid + elastic.permute(0, 2, 3, 1), align_corners=False)

    blurred = gaussian_blur(images, [9, 9], [2.0, 2.0])
    images = images + strength * uniform(0, 1, 1, 1, 1) * (blurred - images)
    noise = torch.randn(images.shape, generator=generator)
    return (images + 0.1 * strength * uniform(0, 1, 1, 1, 1) * noise).clamp(0, 1)
