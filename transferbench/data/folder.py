"""Your own images: `folder:<path>` with one sub-folder per class (ImageFolder layout).

`<path>/{train,val,test}/<class>/*`, or `<path>/<class>/*` as a test split alone. Without test/, val/ is the test split;
where that leaves no val/, validation images are a tenth of train/. Classes are the folders of train/ where it exists,
else those of the split, in the order of data/class_order.py. Which files count is in data/listing.py.
"""

from __future__ import annotations

import os
from pathlib import Path

from transferbench.base.errors import InputError
from transferbench.data import SPLITS, Dataset, Split, View, class_order, listed, listing
from transferbench.data.listed import ListedImage
from transferbench.data.listing import ClassFolders, Identity

IDS = {"folder": "folder:<path>, your own images: one sub-folder per class, below train/ val/ test/ or alone"}
PHOTOGRAPHS = True
_SPLIT_NAMES = frozenset(("train", "training", "val", "valid", "validation", "dev", "test", "testing", "eval"))
"""Usual names of splits: folders that have no others are not classes."""


def load(id: str, split: Split, root: Path, view: View) -> Dataset:
    """A split of the folder. InputError with the missing folder, the class without images or the unreadable file."""
    name = id.partition(":")[2]
    if not name:
        raise InputError("data set folder: needs a path, as folder:/path/to/images")
    folder = Path(name)
    if not os.path.isdir(folder):
        raise InputError(f"data set {id}: there is no folder {folder}")
    return of_folder(id, split, folder, view)


def of_folder(id: str, split: Split, folder: Path, view: View) -> Dataset:
    """A split of an existing folder, under the id, by which validation images are drawn. InputError as `load`."""
    try:
        base, cut = _split_folder(folder, split)
        return _dataset(id, split, folder, base, view, cut)
    except InputError as error:
        said = str(error)
        raise InputError(said if said.startswith(f"data set {id}") else f"data set {id}: {said}") from None


def _split_folder(folder: Path, split: Split) -> tuple[Path, bool]:
    """The folder that holds the split, and whether only a part of it is the split."""
    existing = [part for part in SPLITS if (folder / part).is_dir()]
    if split == "test":
        if not existing:
            names = listing.folders_in(folder)
            if names and _SPLIT_NAMES.issuperset(name.casefold() for name in names):
                raise InputError(f"the folders {', '.join(names)} look like splits: call them train, val and test")
            return folder, False
        base = next((folder / part for part in ("test", "val") if part in existing), None)
        if base is None:
            raise InputError(f"the split test needs the folder {folder / 'test'} or {folder / 'val'}")
        return base, False
    has_validation = "val" in existing and "test" in existing
    if split == "val" and has_validation:
        return folder / "val", False
    if "train" not in existing:
        raise InputError(f"the split {split} needs the folder {folder / 'train'}")
    return folder / "train", not has_validation


def _dataset(id: str, split: Split, folder: Path, base: Path, view: View, cut: bool) -> Dataset:
    """The images below `base`; with `cut` the training or validation part of them."""
    own = listing.class_folders(base)
    left_out = own.left_out if base == folder else own.left_out + listing.others_in(folder, SPLITS)
    train = folder / "train"
    classes = list(_classes(own, base, train if base != folder and train.is_dir() else base))
    rows: list[ListedImage] = []
    owners: dict[Identity, str] = {}
    for label, name in enumerate(classes):
        if name not in own.folders:
            continue
        found = listing.images_below(base / own.folders[name])
        for identity in found.folders:
            if owners.setdefault(identity, name) != name:
                raise InputError(f"{base}: a link puts the images of one folder into {owners[identity]!r} and {name!r}")
        left_out += found.left_out
        rows += [ListedImage(f"{own.folders[name]}/{path}", label) for path in found.paths]
    rows = listed.cut(id, rows, split) if cut else listed.hashed(rows)
    notes = (class_order.note(classes), listing.text(left_out))
    return listed.dataset(id, split, base, rows, classes, view, notes)


def _classes(own: ClassFolders, base: Path, reference: Path) -> tuple[str, ...]:
    """The class names: those of the folder that the labels are numbered by. InputError for others in `base`."""
    classes = tuple(own.folders if reference == base else listing.class_folders(reference).folders)
    if len(classes) < 2:
        raise InputError(f"{reference} has {len(classes)} class folders, at least 2 are needed")
    for name in own.folders:
        if name not in classes:
            raise InputError(f"{base / own.folders[name]} is no class folder of {reference}")
    return classes
