"""Copies of public data sets as folders of images, under names of their own, because their pixels or splits differ.

`<data dir>/<id>/{train,test}/<class>/*`. A suite that names the official data set reads a copy with
`run --dataset cifar10=cifar10-jpeg`; the record then names the copy.
"""

from __future__ import annotations

from pathlib import Path

from transferbench.data import Dataset, Split, View, folder, listed

IDS = {
    "cifar10-jpeg": "CIFAR-10 saved again as JPEG, so not pixel-equal to the official images; 32x32 RGB, 20000/10000",
    "flowers12": "12 of the 17 categories of Oxford Flowers-17, cropped to 224x224, 720/240 images",
}
PHOTOGRAPHS = True
NEEDS = {
    "cifar10-jpeg": ("cifar10-jpeg/train", "cifar10-jpeg/test"),
    "flowers12": ("flowers12/train", "flowers12/test"),
}
WHERE = {
    "cifar10-jpeg": "your own copy, {train,test}/<class>/*.jpg (docs/datasets.md), or read the official images "
    "(run --dataset cifar10-jpeg=cifar10) of https://www.cs.toronto.edu/~kriz/cifar.html",
    "flowers12": "your own copy, {train,test}/<category>/*.jpg (docs/datasets.md), or read the official images "
    "(run --dataset 'flowers12=flowers17[bluebell,...]') of https://www.robots.ox.ac.uk/~vgg/data/flowers/17/",
}


def load(id: str, split: Split, root: Path, view: View) -> Dataset:
    """The split, as data/folder.py reads it: classes sorted by name, which for CIFAR-10 is the official order."""
    listed.require(id, root, NEEDS[id], WHERE[id])
    return folder.of_folder(id, split, root / id, view)
