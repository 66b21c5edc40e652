"""Caltech-256: 257 folders with clutter. No official split: 20 images of each class are the test split, as in
Renofeation's loader."""

from __future__ import annotations

from pathlib import Path

from transferbench.base.errors import InputError
from transferbench.data import Dataset, Split, View, listed
from transferbench.data.listed import ListedImage

IDS = {"caltech256": "Caltech-256, 257 classes with clutter, 20 per class to test"}
NEEDS = {"caltech256": ("caltech256/256_ObjectCategories",)}
URL = "https://data.caltech.edu/records/nyy15-4j048/files/256_ObjectCategories.tar"
MD5 = "67b4f42ca05d46448c6bb8ecd2220f6d"
TEST_IMAGES, SYNTHETIC_TEST_IMAGES = 20, 4
"""Test images of each class: of the official set, and of a synthetic one."""


def load(id: str, split: Split, root: Path, view: View) -> Dataset:
    """torchvision lists classes and files; the first 20 of a class by the hashes of their paths are the test split."""
    from torchvision.datasets import Caltech256

    base = listed.require(id, root, NEEDS[id], URL) / "caltech256" / "256_ObjectCategories"
    bundle = Caltech256(str(root), download=False)
    classes = list(bundle.categories)
    by_class: dict[int, list[ListedImage]] = {label: [] for label in range(len(classes))}
    for number, label in zip(bundle.index, bundle.y, strict=True):
        name = classes[label]
        by_class[label].append(ListedImage(f"{name}/{name[:3]}_{number:04d}.jpg", label))
    count = SYNTHETIC_TEST_IMAGES if view.synthetic else TEST_IMAGES
    small = [classes[label] for label, rows in by_class.items() if len(rows) <= count]
    if small:
        raise InputError(f"data set {id}: class {small[0]} has no more than the {count} images of its test split")
    parts = [listed.hashed(rows) for rows in by_class.values()]
    if split == "test":
        rows = listed.hashed(row for part in parts for row in part[:count])
    else:
        rows = listed.cut(id, [row for part in parts for row in part[count:]], split)
    return listed.dataset(id, split, base, rows, classes, view)


def download(id: str, root: Path) -> None:
    from transferbench.data import downloads

    downloads.fetch_archive(URL, MD5, root / "caltech256", "256_ObjectCategories")
