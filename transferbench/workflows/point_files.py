"""Files of adversarial points that other tools write. Nothing in them is run."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from transferbench.base.errors import InputError

POINT_NAMES = ("adv_complete", "adv", "x_adv", "points")
"""Names under which files of several tensors have their points: AutoAttack's own first."""
MOST_BYTES = 16 * 2**30


def size_text(shape: Sequence[int]) -> str:
    """`10x3x32x32`."""
    return "x".join(map(str, shape))


def read_points(file: Path) -> Tensor:
    """float32 [N, C, H, W]. InputError with the file and the reason; nothing in the file is run."""
    if not file.is_file():
        raise InputError(f"{file}: there is no such file")
    if file.stat().st_size > MOST_BYTES:
        raise InputError(f"{file}: larger than {MOST_BYTES // 2**30} GiB")
    try:
        found = _tensors(file)
    except (OSError, ValueError, EOFError, RuntimeError, pickle.UnpicklingError, SafetensorError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise InputError(f"{file}: no file of tensors ({reason})") from None
    names = [name for name in POINT_NAMES if name in found] or list(found)
    if len(names) != 1 and names[0] not in POINT_NAMES:
        raise InputError(f"{file}: tensors {', '.join(map(str, found)) or 'none'}: name the points {POINT_NAMES[0]}")
    points = found[names[0]]
    if points.ndim != 4 or not len(points) or (points.dtype != torch.uint8 and not points.is_floating_point()):
        raise InputError(
            f"{file}: a {points.dtype} tensor of {size_text(points.shape)}, not images [N, C, H, W] in [0,1]"
        )
    return points.float() / 255 if points.dtype == torch.uint8 else points.float()


def _tensors(file: Path) -> dict[str, Tensor]:
    if file.suffix == ".safetensors":
        return load_file(file)
    if file.suffix in (".npy", ".npz"):
        loaded = np.load(file, allow_pickle=False)
        arrays = {"points": loaded} if isinstance(loaded, np.ndarray) else dict(loaded)
        return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
    content = torch.load(file, map_location="cpu", weights_only=True)
    if isinstance(content, Tensor):
        return {"points": content}
    if not isinstance(content, dict):
        raise ValueError(f"a {type(content).__name__}")
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
