"""scikit-learn's handwritten digits: a real target task without a download.

1797 images of 8x8 pixels (UCI Optical Recognition of Handwritten Digits, test part), 16 grey levels scaled to
[0,1]. A fixed seed splits them: 200 for training and 200 for validation (20 per class each), 1397 for testing, of which
the first 200 may be attacked and the other 1197 count for clean accuracy only.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from transferbench.data import Dataset, Split, View

IDS = {"digits": "10 real handwritten digits, 8x8 grey, 200/200/1397 images; comes with scikit-learn"}

ATTACKED = 200
_PER_CLASS = 20
_SEED = 20_201_120


@cache
def _all() -> tuple[NDArray[np.float32], NDArray[np.int64], dict[Split, NDArray[np.int64]]]:
    from sklearn.datasets import load_digits

    bundle = load_digits()
    images = (bundle.images / 16).astype(np.float32)
    labels = bundle.target.astype(np.int64)
    order = np.random.default_rng(_SEED).permutation(len(labels))
    rank = np.empty(len(labels), dtype=np.int64)
    for label in range(10):
        of_class = order[labels[order] == label]
        rank[of_class] = np.arange(len(of_class))
    # By the rank within the class, in the seeded order: 0-19 train, 20-39 validation, the rest test.
    parts: dict[Split, NDArray[np.int64]] = {
        "train": np.flatnonzero(rank < _PER_CLASS),
        "val": np.flatnonzero((rank >= _PER_CLASS) & (rank < 2 * _PER_CLASS)),
        "test": np.flatnonzero(rank >= 2 * _PER_CLASS),
    }
    # Each part is shuffled by another seed: in the first order, classes that come early begin the test part.
    shuffle = np.random.default_rng(_SEED + 1)
    return images, labels, {split: shuffle.permutation(at) for split, at in parts.items()}


def load(id: str, split: Split, root: Path, view: View) -> Dataset:
    """One of the three parts of the fixed seed."""
    images, labels, parts = _all()
    at = parts[split]
    return Dataset(
        id=id,
        split=split,
        images=torch.from_numpy(images[at])[:, None],
        labels=torch.from_numpy(labels[at]),
        ids=torch.from_numpy(at),
        classes=tuple("0123456789"),
        attackable=ATTACKED if split == "test" else None,
    )
