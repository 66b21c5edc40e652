"""MIT Indoor Scenes: 67 classes, from the official TrainImages.txt and TestImages.txt."""

from __future__ import annotations

from pathlib import Path

from transferbench.base.errors import InputError
from transferbench.data import Dataset, Split, View, class_order, few_shot, listed
from transferbench.data.listed import ListedImage

IDS = {"mit67": "MIT Indoor Scenes, 67 classes, 5360/1340 images"}
PHOTOGRAPHS = True
NEEDS = {"mit67": ("MIT_67/TrainImages.txt", "MIT_67/TestImages.txt", "MIT_67/Images")}
WHERE = "https://web.mit.edu/torralba/www/indoor.html (unpacked into MIT_67)"


def load(id: str, split: Split, root: Path, view: View) -> Dataset:
    """The official split; classes are the sorted names (Renofeation's code takes them in the file system's order)."""
    rows, classes = _rows(id, root, "Test" if split == "test" else "Train")
    rows = listed.hashed(rows) if split == "test" else listed.cut(id, rows, split)
    return listed.dataset(id, split, root / "MIT_67" / "Images", rows, classes, view)


def renofeation_shots(id: str, root: Path, view: View, k: int) -> list[str]:
    """All of TrainImages.txt shuffled at once; the order of the classes does not matter."""
    return few_shot.of_the_whole(_rows(id, root, "Train")[0], k)


def _rows(id: str, root: Path, wanted: str) -> tuple[list[ListedImage], list[str]]:
    """(images of the list `wanted`, in its order, and the names of the classes)."""
    base = listed.require(id, root, NEEDS[id], WHERE) / "MIT_67"
    parts = {part: listed.lines(base / f"{part}Images.txt") for part in ("Train", "Test")}
    for path in (path for paths in parts.values() for path in paths):
        if path.count("/") != 1:
            raise InputError(f"data set {id}: the lists hold {path!r}, which is not '<class>/<file>'")
    classes = class_order.ordered({path.partition("/")[0] for paths in parts.values() for path in paths})
    rows = [ListedImage(path, classes.index(path.partition("/")[0])) for path in parts[wanted]]
    return rows, classes
