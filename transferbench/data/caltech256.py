"""Caltech-256: 257 folders with clutter. No official split: 20 of each class test, as in the seed's loader."""

from __future__ import annotations

from pathlib import Path

from transferbench.base.errors import InputError
from transferbench.data import Dataset, Split, View, listed
from transferbench.data.listed import Row

IDS = {"caltech256": "Caltech-256, 257 classes with clutter, 20 per class to test"}
NEEDS = {"caltech256": ("caltech256/256_ObjectCategories",)}
URL = "https://data.caltech.edu/records/nyy15-4j048/files/256_ObjectCategories.tar"
MD5 = "67b4f42ca05d46448c6bb8ecd2220f6d"
TESTED, MADE_TESTED = 20, 4
"""Images of each class that test: of the official set, and of a made one."""


def load(id: str, split: Split, root: Path, view: View) -> Dataset:
    """torchvision finds classes and files; which 20 of a class test is fixed by the hashes of their paths."""
    from torchvision.datasets import Caltech256

    base = listed.require(id, root, NEEDS[id], URL) / "caltech256" / "256_ObjectCategories"
    bundle = Caltech256(str(root), download=False)
    classes = list(bundle.categories)
    by_class: dict[int, list[Row]] = {label: [] for label in range(len(classes))}
    for number, label in zip(bundle.index, bundle.y, strict=True):
        name = classes[label]
        by_class[label].append(Row(f"{name}/{name[:3]}_{number:04d}.jpg", label))
    tested = MADE_TESTED if view.made else TESTED
    few = [classes[label] for label, rows in by_class.items() if len(rows) <= tested]
    if few:
        raise InputError(f"data set {id}: class {few[0]} has no more than the {tested} images that are to test")
    parts = [listed.hashed(rows) for rows in by_class.values()]
    if split == "test":
        rows = listed.hashed(row for part in parts for row in part[:tested])
    else:
        rows = listed.cut(id, [row for part in parts for row in part[tested:]], split)
    return listed.dataset(id, split, base, rows, classes, view)


def download(id: str, root: Path) -> None:
    from transferbench.data import downloads

    downloads.fetch_archive(URL, MD5, root / "caltech256", "256_ObjectCategories")
