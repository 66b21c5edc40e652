"""Stanford 40 Actions, from the official split files."""

from __future__ import annotations

from pathlib import Path

from transferbench.base.errors import InputError
from transferbench.data import Dataset, Split, View, few_shot, listed
from transferbench.data.listed import ListedImage

IDS = {"stanford40": "Stanford 40 Actions, 40 classes, 4000/5532 images"}
PHOTOGRAPHS = True
NEEDS = {"stanford40": ("stanford_40/ImageSplits/actions.txt", "stanford_40/JPEGImages")}
WHERE = "http://vision.stanford.edu/Datasets/40actions.html (JPEGImages and ImageSplits, unpacked into stanford_40)"


def load(id: str, split: Split, root: Path, view: View) -> Dataset:
    """The official split; classes in the order of actions.txt, which has a header and the names in its first column."""
    rows, classes = _rows(id, root, "test" if split == "test" else "train")
    rows = listed.hashed(rows) if split == "test" else listed.cut(id, rows, split)
    return listed.dataset(id, split, root / "stanford_40" / "JPEGImages", rows, classes, view)


def renofeation_shots(id: str, root: Path, view: View, k: int) -> list[str]:
    """Each class, in the order of its file, shuffled by itself."""
    return few_shot.of_each_class(_rows(id, root, "train")[0], k)


def _rows(id: str, root: Path, part: str) -> tuple[list[ListedImage], list[str]]:
    """(images of the split files of `part`, in their order, and the names of the classes)."""
    base = listed.require(id, root, NEEDS[id], WHERE) / "stanford_40"
    actions = listed.lines(base / "ImageSplits" / "actions.txt")[1:]
    if not actions:
        raise InputError(f"data set {id}: {base / 'ImageSplits' / 'actions.txt'} lists no action below its header")
    classes = [line.split()[0] for line in actions]
    rows = [
        ListedImage(name, label)
        for label, action in enumerate(classes)
        for name in listed.lines(base / "ImageSplits" / f"{action}_{part}.txt")
    ]
    return rows, classes
