"""Builds data sets from lists of (relative path, label): order, example ids, validation split, missing files.

Files are ordered by the sha256 of their relative path, because their order on disk is by class: the first n are a
random sample, the same on every machine. The example id is the first 63 bits of that hash.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from transferbench.base import keyed_random
from transferbench.base.errors import InputError
from transferbench.base.spelling import composed
from transferbench.data import Dataset, Split, View
from transferbench.data.class_subset import missing_note
from transferbench.data.files import Files
from transferbench.data.preprocessing import Preprocessing

VALIDATION_SHARE = 0.1


class ListedImage(NamedTuple):
    """An image's path relative to the data set's folder, and its label."""

    path: str
    label: int


def require(id: str, root: Path, needs: Sequence[str], where: str) -> Path:
    """The folder of data sets. InputError with the missing files, all expected files and their address, if one is
    missing."""
    missing = [name for name in needs if not os.path.exists(root / name)]
    if missing:
        raise InputError(
            f"data set {id}: {', '.join(str(root / name) for name in missing)} missing (--data-dir); expected there: "
            f"{', '.join(needs)}; get it from {where}"
        )
    return root


def lines(path: Path) -> list[str]:
    """The non-empty lines of a text file, stripped. InputError when it cannot be read."""
    try:
        # Not splitlines(), which also cuts inside names; -sig, because editors put a byte order mark in front.
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable ({error})") from None


def example_id(path: str) -> int:
    """The first 63 bits of the sha256 of the path."""
    return int.from_bytes(_digest(path)[:8]) >> 1


def hashed(rows: Iterable[ListedImage]) -> list[ListedImage]:
    """The images in the order of the sha256 of their paths."""
    return sorted(rows, key=lambda row: _digest(row.path))


def _digest(path: str) -> bytes:
    """The sha256 of the path in Unicode's composed form: a copy made by macOS has the same order and ids."""
    return hashlib.sha256(composed(path).encode()).digest()


def cut(id: str, rows: Iterable[ListedImage], split: Split) -> list[ListedImage]:
    """The training or the validation part of training images, by a fixed seed.

    A tenth of each class, at least one image, is for validation. InputError for a class with one image.
    """
    by_class: dict[int, list[ListedImage]] = {}
    for row in hashed(rows):
        by_class.setdefault(row.label, []).append(row)
    part: list[ListedImage] = []
    for label, images in sorted(by_class.items()):
        if len(images) < 2:
            raise InputError(f"data set {id}: class {label} has one training image: none is left to validate on")
        order = keyed_random.permutation(keyed_random.stream("validation", id, label), len(images)).tolist()
        count = max(1, round(VALIDATION_SHARE * len(images)))
        part += [images[position] for position in (order[:count] if split == "val" else order[count:])]
    return hashed(part)


def dataset(
    id: str,
    split: Split,
    base: Path,
    rows: Sequence[ListedImage],
    classes: Sequence[str],
    view: View,
    notes: Sequence[str] = (),
) -> Dataset:
    """The data set of the images in this order, preprocessed as the view says.

    Files that all have the side of the network's input are not resized. Images of a side up to 64 are augmented by crop
    and flip, larger ones by resized crop and flip. InputError for a missing file, a label outside the classes, or a
    class without training images. Other splits may lack a class, as RobustBench's 5000 images of ImageNet do; a note
    says so, besides the caller's `notes`.
    """
    counts = [0] * len(classes)
    for row in rows:
        if not 0 <= row.label < len(classes):
            raise InputError(f"data set {id}: {row.path} has label {row.label}, there are {len(classes)} classes")
        counts[row.label] += 1
    empty = [classes[label] for label, count in enumerate(counts) if count == 0]
    notes = tuple(note for note in (*notes, missing_note(empty, len(classes))) if note)
    if (empty and split == "train") or not rows:
        raise InputError(f"data set {id}, split {split}: {'; '.join(notes)}")
    absent = [row.path for row in rows if not os.path.isfile(base / row.path)]
    if absent:
        raise InputError(f"data set {id}: {len(absent)} listed images are missing (first: {base / absent[0]})")
    paths = [base / row.path for row in rows]
    try:
        images = _files(paths, view)
    except InputError as error:
        raise InputError(f"data set {id}: {error}") from None
    return Dataset(
        id=id,
        split=split,
        images=images,
        labels=torch.tensor([row.label for row in rows]),
        ids=torch.tensor([example_id(row.path) for row in rows]),
        classes=tuple(classes),
        preprocessing=images.preprocessing.text,
        augment="crop-flip" if images.shape[-1] <= 64 else "resized-crop-flip",
        notes=notes,
    )


def _files(paths: list[Path], view: View) -> Files:
    """The files with the view's preprocessing; without one unchanged, or resized to the view's side."""
    if view.preprocessing or view.side is None:
        return Files(paths, Preprocessing.parse(view.preprocessing))
    sized = Files(paths, Preprocessing.for_side(view.side))
    return Files(paths, Preprocessing.parse(""), sized.shape) if sized.sizes == {(view.side, view.side)} else sized
