"""Files of adversarial points that other tools write. Nothing in them is run."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
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
    if _unpacked_size(file) > MOST_BYTES:
        raise InputError(f"{file}: larger than {MOST_BYTES // 2**30} GiB")
    try:
        with warnings.catch_warnings():  # torch's own, about the format: an error is one line
            warnings.simplefilter("ignore")
            found = _tensors(file)
    except Exception as error:  # the readers raise whatever a damaged or hostile file leads them to
        reason = (str(error).splitlines() or [""])[0][:120] or type(error).__name__
        raise InputError(f"{file}: no file of tensors ({reason})") from None
    names = [name for name in POINT_NAMES if name in found] or list(found)
    if not names or (len(names) != 1 and names[0] not in POINT_NAMES):
        raise InputError(f"{file}: tensors {', '.join(map(str, found)) or 'none'}: name the points {POINT_NAMES[0]}")
    points = found[names[0]]
    if not _is_dense(points):
        raise InputError(f"{file}: a sparse, nested, quantised or empty kind of tensor: save the points as a dense one")
    if points.ndim != 4 or not len(points) or (points.dtype != torch.uint8 and not points.is_floating_point()):
        raise InputError(
            f"{file}: a {points.dtype} tensor of {size_text(points.shape)}, not images [N, C, H, W] in [0,1]"
        )
    # A tensor may repeat a few stored numbers any number of times.
    if 4 * points.numel() > MOST_BYTES:
        raise InputError(f"{file}: points of {size_text(points.shape)}, more than {MOST_BYTES // 2**30} GiB")
    return points.float() / 255 if points.dtype == torch.uint8 else points.float()


def _unpacked_size(file: Path) -> int:
    """Bytes of the file, or those that its archive's entries say they have (.npz, .pt)."""
    size = file.stat().st_size
    try:
        with zipfile.ZipFile(file) as archive:
            return max(size, sum(entry.file_size for entry in archive.infolist()))
    except Exception:  # no archive, or a damaged one, about which its reader complains
        return size


def _is_dense(points: Tensor) -> bool:
    """A strided tensor on the CPU: neither sparse nor nested, quantised or on the device `meta`."""
    strided = points.layout == torch.strided and not points.is_nested and not points.is_quantized
    return strided and points.device.type == "cpu"


def _tensors(file: Path) -> dict[str, Tensor]:
    if file.suffix == ".safetensors":
        return load_file(file)
    if file.suffix in (".npy", ".npz"):
        # Mapped, an array that is larger than its file is refused before memory is taken for it.
        loaded = np.load(file, allow_pickle=False, mmap_mode="r")
        arrays = {"points": loaded} if isinstance(loaded, np.ndarray) else dict(loaded)
        return {name: _tensor(array) for name, array in arrays.items()}
    content = torch.load(file, map_location="cpu", weights_only=True)
    if isinstance(content, Tensor):
        return {"points": content}
    if not isinstance(content, dict):
        raise ValueError(f"a {type(content).__name__}")
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def _tensor(array: np.ndarray) -> Tensor:
    """The array in this machine's byte order, copied."""
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))
