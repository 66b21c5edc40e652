"""Preprocessing of photographs of any size to the pixels that are attacked, in RobustBench's notation.

`Res256Crop224`: shorter side to 256, centre crop of 224; `BicubicRes...`: bicubic instead of bilinear; `Res224` alone:
both sides to 224; `Crop288` alone: centre crop of 288; besides, `Res256x256Crop224`: both sides to 256, then the crop.
Pillow does the resizing, as in the papers' pipelines.
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
    """A preprocessing. `text` is its notation on cards and in keys; empty for none."""

    text: str
    resize: int | None
    crop: int | None
    bicubic: bool
    square: bool = False
    """Whether both sides are resized although a crop follows."""

    @classmethod
    def parse(cls, text: str) -> Preprocessing:
        """Read the notation. InputError for another text."""
        match = re.fullmatch(PREPROCESSING, text)
        if match is None or match["height"] not in (None, match["resize"]):
            raise InputError(
                f"preprocessing {text!r}: write it as Res256Crop224, BicubicRes256Crop224, Res224, Crop288 or "
                "Res256x256Crop224"
            )
        resize, crop = (int(match[name]) if match[name] else None for name in ("resize", "crop"))
        return cls(text, resize, crop, bool(match["bicubic"]), match["height"] is not None)

    @classmethod
    def for_side(cls, side: int) -> Preprocessing:
        """The default for a network whose input has this side: resize to 8/7 of it and crop, as 256 and 224."""
        return cls.parse(f"Res{round(side * 8 / 7)}Crop{side}")

    @property
    def side(self) -> int | None:
        """The side of the resulting square; None where the image keeps its size."""
        return self.crop or self.resize

    def __call__(self, image: Image.Image) -> Tensor:
        """The RGB image as float32 [3, H, W] in [0,1]."""
        resampling = Image.Resampling.BICUBIC if self.bicubic else Image.Resampling.BILINEAR
        if self.resize is not None:
            width, height = image.size
            short = min(width, height)
            size = (self.resize, self.resize)
            if self.crop is not None and not self.square:
                size = (int(self.resize * width / short), int(self.resize * height / short))
            image = image.resize(size, resampling)
        if self.crop is not None:
            left, top = (_crop_start(length, self.crop) for length in image.size)
            # Outside the image the crop is black, as in torchvision.
            image = image.crop((left, top, left + self.crop, top + self.crop))
        return as_tensor(image)

    def augmented(self, image: Image.Image, key: int) -> Tensor:
        """RandomResizedCrop and horizontal flip (Renofeation's augmentation), determined by the key."""
        if self.side is None:
            return as_tensor(image)
        rng = np.random.default_rng(key & (2**63 - 1))
        box = resized_crop(image.size, rng)
        image = image.resize((self.side, self.side), Image.Resampling.BILINEAR, box=box)
        return as_tensor(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else image)


def _crop_start(length: int, crop: int) -> int:
    """Where a centre crop begins; negative where the image is smaller. As torchvision, which rounds half to even inside
    the image, and puts the odd pixel of its padding on the right and at the bottom."""
    return -((crop - length) // 2) if crop > length else round((length - crop) / 2)


def resized_crop(size: tuple[int, int], rng: np.random.Generator) -> tuple[int, int, int, int]:
    """A random crop box (left, top, right, bottom) by the rule of torchvision's RandomResizedCrop.

    8 to 100 % of the area, aspect ratio 3:4 to 4:3, ten tries, then the centre.
    """
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
    """The RGB image as float32 [3, H, W] in [0,1]."""
    pixels: NDArray[np.float32] = np.asarray(image, dtype=np.float32) / np.float32(255)
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
