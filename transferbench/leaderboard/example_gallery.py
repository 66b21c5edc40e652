"""Example galleries: one small picture per victim of its adversarial examples, with captions inside the file.

The picture is a grid of cells: for each norm three lines (clean, adversarial, magnified difference), one column per
example. The captions are JSON in the PNG's own text, so that they cannot be parted from the picture.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from transferbench.base.errors import InputError
from transferbench.base.specifications import Norm

FOLDER = "galleries"
"""The folder of the pictures, in a run's folder and in a board's."""
LIMIT = 50_000
"""Bytes of a picture, at most."""
_SHAPES = ((8, 64), (6, 64), (4, 64), (4, 48), (3, 32), (2, 32), (1, 32), (1, 16))
"""(columns, side of a cell) to be tried, the largest first."""
_KEY = "transferbench"


class Cell(BaseModel):
    """An adversarial example: its id, column, label and prediction, its attack, its distance and magnification."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    norm: Norm
    column: int = Field(ge=0)
    example: int
    label: str
    pred: str
    attack: str
    distance: float = Field(ge=0)
    gain: float = Field(ge=0)


class Gallery(BaseModel):
    """The captions of a picture and its size; `side` is a cell's, in pixels."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    side: int = Field(ge=1)
    width: int = Field(ge=1)
    height: int = Field(ge=1)
    cells: Annotated[tuple[Cell, ...], Field(min_length=1)]


Pictures = Sequence[tuple[Cell, NDArray[np.float32], NDArray[np.float32]]]
"""(caption, clean image, adversarial image), images [C, H, W] in [0,1]."""


def draw(examples: Pictures) -> bytes:
    """The PNG, of at most 50 kB: fewer columns and smaller cells where it would be more. At least one example."""
    for columns, side in _SHAPES:
        content = _png(examples, columns, side)
        if len(content) <= LIMIT:
            return content
    raise InputError(f"{len(content)} bytes for one example: its gallery is too large")


def read(path: Path) -> Gallery:
    """The captions in a picture. InputError for a file without them."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            text, size = image.info.get(_KEY), image.size
        if path.stat().st_size > LIMIT or text is None:
            raise ValueError("it is over the limit, or has no captions")
        captions = TypeAdapter(dict[str, object]).validate_json(text)
        return Gallery.model_validate({**captions, "width": size[0], "height": size[1]})
    except (OSError, UnidentifiedImageError, ValidationError, ValueError) as error:
        raise InputError(f"gallery {path}: not one of ours ({str(error).splitlines()[0]})") from None


def _png(examples: Pictures, columns: int, side: int) -> bytes:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    norms = list(dict.fromkeys(cell.norm for cell, _, _ in examples))
    chosen = [example for example in examples if example[0].column < columns]
    side = min(side, max(chosen[0][1].shape[1:]))
    width = max(cell.column for cell, _, _ in chosen) + 1
    grid = np.full((3 * len(norms) * (side + 1) + 1, width * (side + 1) + 1, 3), 255, dtype=np.uint8)
    cells = []
    for cell, clean, adversarial in chosen:
        difference = adversarial.astype(np.float64) - clean.astype(np.float64)
        gain = 0.5 / max(float(np.abs(difference).max()), 1e-12)
        for line, image in enumerate((clean, adversarial, 0.5 + gain * difference)):
            pixels = np.clip(np.asarray(image, dtype=np.float64), 0, 1).transpose(1, 2, 0)
            picture = Image.fromarray((255 * np.broadcast_to(pixels, (*pixels.shape[:2], 3))).round().astype(np.uint8))
            if max(picture.size) > side:
                picture.thumbnail((side, side))
            top = (3 * norms.index(cell.norm) + line) * (side + 1) + 1
            left = cell.column * (side + 1) + 1
            grid[top : top + picture.height, left : left + picture.width] = np.asarray(picture)
        cells.append(cell.model_copy(update={"gain": float(f"{gain:.3g}")}))
    info = PngInfo()
    captions = {"side": side, "cells": [cell.model_dump() for cell in cells]}
    info.add_text(_KEY, json.dumps(captions, ensure_ascii=True))
    stream = io.BytesIO()
    Image.fromarray(grid).save(stream, "PNG", pnginfo=info, optimize=True)
    return stream.getvalue()
