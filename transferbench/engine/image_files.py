"""What becomes of fooling points that are saved as image files: whether they still fool when they are read again.

They are judged, not attacked: an attack that knew of the file's format would search for other points. A saved point
may lie outside the ball (by up to half a level of 255 in every value of an 8-bit file; JPEG keeps no bound), so that
nothing of this enters a robust accuracy.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import torch
from PIL import Image
from torch import Tensor

from transferbench.base.results import FileFormat, FileVerdicts
from transferbench.engine.judge import Judge
from transferbench.engine.verdicts import Examples

VERSION = 1
"""Part of the keys of jobs that judge points: raised when a format is written differently."""
JPEG_QUALITY = 90
_PART = 256
"""Points that are saved at a time: all tries of large photographs would fill the memory."""
_MODES = {1: "L", 3: "RGB"}
"""Pillow's modes by the number of channels: other images have no JPEG file."""


def rounded(points: Tensor) -> Tensor:
    """The points [B, C, H, W] as an 8-bit file without loss (PNG) returns them: the nearest multiples of 1/255."""
    return _levels(points).float() / 255


def compressed(points: Tensor) -> Tensor:
    """The points [B, C, H, W], C 1 or 3, as a JPEG file of quality 90 returns them (Pillow's other settings: colours at
    half the resolution in both directions)."""
    levels = _levels(points).cpu().movedim(1, -1).numpy()
    mode = _MODES[points.shape[1]]
    images = []
    for image in levels:
        file = io.BytesIO()
        Image.fromarray(image[..., 0] if mode == "L" else image).save(file, "JPEG", quality=JPEG_QUALITY)
        with Image.open(file) as read:
            images.append(torch.frombuffer(bytearray(read.convert(mode).tobytes()), dtype=torch.uint8))
    if not images:
        return points.clone()
    shape = len(images), *points.shape[2:], points.shape[1]
    return torch.stack(images).view(shape).movedim(-1, 1).float().div(255).to(points.device)


FORMATS: dict[FileFormat, Callable[[Tensor], Tensor]] = {"8bit": rounded, "jpeg90": compressed}


def judge_files(judge: Judge, examples: Examples, points: Tensor, fooled: Tensor) -> tuple[FileVerdicts, ...]:
    """Of every format that the images have: which of the fooling points still fool, and the control.

    `points` [tries, n, ...] and `fooled` bool [tries, n]: an example counts where any of its fooling points still
    fools. The control: of the examples with a fooling point, those whose clean image, saved likewise, is misclassified.
    """
    x, y, ids = examples
    attempts, at = fooled.nonzero(as_tuple=True)
    of_any = fooled.any(0).nonzero().flatten()
    # torch splits nothing into one part of nothing.
    parts = list(zip(attempts.split(_PART), at.split(_PART), strict=True)) if len(at) else []
    clean_parts = of_any.split(_PART) if len(at) else ()
    verdicts = []
    for name, save in FORMATS.items():
        if name == "jpeg90" and x.shape[1] not in _MODES:
            continue
        fooling, control = torch.zeros_like(y, dtype=torch.bool), torch.zeros_like(y, dtype=torch.bool)
        for attempt, rows in parts:
            wrong = torch.ne(judge.logits(save(points[attempt, rows]), ids[rows]).argmax(1), y[rows])
            fooling[rows[wrong]] = True
        for rows in clean_parts:
            control[rows] = torch.ne(judge.logits(save(x[rows]), ids[rows]).argmax(1), y[rows])
        verdicts.append(FileVerdicts(name, tuple(fooling.tolist()), tuple(control.tolist())))
    return tuple(verdicts)


def _levels(points: Tensor) -> Tensor:
    """uint8: the nearest of the 256 levels."""
    return (points * 255).round().clamp(0, 255).to(torch.uint8)
