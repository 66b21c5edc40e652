"""Your own images: `folder:<path>` with one sub-folder per class (ImageFolder layout).

`<path>/{train,val,test}/<class>/*`, or `<path>/<class>/*` as a test split alone. Without test/, val/ is the test split;
where that leaves no val/, validation images are a tenth of train/. Classes are the sorted folder names.
"""

from __future__ import annotations

from pathlib import Path

from transferbench.base.errors import InputError
from transferbench.data import SPLITS, Dataset, Split, View, listed
from transferbench.data.listed import ListedImage

IDS = {"folder": "folder:<path>, your own images: one sub-folder per class, below train/ val/ test/ or alone"}


def load(id: str, split: Split, root: Path, view: View) -> Dataset:
    """A split of the folder. InputError with the missing folder, the empty class or the unreadable file."""
    name = id.partition(":")[2]
    if not name:
        raise InputError("data set folder: needs a path, as folder:/path/to/images")
    folder = Path(name)
    if not folder.is_dir():
        raise InputError(f"data set {id}: there is no folder {folder}")
    existing = [part for part in SPLITS if (folder / part).is_dir()]
    has_validation = "val" in existing and "test" in existing
    if split == "test":
        base = folder / ("test" if "test" in existing else "val" if "val" in existing else "") if existing else folder
        if base == folder and existing:
            raise InputError(f"data set {id}: the split test needs the folder {folder / 'test'} or {folder / 'val'}")
        return _dataset(id, split, base, view)
    if split == "val" and has_validation:
        return _dataset(id, split, folder / "val", view)
    if "train" not in existing:
        raise InputError(f"data set {id}: the split {split} needs the folder {folder / 'train'}")
    return _dataset(id, split, folder / "train", view, cut=not has_validation)


def _dataset(id: str, split: Split, base: Path, view: View, cut: bool = False) -> Dataset:
    """The images below `base`; with `cut` the training or validation part of them."""
    classes = sorted(path.name for path in base.iterdir() if path.is_dir())
    if len(classes) < 2:
        raise InputError(f"data set {id}: {base} has {len(classes)} class folders, at least 2 are needed")
    rows: list[ListedImage] = []
    for label, name in enumerate(classes):
        try:
            rows += [ListedImage(f"{name}/{path}", label) for path in listed.images_below(base / name)]
        except InputError:
            raise InputError(f"data set {id}: class folder {base / name} has no images") from None
    rows = listed.cut(id, rows, split) if cut else listed.hashed(rows)
    return listed.dataset(id, split, base, rows, classes, view)
