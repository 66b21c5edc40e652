"""CUB-200-2011: 200 bird species, from the official lists."""

from __future__ import annotations

from pathlib import Path

from transferbench.base.errors import InputError
from transferbench.data import Dataset, Split, View, few_shot, listed
from transferbench.data.listed import ListedImage

IDS = {"cub200": "CUB-200-2011, 200 bird species, 5994/5794 images"}
PHOTOGRAPHS = True
_LISTS = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt")
NEEDS = {
    "cub200": (
        "CUB_200_2011/images.txt",
        "CUB_200_2011/image_class_labels.txt",
        "CUB_200_2011/train_test_split.txt",
        "CUB_200_2011/classes.txt",
        "CUB_200_2011/images",
    )
}
URL = "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz"
MD5 = "97eceeb196236b17998738112f37df78"


def load(id: str, split: Split, root: Path, view: View) -> Dataset:
    """The official training and test split; labels are the official 1..200 minus one."""
    images, names = _images(id, root)
    base = root / "CUB_200_2011"
    rows = [row for row, trains in images.values() if trains == (split != "test")]
    rows = listed.hashed(rows) if split == "test" else listed.cut(id, rows, split)
    # By their numbers, not by the order of the lines.
    classes = [names[number] for number in sorted(names, key=int)]
    if sorted(map(int, names)) != list(range(1, len(names) + 1)):
        raise InputError(f"data set {id}: {base / _LISTS[3]} does not number its classes 1 to {len(names)}")
    return listed.dataset(id, split, base / "images", rows, classes, view)


def renofeation_shots(id: str, root: Path, view: View, k: int) -> list[str]:
    """Each class, test images too, shuffled by itself in the order of the numbers; test images are then skipped."""
    images = _images(id, root)[0]
    order = [images[number] for number in sorted(images, key=int)]
    training = {row.path for row, trains in order if trains}
    return few_shot.of_each_class([row for row, _ in order], k, lambda row: row.path in training)


def _images(id: str, root: Path) -> tuple[dict[str, tuple[ListedImage, bool]], dict[str, str]]:
    """({number: (image, whether it is for training)} in the order of images.txt, {number: name of the class})."""
    base = listed.require(id, root, NEEDS[id], URL) / "CUB_200_2011"
    paths, labels, parts, names = (_pairs(base / name) for name in _LISTS)
    for number in paths:
        if number not in labels or number not in parts:
            raise InputError(f"data set {id}: image {number} of images.txt has no label or no part in the other lists")
    images = {
        number: (ListedImage(path, int(labels[number]) - 1), parts[number] == "1") for number, path in paths.items()
    }
    return images, names


def _pairs(path: Path) -> dict[str, str]:
    """`1 001.Black_footed_Albatross/x.jpg` lines as {number: rest}."""
    pairs = {}
    for line in listed.lines(path):
        number, _, rest = line.partition(" ")
        if not rest or not number.isdigit():
            raise InputError(f"{path}: the line {line!r} is not '<number> <value>'")
        pairs[number] = rest.strip()
    return pairs


def download(id: str, root: Path) -> None:
    from transferbench.data import downloads

    downloads.fetch_archive(URL, MD5, root, "CUB_200_2011")
