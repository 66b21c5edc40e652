"""Random crop and flip of images in memory, determined by one key per image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from transferbench.base import keyed_random


def crop_flip(x: Tensor, keys: Tensor, padding: int | None = None) -> Tensor:
    """Zero padding, a random crop of the original size, a flip with probability 1/2.

    x [B, C, H, W]; keys int64 [B]. `padding` is in pixels on every side, None: an eighth of the side, at least 1
    (4 at 32). robust-finetuning pads by 4; the challenge's loader, which LwF, Free AT and IGAM took over, by 2.
    """
    height, width = x.shape[2:]
    pad = max(1, height // 8) if padding is None else padding
    drawn = keyed_random.uniform(keys, (3,))
    top, left = ((drawn[:, axis] * (2 * pad + 1)).long() for axis in (0, 1))
    padded = F.pad(x, (pad, pad, pad, pad))
    rows = top[:, None] + torch.arange(height, device=x.device)
    columns = left[:, None] + torch.arange(width, device=x.device)
    columns = torch.where(drawn[:, 2:] < 0.5, columns, columns.flip(1))
    at = torch.arange(len(x), device=x.device)
    return padded[at[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()
