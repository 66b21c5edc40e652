"""A strip: one small picture per victim of what its attacks found, with its facts inside the file.

The picture is a grid of cells: for each norm three lines (clean, adversarial, magnified difference), one column per
example. What it shows stands as JSON in the PNG's own text, so that picture and captions cannot be parted.
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

LIMIT = 50_000
"""Bytes of a strip, at most."""
_SHAPES = ((8, 64), (6, 64), (4, 64), (4, 48), (3, 32), (2, 32), (1, 32), (1, 16))
"""(columns, side of a cell) to be tried, the largest first."""
_KEY = "transferbench"


class Cell(BaseModel):
    """One example that fell: who it is, what was predicted where, by which attack, how far, how much magnified."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    norm: Norm
    column: int = Field(ge=0)
    example: int
    label: str
    pred: str
    attack: str
    distance: float = Field(ge=0)
    gain: float = Field(ge=0)


class Strip(BaseModel):
    """What a strip shows; `side` is a cell's, in pixels."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    side: int = Field(ge=1)
    width: int = Field(ge=1)
    height: int = Field(ge=1)
    cells: Annotated[tuple[Cell, ...], Field(min_length=1)]


Pictures = Sequence[tuple[Cell, NDArray[np.float32], NDArray[np.float32]]]
"""(what it is, clean image, adversarial image), images [C, H, W] in [0,1]."""


def draw(examples: Pictures) -> bytes:
    """The PNG, of at most 50 kB: fewer columns and smaller cells where it would be more. At least one example."""
    for columns, side in _SHAPES:
        content = _drawn(examples, columns, side)
        if len(content) <= LIMIT:
            return content
    raise InputError(f"{len(content)} bytes for one example: its strip is too large")


def read(path: Path) -> Strip:
    """What a strip says of itself. InputError for a file that is none."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            text, size = image.info.get(_KEY), image.size
        if path.stat().st_size > LIMIT or text is None:
            raise ValueError("it is over the limit, or says nothing of itself")
        given = TypeAdapter(dict[str, object]).validate_json(text)
        return Strip.model_validate({**given, "width": size[0], "height": size[1]})
    except (OSError, UnidentifiedImageError, ValidationError, ValueError) as error:
        raise InputError(f"strip {path}: not one of ours ({str(error).splitlines()[0]})") from None


def _drawn(examples: Pictures, columns: int, side: int) -> bytes:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    norms = list(dict.fromkeys(cell.norm for cell, _, _ in examples))
    shown = [one for one in examples if one[0].column < columns]
    native = max(shown[0][1].shape[1:])
    side = min(side, native)
    most = max(cell.column for cell, _, _ in shown) + 1
    grid = np.full((3 * len(norms) * (side + 1) + 1, most * (side + 1) + 1, 3), 255, dtype=np.uint8)
    cells = []
    for cell, clean, adversarial in shown:
        apart = adversarial.astype(np.float64) - clean.astype(np.float64)
        gain = 0.5 / max(float(np.abs(apart).max()), 1e-12)
        for line, image in enumerate((clean, adversarial, 0.5 + gain * apart)):
            pixels = np.clip(np.asarray(image, dtype=np.float64), 0, 1).transpose(1, 2, 0)
            picture = Image.fromarray((255 * np.broadcast_to(pixels, (*pixels.shape[:2], 3))).round().astype(np.uint8))
            if max(picture.size) > side:
                picture.thumbnail((side, side))
            top = (3 * norms.index(cell.norm) + line) * (side + 1) + 1
            left = cell.column * (side + 1) + 1
            grid[top : top + picture.height, left : left + picture.width] = np.asarray(picture)
        cells.append(cell.model_copy(update={"gain": float(f"{gain:.3g}")}))
    info = PngInfo()
    said = {"side": side, "cells": [cell.model_dump() for cell in cells]}
    info.add_text(_KEY, json.dumps(said, ensure_ascii=True))
    stream = io.BytesIO()
    Image.fromarray(grid).save(stream, "PNG", pnginfo=info, optimize=True)
    return stream.getvalue()
