"""Caltech-256: 257 folders with clutter. No official split: 20 images of each class are the test split, as in
Renofeation's loader."""

from __future__ import annotations

from pathlib import Path

from transferbench.base.errors import InputError
from transferbench.data import Dataset, Split, View, listed, listing
from transferbench.data.listed import ListedImage
from transferbench.data.listing import LeftOut

IDS = {"caltech256": "Caltech-256, 257 classes with clutter, 20 per class to test"}
PHOTOGRAPHS = True
NEEDS = {"caltech256": ("caltech256/256_ObjectCategories",)}
URL = "https://data.caltech.edu/records/nyy15-4j048/files/256_ObjectCategories.tar"
MD5 = "67b4f42ca05d46448c6bb8ecd2220f6d"
TEST_IMAGES, SYNTHETIC_TEST_IMAGES = 20, 4
"""Test images of each class: of the official set, and of a synthetic one."""


def load(id: str, split: Split, root: Path, view: View) -> Dataset:
    """Classes are the folders; the first 20 of a class by the hashes of their paths are the test split.

    As in torchvision's loader, a class of n images consists of the numbers 1 to n, and sub-folders are no part of it:
    `056.dog` has one in the official archive.
    """
    base = listed.require(id, root, NEEDS[id], URL) / "caltech256" / "256_ObjectCategories"
    own = listing.class_folders(base)
    classes, left_out = list(own.folders), own.left_out
    by_class: dict[int, list[ListedImage]] = {}
    for label, name in enumerate(classes):
        found = listing.images_below(base / own.folders[name], nested=False)
        count = sum(path.endswith(".jpg") for path in found.paths)
        left_out += found.left_out + LeftOut({"image not called *.jpg": len(found.paths) - count})
        by_class[label] = [ListedImage(f"{name}/{name[:3]}_{k:04d}.jpg", label) for k in range(1, count + 1)]
    count = SYNTHETIC_TEST_IMAGES if view.synthetic else TEST_IMAGES
    small = [classes[label] for label, rows in by_class.items() if len(rows) <= count]
    if small:
        raise InputError(f"data set {id}: class {small[0]} has no more than the {count} images of its test split")
    parts = [listed.hashed(rows) for rows in by_class.values()]
    if split == "test":
        rows = listed.hashed(row for part in parts for row in part[:count])
    else:
        rows = listed.cut(id, [row for part in parts for row in part[count:]], split)
    return listed.dataset(id, split, base, rows, classes, view, [listing.text(left_out)])


def download(id: str, root: Path) -> None:
    from transferbench.data import downloads

    downloads.fetch_archive(URL, MD5, root / "caltech256", "256_ObjectCategories")
