"""ImageNet-C and ImageNet-3DCC from their official files, on RobustBench's 5000 validation images in its order.

`ImageNet-C/<corruption>/<severity>/<wnid>/ILSVRC2012_val_*.JPEG`, 224x224 pixels. As RobustBench does, images go
through `Res224` whatever a model's own preprocessing is: they were resized and cropped before they were corrupted.
"""

from __future__ import annotations

from pathlib import Path

from transferbench.base import corruptions
from transferbench.base.errors import InputError
from transferbench.data import Dataset, Split, View, imagenet, listed

IDS = {
    "imagenet-c": "imagenet-c:<corruption>:<severity>, ImageNet-C, RobustBench's 5000 test images",
    "imagenet-3dcc": "imagenet-3dcc:<corruption>:<severity>, ImageNet-3DCC, RobustBench's 5000 test images",
}
NEEDS = {"imagenet-c": ("ImageNet-C",), "imagenet-3dcc": ("ImageNet-3DCC",)}
WHERE = {
    "imagenet-c": "https://zenodo.org/records/2235448 (all archives unpacked into ImageNet-C/)",
    "imagenet-3dcc": "https://github.com/EPFL-VILAB/3DCommonCorruptions#3dcc-data (by its tool)",
}
VIEW = View("Res224")


def load(id: str, split: Split, root: Path, view: View) -> Dataset:
    """One corruption at one severity; a test split alone. InputError for another split, or missing files."""
    if split != "test":
        raise InputError(f"data set {id} has test images alone; train on those of imagenet")
    rows, classes = imagenet.attacked(root, view)
    return listed.dataset(id, split, require(id, root), rows, classes, VIEW)


def require(id: str, root: Path) -> Path:
    """The folder of the classes' folders. InputError where it is missing."""
    corrupted, family = corruptions.parse(id), id.partition(":")[0]
    folder = f"{NEEDS[family][0]}/{corrupted.corruption}/{corrupted.severity}"
    return listed.require(id, root, (folder,), WHERE[family]) / folder
