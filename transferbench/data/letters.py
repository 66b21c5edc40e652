"""Capital letters drawn with the fonts of matplotlib: a source task without a download.

6000 drawings in a fixed order (train 5000, validation 500, test 500 whose first 200 may be attacked). Each is a capital
letter with random font, size, stroke, rotation (+-0.3 rad), shear and scale, cropped to a 32x32 bitmap, whose 4x4
blocks are counted to 8x8 pixels in [0,1]: the reduction of scikit-learn's digits (UCI Optical Recognition of
Handwritten Digits).
"""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from transferbench.base.errors import InputError
from transferbench.data import Dataset, Split, View

IDS = {"letters": "26 drawn capital letters, 8x8 grey, 6000 images; comes with the package"}

LETTERS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
COUNT = 6000
_PARTS: dict[Split, tuple[int, int]] = {"train": (0, 5000), "val": (5000, 5500), "test": (5500, 6000)}
ATTACKED = 200
_SEED = 20_201_120
_CANVAS = 64
# matplotlib's other fonts are mathematical and symbol fonts, in which capitals look alike or are missing.
_FONTS = (
    "DejaVuSans.ttf",
    "DejaVuSans-Bold.ttf",
    "DejaVuSans-Oblique.ttf",
    "DejaVuSans-BoldOblique.ttf",
    "DejaVuSansMono.ttf",
    "DejaVuSansMono-Bold.ttf",
    "DejaVuSansMono-Oblique.ttf",
    "DejaVuSerif.ttf",
    "DejaVuSerif-Bold.ttf",
    "DejaVuSerif-Italic.ttf",
    "cmb10.ttf",
    "cmr10.ttf",
    "cmss10.ttf",
    "cmtt10.ttf",
    "STIXGeneral.ttf",
    "STIXGeneralBol.ttf",
    "STIXGeneralItalic.ttf",
)


def _draw(rng: np.random.Generator, letter: str, font_folder: Path) -> NDArray[np.float32]:
    """One 8x8 image in [0,1]."""
    name = _FONTS[rng.integers(len(_FONTS))]
    font = _font(str(font_folder / name), int(rng.integers(28, 42)))
    canvas = Image.new("L", (_CANVAS, _CANVAS))
    ImageDraw.Draw(canvas).text(
        (_CANVAS / 2, _CANVAS / 2), letter, fill=255, font=font, anchor="mm", stroke_width=int(rng.integers(0, 3))
    )
    angle, shear = rng.uniform(-0.3, 0.3), rng.uniform(-0.3, 0.3)
    across, down = rng.uniform(0.8, 1.2, 2)
    cos, sin = math.cos(angle), math.sin(angle)
    # Output to input coordinates about the centre: rotation, then shear, then scale.
    a, b = cos * across, (-sin + shear * cos) * across
    d, e = sin * down, (cos + shear * sin) * down
    centre = _CANVAS / 2
    affine = (a, b, centre - (a + b) * centre, d, e, centre - (d + e) * centre)
    bitmap = canvas.transform(canvas.size, Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR)
    cropped = bitmap.crop(bitmap.point(lambda value: 255 * (value > 127)).getbbox() or (0, 0, 1, 1))
    # The longer side fills the bitmap and the aspect ratio is preserved, as in the digits.
    scale = 32 / max(cropped.size)
    width, height = (max(round(side * scale), 1) for side in cropped.size)
    square = Image.new("L", (32, 32))
    square.paste(cropped.resize((width, height), Image.Resampling.BILINEAR), ((32 - width) // 2, (32 - height) // 2))
    ink = np.asarray(square) > 127
    return (ink.reshape(8, 4, 8, 4).sum((1, 3)) / 16).astype(np.float32)


@cache
def _font(path: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)


@cache
def _all() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """All images and labels in order, by a fixed seed: the same on every machine with one FreeType version."""
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    missing = [name for name in _FONTS if not (folder / name).is_file()]
    if missing:
        raise InputError(f"letters: matplotlib's font {missing[0]} is not in {folder}: reinstall matplotlib")
    rng = np.random.default_rng(_SEED)
    labels = rng.permutation(np.arange(COUNT) % len(LETTERS))
    images = np.stack([_draw(rng, LETTERS[label], folder) for label in labels])
    return images, labels


def load(id: str, split: Split, root: Path, view: View) -> Dataset:
    """One of the three parts of the fixed order."""
    images, labels = _all()
    start, stop = _PARTS[split]
    return Dataset(
        id=id,
        split=split,
        images=torch.from_numpy(images[start:stop])[:, None],
        labels=torch.from_numpy(labels[start:stop]),
        ids=torch.arange(start, stop),
        classes=LETTERS,
        attackable=ATTACKED if split == "test" else None,
    )
