"""What an image of any size goes through before it is the pixels that are attacked, in RobustBench's words.

`Res256Crop224`: shorter side to 256, the middle 224; `BicubicRes...`: bicubic instead of bilinear; `Res224` alone:
both sides to 224; `Crop288` alone: the middle 288. Pillow does the resizing, as in the papers' pipelines.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from transferbench.base.errors import InputError
from transferbench.base.specifications import PREPROCESSING


@dataclass(frozen=True)
class Preprocessing:
    """`text` as it stands on cards and in keys; empty: the image's own pixels."""

    text: str
    resize: int | None
    crop: int | None
    bicubic: bool

    @classmethod
    def parse(cls, text: str) -> Preprocessing:
        found = re.fullmatch(PREPROCESSING, text)
        if found is None:
            raise InputError(
                f"preprocessing {text!r}: write it as Res256Crop224, BicubicRes256Crop224, Res224 or Crop288"
            )
        resize, crop = (int(found[name]) if found[name] else None for name in ("resize", "crop"))
        return cls(text, resize, crop, bool(found["bicubic"]))

    @classmethod
    def for_side(cls, side: int) -> Preprocessing:
        """For a network that takes images of this side and names nothing: the middle 7/8, as 256 and 224."""
        return cls.parse(f"Res{round(side * 8 / 7)}Crop{side}")

    @property
    def side(self) -> int | None:
        """The side of the square that comes out, None where it is the image's own size."""
        return self.crop or self.resize

    def __call__(self, image: Image.Image) -> Tensor:
        """float32 [3, H, W] in [0,1] of an RGB image."""
        how = Image.Resampling.BICUBIC if self.bicubic else Image.Resampling.BILINEAR
        if self.resize is not None:
            width, height = image.size
            short = min(width, height)
            size = (self.resize, self.resize)
            if self.crop is not None:
                size = (int(self.resize * width / short), int(self.resize * height / short))
            image = image.resize(size, how)
        if self.crop is not None:
            width, height = image.size
            left, top = round((width - self.crop) / 2), round((height - self.crop) / 2)
            # Beyond the edge the crop is black, as torchvision's is.
            image = image.crop((left, top, left + self.crop, top + self.crop))
        return as_tensor(image)

    def augmented(self, image: Image.Image, key: int) -> Tensor:
        """RandomResizedCrop and horizontal flip (Renofeation's training pipeline), every draw from the key."""
        if self.side is None:
            return as_tensor(image)
        rng = np.random.default_rng(key & (2**63 - 1))
        box = resized_crop(image.size, rng)
        image = image.resize((self.side, self.side), Image.Resampling.BILINEAR, box=box)
        return as_tensor(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else image)


def resized_crop(size: tuple[int, int], rng: np.random.Generator) -> tuple[int, int, int, int]:
    """A box of 8 to 100 % of the area, sides 3:4 to 4:3, ten tries, else the middle: torchvision's rule."""
    width, height = size
    for _ in range(10):
        area = width * height * rng.uniform(0.08, 1.0)
        ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
            return left, top, left + w, top + h
    w = min(width, round(height * 4 / 3))
    h = min(height, round(width * 4 / 3))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def as_tensor(image: Image.Image) -> Tensor:
    pixels: NDArray[np.float32] = np.asarray(image, dtype=np.float32) / np.float32(255)
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
