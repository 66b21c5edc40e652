"""CIFAR-10 and CIFAR-100 from their official files, in the published order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from transferbench.base import keyed_random
from transferbench.base.errors import InputError
from transferbench.data import Dataset, Split, View, listed

IDS = {
    "cifar10": "CIFAR-10, 10 classes, 32x32 RGB, 50000/10000 images",
    "cifar100": "CIFAR-100 (fine labels), 100 classes, 32x32 RGB, 50000/10000 images",
}
NEEDS = {"cifar10": ("cifar-10-batches-py",), "cifar100": ("cifar-100-python",)}
WHERE = "https://www.cs.toronto.edu/~kriz/cifar.html (the python version, unpacked), or by --download"

VALIDATION, SYNTHETIC_VALIDATION = 2000, 4
"""Validation images: of the official training set, and of a synthetic one."""


def load(id: str, split: Split, root: Path, view: View) -> Dataset:
    """The test set, or the training set split by a fixed seed into validation (2000) and training images."""
    kind = _without_hashes(_kind(id)) if view.synthetic else _kind(id)
    validation = SYNTHETIC_VALIDATION if view.synthetic else VALIDATION
    listed.require(id, root, NEEDS[id], WHERE)
    try:
        bundle = kind(str(root), train=split != "test", download=False)
    except (RuntimeError, OSError) as error:
        raise InputError(
            f"data set {id}: {root / kind.base_folder}: its files differ from the official ones "
            f"({str(error).splitlines()[0]}); get them from {WHERE}"
        ) from None
    pixels = torch.from_numpy(np.asarray(bundle.data)).permute(0, 3, 1, 2)
    labels, ids = torch.tensor(bundle.targets), torch.arange(len(bundle.targets))
    if split != "test":
        order = validation_order(id, len(labels))
        at = order[:validation] if split == "val" else order[validation:].sort().values
        pixels, labels, ids = pixels[at], labels[at], ids[at]
    # In place: the training set as float32 takes 600 MB, once.
    images = pixels.contiguous().float().div_(255)
    return Dataset(id, split, images, labels, ids, tuple(bundle.classes), augment="crop-flip")


def validation_order(id: str, n: int) -> torch.Tensor:
    """The order of the n training images whose first ones are for validation, int64 [n]."""
    return keyed_random.permutation(keyed_random.stream("validation", id), n)


def download(id: str, root: Path) -> None:
    from transferbench.data import downloads

    kind = _kind(id)
    downloads.fetch_archive(kind.url, kind.tgz_md5, root, kind.base_folder)


def _without_hashes(kind: Any) -> Any:
    """torchvision's class without the check of the official hashes."""
    return type(kind.__name__, (kind,), {"meta": {**kind.meta, "md5": None}, "_check_integrity": lambda _: True})


def _kind(id: str) -> Any:
    from torchvision.datasets import CIFAR10, CIFAR100

    return CIFAR10 if id == "cifar10" else CIFAR100
