"""Stanford Dogs: 120 breeds, from the official .mat lists (object arrays of paths, labels from 1)."""

from __future__ import annotations

from pathlib import Path

from transferbench.base.errors import InputError
from transferbench.data import Dataset, Split, View, few_shot, listed
from transferbench.data.listed import ListedImage

IDS = {"dogs120": "Stanford Dogs, 120 breeds, 12000/8580 images"}
PHOTOGRAPHS = True
NEEDS = {"dogs120": ("stanford_dog/train_list.mat", "stanford_dog/test_list.mat", "stanford_dog/Images")}
WHERE = "http://vision.stanford.edu/aditya86/ImageNetDogs/ (images.tar and lists.tar, unpacked into stanford_dog)"


def load(id: str, split: Split, root: Path, view: View) -> Dataset:
    """The official training and test split; labels are the official 1..120 minus one."""
    base = listed.require(id, root, NEEDS[id], WHERE) / "stanford_dog"
    whole = {part: _rows(base / f"{part}_list.mat") for part in ("train", "test")}
    names: dict[int, str] = {}
    for row in (row for rows in whole.values() for row in rows):
        breed = row.path.partition("/")[0]
        if names.setdefault(row.label, breed) != breed:
            raise InputError(f"data set {id}: label {row.label + 1} is {names[row.label]} and {breed} in the lists")
    classes = [names.get(label, f"label {label + 1}") for label in range(max(names) + 1)]
    rows = listed.hashed(whole["test"]) if split == "test" else listed.cut(id, whole["train"], split)
    return listed.dataset(id, split, base / "Images", rows, classes, view)


def renofeation_shots(id: str, root: Path, view: View, k: int) -> list[str]:
    """Each class of train_list.mat shuffled by itself."""
    return few_shot.of_each_class(_rows(root / "stanford_dog" / "train_list.mat"), k)


def _rows(path: Path) -> list[ListedImage]:
    from scipy.io import loadmat

    try:
        lists = loadmat(str(path))
        files, labels = lists["file_list"], lists["labels"]
        return [ListedImage(str(file[0][0]), int(label[0]) - 1) for file, label in zip(files, labels, strict=True)]
    except (OSError, KeyError, ValueError, IndexError, TypeError) as error:
        raise InputError(f"{path}: not a list of Stanford Dogs, expected file_list and labels ({error})") from None
