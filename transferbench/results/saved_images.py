"""Images as the files of each format return them: verification's own arithmetic, in numpy."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from transferbench.base.results import FileFormat

Array = NDArray[Any]


def read_again(format: FileFormat, images: Array) -> Array:
    """float32 [B, C, H, W] in [0,1]: the images, saved with 8 bits a value, and as JPEG of quality 90 where the format
    says so (C 1 or 3), then read."""
    levels = np.clip(np.rint(images * np.float32(255)), 0, 255).astype(np.uint8)
    if format == "jpeg90" and len(images):
        levels = np.stack([_jpeg(image) for image in levels])
    again: Array = levels.astype(np.float32) / np.float32(255)
    return again


def _jpeg(image: Array) -> Array:
    """uint8 [C, H, W], through a JPEG file."""
    file = io.BytesIO()
    Image.fromarray(image[0] if len(image) == 1 else np.moveaxis(image, 0, -1)).save(file, "JPEG", quality=90)
    pixels = np.asarray(Image.open(file))
    return pixels[None] if len(image) == 1 else np.moveaxis(pixels, -1, 0)
