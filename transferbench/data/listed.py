"""From (relative path, label) rows to a data set: order, ids, the validation cut, what is missing.

Files are stored by class, so they are put in the order of the sha256 of their relative path: the first n of any n
are a fair sample, and the same on every machine. The example id is the first 63 bits of that hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from transferbench.base import keyed_random
from transferbench.base.errors import InputError
from transferbench.data import Dataset, Split, View
from transferbench.data.files import Files, is_image
from transferbench.data.preprocessing import Preprocessing

VALIDATION_SHARE = 0.1


class Row(NamedTuple):
    """An image's path below the data set's folder, and its class."""

    path: str
    label: int


def require(id: str, root: Path, needs: Sequence[str], where: str) -> Path:
    """InputError that lists what is expected below the folder of data sets, and where to get it, if any is missing."""
    missing = [name for name in needs if not (root / name).exists()]
    if missing:
        raise InputError(
            f"data set {id}: {', '.join(str(root / name) for name in missing)} missing (--data-dir); expected there: "
            f"{', '.join(needs)}; get it from {where}"
        )
    return root


def lines(path: Path) -> list[str]:
    """The lines of a list file that are not empty. InputError when it cannot be read."""
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable ({error})") from None


def images_below(folder: Path) -> list[str]:
    """Relative paths of the images below a folder, sorted. InputError when there is none."""
    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if is_image(path))
    if not found:
        raise InputError(f"folder {folder} has no images")
    return found


def example_id(path: str) -> int:
    return int(hashlib.sha256(path.encode()).hexdigest()[:16], 16) >> 1


def hashed(rows: Iterable[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: hashlib.sha256(row.path.encode()).digest())


def cut(id: str, rows: Iterable[Row], split: Split) -> list[Row]:
    """The training or the validation part of training rows: of each class a tenth, at least one, by a fixed seed."""
    by_class: dict[int, list[Row]] = {}
    for row in hashed(rows):
        by_class.setdefault(row.label, []).append(row)
    kept: list[Row] = []
    for label, mine in sorted(by_class.items()):
        if len(mine) < 2:
            raise InputError(f"data set {id}: class {label} has one training image: none is left to validate on")
        order = keyed_random.permutation(keyed_random.stream("validation", id, label), len(mine)).tolist()
        part = max(1, round(VALIDATION_SHARE * len(mine)))
        kept += [mine[place] for place in (order[:part] if split == "val" else order[part:])]
    return hashed(kept)


def dataset(
    id: str,
    split: Split,
    base: Path,
    rows: Sequence[Row],
    classes: Sequence[str],
    view: View,
) -> Dataset:
    """The rows as they are ordered, seen as the view says.

    Files that all have the side the network takes are left as they are. Small images (up to 64) are trained with
    crop and flip, larger ones with resized crops. InputError for a row without a file, a class without a row, a
    label too many.
    """
    counts = [0] * len(classes)
    for row in rows:
        if not 0 <= row.label < len(classes):
            raise InputError(f"data set {id}: {row.path} has label {row.label}, there are {len(classes)} classes")
        counts[row.label] += 1
    empty = [classes[label] for label, count in enumerate(counts) if count == 0]
    if empty:
        raise InputError(f"data set {id}, split {split}: {len(empty)} classes have no images (first: {empty[0]!r})")
    absent = [row.path for row in rows if not (base / row.path).is_file()]
    if absent:
        raise InputError(f"data set {id}: {len(absent)} listed images are missing (first: {base / absent[0]})")
    paths = [base / row.path for row in rows]
    try:
        images = _seen(paths, view)
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
    )


def _seen(paths: list[Path], view: View) -> Files:
    """The files through the view's preprocessing, else as they are, else brought to the view's side."""
    if view.preprocessing or view.side is None:
        return Files(paths, Preprocessing.parse(view.preprocessing))
    sized = Files(paths, Preprocessing.for_side(view.side))
    return Files(paths, Preprocessing.parse(""), sized.shape) if sized.sizes == {(view.side, view.side)} else sized
