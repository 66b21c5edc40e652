"""Oxford Flowers-17 in its official layout: 1,360 files in order, 80 of each category.

Of the three official splits the first; its training and validation images are for training.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from transferbench.base.errors import InputError
from transferbench.data import Dataset, Split, View, listed
from transferbench.data.listed import ListedImage

IDS = {"flowers17": "Oxford Flowers-17, 17 categories, 1020/340 images of the first official split"}
PHOTOGRAPHS = True
NEEDS = {"flowers17": ("17flowers/jpg", "17flowers/datasplits.mat")}
WHERE = "https://www.robots.ox.ac.uk/~vgg/data/flowers/17/ (17flowers.tgz and datasplits.mat, unpacked into 17flowers)"

CATEGORIES = (
    "daffodil",
    "snowdrop",
    "lily-valley",
    "bluebell",
    "crocus",
    "iris",
    "tigerlily",
    "tulip",
    "fritillary",
    "sunflower",
    "daisy",
    "colts-foot",
    "dandelion",
    "cowslip",
    "buttercup",
    "windflower",
    "pansy",
)
"""In the order of the files: image_0001 to image_0080 are daffodils."""
PER_CATEGORY = 80
_PARTS = {"train": ("trn1", "val1"), "test": ("tst1",)}


def load(id: str, split: Split, root: Path, view: View) -> Dataset:
    """The split; labels are in the order of the files. InputError for a file of splits that is not the official one."""
    base = listed.require(id, root, NEEDS[id], WHERE) / "17flowers"
    rows = _rows(base / "datasplits.mat", _PARTS["test" if split == "test" else "train"])
    rows = listed.hashed(rows) if split == "test" else listed.cut(id, rows, split)
    return listed.dataset(id, split, base / "jpg", rows, CATEGORIES, view)


def _rows(file: Path, parts: Sequence[str]) -> list[ListedImage]:
    try:
        found = loadmat(file)
        numbers = [int(number) for name in parts for number in np.asarray(found[name]).ravel()]
    except (OSError, MatReadError, KeyError, ValueError, TypeError) as error:
        raise InputError(
            f"data set flowers17: {file} is not the official file ({type(error).__name__}: {error})"
        ) from None
    most = PER_CATEGORY * len(CATEGORIES)
    if len(set(numbers)) != len(numbers) or not all(1 <= number <= most for number in numbers):
        raise InputError(f"data set flowers17: {file} is not the official file: numbers twice, or not in 1 to {most}")
    return [ListedImage(f"image_{number:04d}.jpg", (number - 1) // PER_CATEGORY) for number in sorted(numbers)]
