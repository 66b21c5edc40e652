"""scikit-learn's handwritten digits: the real target task that needs no download.

1797 images of 8x8 pixels (UCI Optical Recognition of Handwritten Digits, test part), 16 grey levels scaled to
[0,1]. A fixed seed cuts them, class by class where it matters: 200 to train (20 per class), 200 to validate,
and 1397 to test, of which the first 200 are attacked and the other 1197 give clean accuracy only.
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
    place = np.empty(len(labels), dtype=np.int64)
    for label in range(10):
        mine = order[labels[order] == label]
        place[mine] = np.arange(len(mine))
    # The k-th of a class, in the seeded order: 0-19 train, 20-39 validate, the rest test.
    parts: dict[Split, NDArray[np.int64]] = {
        "train": np.flatnonzero(place < _PER_CLASS),
        "val": np.flatnonzero((place >= _PER_CLASS) & (place < 2 * _PER_CLASS)),
        "test": np.flatnonzero(place >= 2 * _PER_CLASS),
    }
    # Another seed orders each part: in the first order, classes that came early run into the test part early.
    shuffle = np.random.default_rng(_SEED + 1)
    return images, labels, {split: shuffle.permutation(at) for split, at in parts.items()}


def load(id: str, split: Split, root: Path, view: View) -> Dataset:
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
