"""Randomness by key instead of by order: the same key gives the same numbers in any batch, on any device.

Every random start, noise draw, augmentation and permutation of the project comes from here. A key is hashed
from named dimensions (seed, norm, eps text, rank, example id), never from a worker, a batch or a clock, so a
verdict cannot depend on who else was in the batch. The generator is splitmix64 (Steele, Lea and Flood 2014)
used as a counter-based generator; it is integer arithmetic, hence equal on a CPU and on a GPU.
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit integer
_MIX1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX2 = -7723592293110705685  # 0x94D049BB133111EB


def stream(*dimensions: object) -> int:
    """A 64-bit signed key from named dimensions. The order of the dimensions is part of the key."""
    text = "\x1f".join(str(dimension) for dimension in dimensions)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big", signed=True)


def _shift(z: Tensor, by: int) -> Tensor:
    # torch's >> keeps the sign of an int64; the mask makes it the unsigned shift of the algorithm.
    return (z >> by) & ((1 << (64 - by)) - 1)


def mix(z: Tensor) -> Tensor:
    """splitmix64's finaliser on int64, elementwise."""
    z = (z ^ _shift(z, 30)) * _MIX1
    z = (z ^ _shift(z, 27)) * _MIX2
    return z ^ _shift(z, 31)


def row_keys(base: int, *columns: Tensor) -> Tensor:
    """int64 [B]: one key per row from a stream key and the rows' int64 columns (ids, try numbers)."""
    keys = torch.full_like(columns[0], base)
    for column in columns:
        keys = mix(keys + (column + 1) * _GOLDEN)
    return keys


def bits(keys: Tensor, count: int) -> Tensor:
    """int64 [B, count] of raw 64-bit words, row b depending on keys[b] alone."""
    counter = torch.arange(1, count + 1, device=keys.device, dtype=torch.int64)
    return mix(keys[:, None] + counter[None, :] * _GOLDEN)


def uniform(keys: Tensor, shape: tuple[int, ...]) -> Tensor:
    """float32 [B, *shape], uniform on the multiples of 2^-24 in [0, 1)."""
    words = bits(keys, math.prod(shape))
    return (_shift(words, 40).to(torch.float32) * 2.0**-24).view(len(keys), *shape)


def normal(keys: Tensor, shape: tuple[int, ...]) -> Tensor:
    """float32 [B, *shape], standard normal by Box and Muller, computed in float64 and rounded once."""
    words = bits(keys, 2 * math.prod(shape))
    unit = (_shift(words, 11).to(torch.float64) + 0.5) * 2.0**-53
    radius, angle = unit.view(len(keys), 2, -1).unbind(1)
    drawn = torch.sqrt(-2.0 * torch.log(radius)) * torch.cos(2.0 * math.pi * angle)
    return drawn.to(torch.float32).view(len(keys), *shape)


def signs(keys: Tensor, shape: tuple[int, ...]) -> Tensor:
    """float32 [B, *shape] of -1 and +1 with equal probability."""
    words = bits(keys, math.prod(shape))
    return (_shift(words, 63).to(torch.float32) * 2.0 - 1.0).view(len(keys), *shape)


def permutation(key: int, n: int) -> Tensor:
    """int64 [n]: a permutation of 0..n-1, by sorting n keyed words (ties are practically impossible)."""
    return bits(torch.tensor([key]), n)[0].argsort(stable=True)
