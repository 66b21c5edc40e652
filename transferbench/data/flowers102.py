"""Oxford Flowers-102. As in Renofeation's code, the official training and validation images are for training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transferbench.base.errors import InputError
from transferbench.data import Dataset, Split, View, few_shot, listed
from transferbench.data.listed import ListedImage

IDS = {"flowers102": "Oxford Flowers-102, 102 species, 2040/6149 images"}
PHOTOGRAPHS = True
NEEDS = {"flowers102": ("flowers-102/jpg", "flowers-102/imagelabels.mat", "flowers-102/setid.mat")}
WHERE = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/ (torchvision's layout)"


def load(id: str, split: Split, root: Path, view: View) -> Dataset:
    """Labels are the official 1..102 minus one. The two .mat files are checked by torchvision's hashes."""
    rows = _rows(id, root, view, ("test",) if split == "test" else ("train", "val"))
    rows = listed.hashed(rows) if split == "test" else listed.cut(id, rows, split)
    return listed.dataset(id, split, root / "flowers-102", rows, [str(number) for number in range(1, 103)], view)


def renofeation_shots(id: str, root: Path, view: View, k: int) -> list[str]:
    """Each class of `trnid`, then `valid`, shuffled by itself."""
    return few_shot.of_each_class(_rows(id, root, view, ("train", "val")), k)


def _rows(id: str, root: Path, view: View, parts: tuple[str, ...]) -> list[ListedImage]:
    """The images of the official parts, in the order of setid.mat."""
    kind = _without_hashes(_kind()) if view.synthetic else _kind()
    listed.require(id, root, NEEDS[id], WHERE)
    try:
        bundles = [kind(str(root), split=part) for part in parts]
    except RuntimeError:
        raise InputError(
            f"data set {id}: {root / 'flowers-102'}: imagelabels.mat or setid.mat is not the official file (another "
            f"hash); get them from {WHERE}"
        ) from None
    base = root / "flowers-102"
    return [
        ListedImage(Path(path).relative_to(base).as_posix(), int(label))
        for bundle in bundles
        for path, label in zip(bundle._image_files, bundle._labels, strict=True)
    ]


def _kind() -> Any:
    from torchvision.datasets import Flowers102

    return Flowers102


def _without_hashes(kind: Any) -> Any:
    """torchvision's class without the check of the official hashes."""
    files = {name: (file, None) for name, (file, _) in kind._file_dict.items()}
    return type(kind.__name__, (kind,), {"_file_dict": files})


def download(id: str, root: Path) -> None:
    from transferbench.data import downloads

    official = _kind()
    prefix = official._download_url_prefix
    files = {kind: (f"{prefix}{name}", md5) for kind, (name, md5) in official._file_dict.items()}
    downloads.fetch_archive(*files["image"], root / "flowers-102", "jpg")
    for kind, name in (("label", "imagelabels.mat"), ("setid", "setid.mat")):
        downloads.fetch_file(*files[kind], root / "flowers-102" / name)
