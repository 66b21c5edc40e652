"""A folder with images of three classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def write_images(folder: Path, height: int, width: int) -> None:
    """Six training and three test images of noise for each class; the third channel of a class is its own."""
    for split, count in (("train", 6), ("test", 3)):
        for label in range(3):
            place = folder / split / f"class {label}"
            place.mkdir(parents=True)
            for number in range(count):
                pixels = np.random.default_rng([label, number]).integers(0, 256, (height, width, 3), dtype=np.uint8)
                pixels[..., label] = 250
                Image.fromarray(pixels).save(place / f"{split}{number}.png")
