"""TinyImageNet: 200 classes of 64x64. The official validation images are the test split: the test labels are not
published."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from transferbench.base.errors import InputError
from transferbench.data import Dataset, Split, View, class_order, listed, listing
from transferbench.data.listed import ListedImage
from transferbench.data.listing import LeftOut

IDS = {"tinyimagenet": "TinyImageNet, 200 classes, 64x64 RGB, 100000/10000 images"}
NEEDS = {"tinyimagenet": ("tiny-imagenet-200/wnids.txt", "tiny-imagenet-200/train", "tiny-imagenet-200/val")}
URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
MD5 = "90528d7ca1a48142e341f4ef8d21d0de"


def load(id: str, split: Split, root: Path, view: View) -> Dataset:
    """A split; classes are the sorted WordNet ids.

    The validation images may be stored as published (val_annotations.txt) or, as IGAM's scripts sort them, in
    val/images/<wnid>/. Order and example ids are the same: both derive from file names alone.
    """
    part = "val" if split == "test" else "train"
    needs = [name for name in NEEDS[id] if Path(name).name in ("wnids.txt", part)]
    base = listed.require(id, root, needs, URL) / "tiny-imagenet-200"
    classes = class_order.ordered(listed.lines(base / "wnids.txt"))
    labels = {wnid: label for label, wnid in enumerate(classes)}
    if split != "test":
        rows, left_out = [], LeftOut()
        for wnid, label in labels.items():
            found = listing.images_below(base / "train" / wnid / "images")
            rows += [ListedImage(f"train/{wnid}/images/{path}", label) for path in found.paths]
            left_out += found.left_out
        return listed.dataset(id, split, base, listed.cut(id, rows, split), classes, View(), [listing.text(left_out)])
    annotations, pictures, left_out = base / "val" / "val_annotations.txt", base / "val" / "images", LeftOut()
    images: dict[str, tuple[str, str]] = {}
    if any((pictures / wnid).is_dir() for wnid in classes):
        found = listing.images_below(pictures)
        left_out = found.left_out
        for path in found.paths:
            name, wnid = Path(path).name, Path(path).parent.name
            if images.setdefault(name, (path, wnid)) != (path, wnid):
                raise InputError(f"data set {id}: {pictures} has {name} twice, in {images[name][1]} and in {wnid}")
    elif annotations.is_file():
        columns = [line.split("\t") for line in listed.lines(annotations)]
        images = {column[0]: (column[0], column[1]) for column in columns if len(column) > 1}
    else:
        raise InputError(f"data set {id}: neither {annotations} nor {pictures}/<wnid> exists")
    unknown = sorted({wnid for _, wnid in images.values()} - labels.keys())
    if unknown:
        raise InputError(f"data set {id}: validation images of {unknown[0]!r}, which wnids.txt does not list")
    # Ordered by the hash of the file name alone, so that both layouts have one order; then the paths of this layout.
    ordered = listed.hashed(ListedImage(f"val/{name}", labels[wnid]) for name, (_, wnid) in images.items())
    rows = [ListedImage(f"val/images/{images[row.path.removeprefix('val/')][0]}", row.label) for row in ordered]
    dataset = listed.dataset(id, split, base, rows, classes, View(), [listing.text(left_out)])
    return replace(dataset, ids=torch.tensor([listed.example_id(row.path) for row in ordered]))


def download(id: str, root: Path) -> None:
    from transferbench.data import downloads

    downloads.fetch_archive(URL, MD5, root, "tiny-imagenet-200")
