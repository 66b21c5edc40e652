"""ImageNet-1k from a folder. The test split is RobustBench's 5000 validation images, in its order."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

from transferbench.base.errors import InputError
from transferbench.data import Dataset, Split, View, listed, listing
from transferbench.data.listed import ListedImage
from transferbench.data.listing import LeftOut

IDS = {"imagenet": "ImageNet-1k, 1000 classes, RobustBench's 5000 validation images to attack"}
PHOTOGRAPHS = True
NEEDS = {"imagenet": ("imagenet/val",)}
SYNTHETIC_LISTS = "lists"
WHERE = "https://image-net.org (the validation images sorted into val/<wnid>/, for training also train/<wnid>/)"


def load(id: str, split: Split, root: Path, view: View) -> Dataset:
    """A split; only its own folder is needed. Labels are RobustBench's: the sorted WordNet ids."""
    part = "val" if split == "test" else "train"
    base = listed.require(id, root, (f"imagenet/{part}",), WHERE) / "imagenet" / part
    left_out = LeftOut()
    rows, classes = attacked(root, view)
    if split != "test":
        rows = []
        for label, wnid in enumerate(classes):
            found = listing.images_below(base / wnid)
            rows += [ListedImage(f"{wnid}/{path}", label) for path in found.paths]
            left_out += found.left_out
        rows = listed.cut(id, rows, split)
    if not view.preprocessing and view.side in (None, 224):
        view = view._replace(preprocessing="Res256Crop224")
    return listed.dataset(id, split, base, rows, classes, view, [listing.text(left_out)])


def attacked(root: Path, view: View) -> tuple[list[ListedImage], list[str]]:
    """RobustBench's images, relative to a folder of classes, in its order, with their labels; and the classes."""
    # A smoke run generates its own list of images.
    helper = root / SYNTHETIC_LISTS if view.synthetic else _robustbench()
    labels: dict[str, int] = json.loads((helper / "imagenet_class_to_id_map.json").read_text(encoding="utf-8"))
    paths = listed.lines(helper / "imagenet_test_image_ids.txt")
    rows = [ListedImage(path, labels[path.partition("/")[0]]) for path in paths]
    return rows, sorted(labels, key=labels.__getitem__)


def _robustbench() -> Path:
    """The folder of lists in the installed robustbench."""
    spec = find_spec("robustbench")
    if spec is None or spec.origin is None:
        raise InputError("data set imagenet: its list of images comes with the package robustbench, which is missing")
    return Path(spec.origin).parent / "helper_files"
