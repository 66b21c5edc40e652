"""CIFAR-10-C and CIFAR-100-C from their official files: the test images, corrupted, in CIFAR's own order.

`CIFAR-10-C/<corruption>.npy` is uint8 [50000, 32, 32, 3], 10000 images for each severity from 1 to 5, `labels.npy` the
labels of all of them. Images and labels are those of RobustBench's `load_corruptions_cifar`.
"""

from __future__ import annotations

from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from transferbench.base import class_names, corruptions
from transferbench.base.corruptions import SEVERITIES
from transferbench.base.errors import InputError
from transferbench.data import Dataset, Split, View, listed

IDS = {
    "cifar10-c": "cifar10-c:<corruption>:<severity>, CIFAR-10-C, 10000 test images per severity",
    "cifar100-c": "cifar100-c:<corruption>:<severity>, CIFAR-100-C, 10000 test images per severity",
}
NEEDS = {"cifar10-c": ("CIFAR-10-C",), "cifar100-c": ("CIFAR-100-C",)}
ARCHIVES = {
    "cifar10-c": ("https://zenodo.org/records/2535967/files/CIFAR-10-C.tar", "56bf5dcef84df0e2308c6dcbcbbd8499"),
    "cifar100-c": ("https://zenodo.org/records/3555552/files/CIFAR-100-C.tar", "11f0ed0f1191edbf9fa23466ae6021d3"),
}
"""The archives that RobustBench downloads, with their MD5 as Zenodo lists it."""
COUNT = 10_000
"""Images of each severity."""


def load(id: str, split: Split, root: Path, view: View) -> Dataset:
    """One corruption at one severity; a test split alone. InputError for another split, missing or other files.

    Example ids are positions among CIFAR's test images: an image has one id whatever its corruption.
    """
    if split != "test":
        raise InputError(f"data set {id} has test images alone; train on those of {_clean(id)}")
    corrupted, names = corruptions.parse(id), require(id, root)
    images, labels = (_read(id, root / name) for name in names)
    n = len(labels) // len(SEVERITIES)
    expected = len(labels) if view.synthetic else COUNT * len(SEVERITIES)
    if labels.shape != (expected,) or n * len(SEVERITIES) != expected or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"data set {id}: {root / names[1]} holds {labels.dtype} {labels.shape}, not {expected} labels")
    if images.shape != (expected, 32, 32, 3) or images.dtype != np.uint8:
        raise InputError(
            f"data set {id}: {root / names[0]} holds {images.dtype} {images.shape}, not uint8 {(expected, 32, 32, 3)}"
        )
    if labels.min() < 0 or labels.max() >= len(class_names.of(_clean(id))):
        raise InputError(f"data set {id}: {root / names[1]}: a label is no class of {_clean(id)}")
    if not (labels.reshape(len(SEVERITIES), n) == labels[:n]).all():
        raise InputError(f"data set {id}: {root / names[1]}: the labels of the five severities differ")
    # Copied before torch sees it: the file is mapped read-only.
    chosen = np.array(images[(corrupted.severity - 1) * n : corrupted.severity * n])
    pixels = torch.from_numpy(chosen).permute(0, 3, 1, 2).float() / 255
    given = torch.from_numpy(labels[:n].astype(np.int64))
    return Dataset(id, split, pixels.contiguous(), given, torch.arange(n), class_names.of(_clean(id)))


def require(id: str, root: Path) -> tuple[str, str]:
    """The files of images and of labels below the folder of data sets. InputError where one is missing."""
    family = id.partition(":")[0]
    folder = NEEDS[family][0]
    names = f"{folder}/{corruptions.parse(id).corruption}.npy", f"{folder}/labels.npy"
    listed.require(id, root, names, f"{ARCHIVES[family][0]} (unpacked), or by --download")
    return names


def _clean(id: str) -> str:
    return corruptions.of_family(id.partition(":")[0]).dataset


def _read(id: str, path: Path) -> NDArray[Any]:
    """The array in a file, mapped. InputError for what is no plain array."""
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray) or array.ndim == 0:
            raise ValueError("an archive or a single number")
    except (OSError, ValueError, EOFError, SyntaxError, TypeError, ArithmeticError, MemoryError, TokenError) as error:
        raise InputError(f"data set {id}: {path} is no array of numbers ({' '.join(str(error).split())})") from None
    return array


def download(id: str, root: Path) -> None:
    from transferbench.data import downloads

    family = id.partition(":")[0]
    downloads.fetch_archive(*ARCHIVES[family], root, NEEDS[family][0])
