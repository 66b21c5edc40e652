"""Anyone's own images: `folder:<path>` with one sub-folder per class (ImageFolder layout).

Either `<path>/{train,val,test}/<class>/*` or `<path>/<class>/*` as a test split alone. Classes are the sorted
folder names. Files are stored by class, so they are put in the order of the sha256 of their relative path:
the first n of any n are a fair sample. The example id is the first 63 bits of that hash.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from transferbench.data import SPLITS, Dataset, Split
from transferbench.types import InputError

IDS = {"folder": "folder:<path>, your own images: one sub-folder per class, below train/ val/ test/ or alone"}

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}


def load(id: str, split: Split, root: Path | None) -> Dataset:
    """InputError names the missing folder, the empty class, the unreadable file or the differing size."""
    place = Path(id.partition(":")[2])
    if not id.partition(":")[2]:
        raise InputError("data set folder: needs a path, as folder:/path/to/images")
    if not place.is_dir():
        raise InputError(f"data set {id}: there is no folder {place}")
    base = place / split
    if not base.is_dir():
        if split != "test" or any((place / name).is_dir() for name in SPLITS):
            raise InputError(f"data set {id}: the split {split} needs the folder {base}")
        base = place
    classes = tuple(sorted(path.name for path in base.iterdir() if path.is_dir()))
    if len(classes) < 2:
        raise InputError(f"data set {id}: {base} has {len(classes)} class folders, at least 2 are needed")
    found: list[tuple[str, Path, int]] = []
    for label, name in enumerate(classes):
        files = [path for path in (base / name).rglob("*") if path.suffix.lower() in SUFFIXES]
        if not files:
            raise InputError(f"data set {id}: class folder {base / name} has no images")
        for path in files:
            relative = path.relative_to(base).as_posix()
            found.append((hashlib.sha256(relative.encode()).hexdigest(), path, label))
    found.sort(key=lambda item: item[0])
    images = [_read(path) for _, path, _ in found]
    shapes = {image.shape for image in images}
    if len(shapes) > 1:
        first, other = sorted(shapes)[:2]
        raise InputError(f"data set {id}: images differ in size ({first} and {other}): bring them to one size")
    return Dataset(
        id=id,
        split=split,
        images=torch.stack(images),
        labels=torch.tensor([label for _, _, label in found]),
        ids=torch.tensor([int(digest[:16], 16) >> 1 for digest, _, _ in found]),
        classes=classes,
    )


def _read(path: Path) -> torch.Tensor:
    """float32 [3, H, W] in [0,1]."""
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"), dtype=np.float32) / 255
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise InputError(f"image {path}: not readable ({error})") from None
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
