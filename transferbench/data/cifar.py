"""CIFAR-10 and CIFAR-100 from their official files, in the published order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from transferbench import keyed
from transferbench.data import Dataset, Split
from transferbench.types import InputError

IDS = {
    "cifar10": "CIFAR-10, 32x32 RGB, 10 classes; needs cifar-10-batches-py below --data-dir",
    "cifar100": "CIFAR-100 (fine labels), 32x32 RGB, 100 classes; needs cifar-100-python below --data-dir",
}

_VALIDATION = 2000


def load(id: str, split: Split, root: Path | None) -> Dataset:
    """The test set, or the training set cut by a fixed seed into validation (2000) and training images."""
    from torchvision.datasets import CIFAR10, CIFAR100

    kind = CIFAR10 if id == "cifar10" else CIFAR100
    place = root if root is not None else Path("data")
    try:
        bundle = kind(str(place), train=split != "test", download=False)
    except RuntimeError:
        raise InputError(
            f"data set {id}: {place / kind.base_folder} is missing or its files differ from the official ones; "
            "unpack the official archive there, or name its parent with --data-dir"
        ) from None
    images = torch.from_numpy(np.asarray(bundle.data)).permute(0, 3, 1, 2).float() / 255
    labels, ids = torch.tensor(bundle.targets), torch.arange(len(bundle.targets))
    if split != "test":
        order = keyed.permutation(keyed.stream("validation", id), len(labels))
        at = order[:_VALIDATION] if split == "val" else order[_VALIDATION:].sort().values
        images, labels, ids = images[at], labels[at], ids[at]
    return Dataset(id, split, images.contiguous(), labels, ids, tuple(bundle.classes))
