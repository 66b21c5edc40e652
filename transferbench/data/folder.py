"""Anyone's own images: `folder:<path>` with one sub-folder per class (ImageFolder layout).

`<path>/{train,val,test}/<class>/*`, or `<path>/<class>/*` as a test split alone. Without test/, val/ is what is
attacked; without a val/ of its own, validation images are cut from train/. Classes are the sorted folder names.
"""

from __future__ import annotations

from pathlib import Path

from transferbench.base.errors import InputError
from transferbench.data import SPLITS, Dataset, Split, View, listed
from transferbench.data.listed import Row

IDS = {"folder": "folder:<path>, your own images: one sub-folder per class, below train/ val/ test/ or alone"}


def load(id: str, split: Split, root: Path, view: View) -> Dataset:
    """InputError names the missing folder, the empty class, the unreadable file or the differing size."""
    name = id.partition(":")[2]
    if not name:
        raise InputError("data set folder: needs a path, as folder:/path/to/images")
    place = Path(name)
    if not place.is_dir():
        raise InputError(f"data set {id}: there is no folder {place}")
    here = [part for part in SPLITS if (place / part).is_dir()]
    if split == "test":
        base = place / ("test" if "test" in here else "val" if "val" in here else "") if here else place
        if base == place and here:
            raise InputError(f"data set {id}: the split test needs the folder {place / 'test'} or {place / 'val'}")
        return _dataset(id, split, base, view)
    if split == "val" and "val" in here and "test" in here:
        return _dataset(id, split, place / "val", view)
    if "train" not in here:
        raise InputError(f"data set {id}: the split {split} needs the folder {place / 'train'}")
    whole = "val" in here and "test" in here
    return _dataset(id, split, place / "train", view, uncut=whole)


def _dataset(id: str, split: Split, base: Path, view: View, uncut: bool = False) -> Dataset:
    classes = sorted(path.name for path in base.iterdir() if path.is_dir())
    if len(classes) < 2:
        raise InputError(f"data set {id}: {base} has {len(classes)} class folders, at least 2 are needed")
    rows: list[Row] = []
    for label, name in enumerate(classes):
        try:
            rows += [Row(f"{name}/{path}", label) for path in listed.images_below(base / name)]
        except InputError:
            raise InputError(f"data set {id}: class folder {base / name} has no images") from None
    cutting = base.name == "train" and split != "test" and not uncut
    rows = listed.cut(id, rows, split) if cutting else listed.hashed(rows)
    return listed.dataset(id, split, base, rows, classes, view)
