"""Small synthetic trees in the exact official layout of every data set that has files.

Names, header lines and .mat fields are the official ones. `--smoke` runs on them, and the loaders' tests break them.
"""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from transferbench.base.dataset_id import DatasetId
from transferbench.base.errors import InputError
from transferbench.data.caltech256 import SYNTHETIC_TEST_IMAGES
from transferbench.data.cifar import validation_order
from transferbench.data.class_subset import labels_of
from transferbench.data.flowers17 import CATEGORIES, PER_CATEGORY
from transferbench.data.imagenet import SYNTHETIC_LISTS
from transferbench.models.catalogue import classes

SIDE = 40


@dataclass
class Tree:
    """A synthetic data set: its root folder, the test images by path with their labels, the number that train."""

    id: str
    root: Path
    tests: dict[Path, int]
    classes: tuple[str, ...]
    trained: int
    lists: list[Path] = field(default_factory=list)


def photo(path: Path, seed: int, side: int = SIDE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side + seed % 5, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def _seed(name: str) -> int:
    """No two files of a tree are equal."""
    return int(hashlib.sha256(name.encode()).hexdigest()[:6], 16)


def cub200(root: Path) -> Tree:
    base = root / "CUB_200_2011"
    names = ("001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Sooty_Albatross")
    images, labels, parts, tests = [], [], [], {}
    for number in range(1, 37):
        label = (number - 1) // 12
        name = f"{names[label]}/{names[label][4:]}_{number:04d}_796111.jpg"
        path = photo(base / "images" / name, number)
        images.append(f"{number} {name}")
        labels.append(f"{number} {label + 1}")
        parts.append(f"{number} {int(number % 3 > 0)}")
        if number % 3 == 0:
            tests[path] = label
    written = {
        "images.txt": images,
        "image_class_labels.txt": labels,
        "train_test_split.txt": parts,
        "classes.txt": [f"{label + 1} {name}" for label, name in enumerate(names)],
    }
    for name, content in written.items():
        (base / name).write_text("\n".join(content) + "\n")
    return Tree("cub200", root, tests, names, 24, [base / name for name in written])


def flowers102(root: Path) -> Tree:
    base, count = root / "flowers-102", 102 * 3
    labels = np.array([[1 + number // 3 for number in range(count)]], dtype=np.uint8)
    parts = {
        name: np.array([range(first, count + 1, 3)], dtype=np.uint16)
        for name, first in (("trnid", 1), ("valid", 2), ("tstid", 3))
    }
    base.mkdir(parents=True)
    savemat(base / "imagelabels.mat", {"labels": labels})
    savemat(base / "setid.mat", parts)
    for number in range(1, count + 1):
        photo(base / "jpg" / f"image_{number:05d}.jpg", number)
    tests = {base / "jpg" / f"image_{number:05d}.jpg": (number - 1) // 3 for number in parts["tstid"][0].tolist()}
    return Tree(
        "flowers102", root, tests, tuple(map(str, range(1, 103))), 204, [base / "imagelabels.mat", base / "setid.mat"]
    )


def dogs120(root: Path) -> Tree:
    base, names, tests = root / "stanford_dog", ("n02085620-Chihuahua", "n02085782-Japanese_spaniel"), {}
    base.mkdir(parents=True)
    for part, count in (("train", 12), ("test", 8)):
        files = [f"{names[k % 2]}/{names[k % 2][:9]}_{part}{k}.jpg" for k in range(count)]
        for k, name in enumerate(files):
            path = photo(base / "Images" / name, _seed(name))
            if part == "test":
                tests[path] = k % 2
        column = np.empty((count, 1), dtype=object)
        for k, name in enumerate(files):
            column[k, 0] = name
        savemat(
            base / f"{part}_list.mat",
            {"file_list": column, "labels": np.array([[k % 2 + 1] for k in range(count)], dtype=np.uint8)},
        )
    return Tree("dogs120", root, tests, names, 12, [base / "train_list.mat", base / "test_list.mat"])


def stanford40(root: Path) -> Tree:
    base, names, tests = root / "stanford_40", ("applauding", "blowing_bubbles", "waving_hands"), {}
    (base / "ImageSplits").mkdir(parents=True)
    for label, name in enumerate(names):
        for part, count in (("train", 6), ("test", 4)):
            files = [f"{name}_{part}_{k:03d}.jpg" for k in range(count)]
            (base / "ImageSplits" / f"{name}_{part}.txt").write_text("\n".join(files) + "\n")
            for file in files:
                path = photo(base / "JPEGImages" / file, _seed(file))
                if part == "test":
                    tests[path] = label
    lines = ["action_name\tnumber_of_images", *(f"{name}          \t10" for name in names)]
    (base / "ImageSplits" / "actions.txt").write_text("\n".join(lines) + "\n")
    return Tree("stanford40", root, tests, names, 18, [base / "ImageSplits" / "actions.txt"])


def mit67(root: Path) -> Tree:
    base, tests = root / "MIT_67", {}
    given = ("gameroom", "airport_inside", "bar")
    listed: dict[str, list[str]] = {"Train": [], "Test": []}
    for name in given:
        for part, count in (("Train", 6), ("Test", 4)):
            for k in range(count):
                file = f"{name}/{part.lower()}_{k}.jpg"
                path = photo(base / "Images" / file, _seed(file))
                listed[part].append(file)
                if part == "Test":
                    tests[path] = sorted(given).index(name)
    for part, files in listed.items():
        (base / f"{part}Images.txt").write_text("\n".join(files) + "\n")
    return Tree("mit67", root, tests, tuple(sorted(given)), 18, [base / "TrainImages.txt", base / "TestImages.txt"])


def caltech256(root: Path) -> Tree:
    base, names = root / "caltech256" / "256_ObjectCategories", ("001.ak47", "002.american-flag", "257.clutter")
    paths: dict[Path, int] = {}
    for label, name in enumerate(names):
        for k in range(1, 11):
            paths[photo(base / name / f"{name[:3]}_{k:04d}.jpg", 20 * label + k)] = label

    def rank(path: Path) -> bytes:
        return hashlib.sha256(path.relative_to(base).as_posix().encode()).digest()

    first = [
        sorted((path for path, mine in paths.items() if mine == label), key=rank)[:SYNTHETIC_TEST_IMAGES]
        for label in range(3)
    ]
    return Tree("caltech256", root, {path: paths[path] for part in first for path in part}, names, 18)


def tinyimagenet(root: Path) -> Tree:
    base, given, tests = root / "tiny-imagenet-200", ("n02124075", "n01443537", "n04067472"), {}
    classes = tuple(sorted(given))
    base.mkdir(parents=True)
    (base / "wnids.txt").write_text("\n".join(given) + "\n")
    for wnid in given:
        for k in range(6):
            photo(base / "train" / wnid / "images" / f"{wnid}_{k}.JPEG", _seed(f"{wnid}{k}"), 64)
    rows = []
    for k in range(12):
        path = base / "val" / "images" / f"val_{k}.JPEG"
        photo(path, _seed(path.name), 64)
        tests[path] = classes.index(given[k % 3])
        rows.append(f"val_{k}.JPEG\t{given[k % 3]}\t0\t0\t62\t62")
    for path in base.rglob("*.JPEG"):
        # All of TinyImageNet is square.
        Image.open(path).convert("RGB").resize((64, 64)).save(path)
    (base / "val" / "val_annotations.txt").write_text("\n".join(rows) + "\n")
    return Tree("tinyimagenet", root, tests, classes, 18, [base / "wnids.txt"])


def imagenet(root: Path) -> Tree:
    base, helper, classes, tests = root / "imagenet", root / SYNTHETIC_LISTS, ("n01440764", "n01443537"), {}
    names = [f"{classes[k % 2]}/ILSVRC2012_val_{k:08d}.JPEG" for k in range(8)]
    for k, name in enumerate(names):
        tests[photo(base / "val" / name, _seed(name))] = k % 2
    for wnid in classes:
        for k in range(6):
            photo(base / "train" / wnid / f"{wnid}_{k}.JPEG", _seed(f"{wnid}{k}"))
    helper.mkdir()
    (helper / "imagenet_test_image_ids.txt").write_text("\n".join(reversed(names)))
    (helper / "imagenet_class_to_id_map.json").write_text(json.dumps({wnid: k for k, wnid in enumerate(classes)}))
    return Tree("imagenet", root, tests, classes, 12, [helper / "imagenet_test_image_ids.txt"])


def folder(root: Path) -> Tree:
    base, names, tests = root / "mine", ("ant", "bee", "cat"), {}
    for label, name in enumerate(names):
        for part, count in (("train", 6), ("test", 4)):
            for k in range(count):
                path = photo(base / part / name / f"{k}.png", _seed(f"{part}{name}{k}"))
                if part == "test":
                    tests[path] = label
    return Tree(f"folder:{base}", root, tests, names, 18)


def flowers17(root: Path) -> Tree:
    base, tests = root / "17flowers", {}
    splits: dict[str, list[int]] = {"trn1": [], "val1": [], "tst1": []}
    for label in range(len(CATEGORIES)):
        for k, part in enumerate(("trn1", "val1", "tst1", "trn1")):
            number = label * PER_CATEGORY + 7 * k + 1
            path = photo(base / "jpg" / f"image_{number:04d}.jpg", number)
            splits[part].append(number)
            if part == "tst1":
                tests[path] = label
    savemat(base / "datasplits.mat", {name: np.array([numbers]) for name, numbers in splits.items()})
    return Tree("flowers17", root, tests, CATEGORIES, 3 * len(CATEGORIES), [base / "datasplits.mat"])


def _copy(root: Path, id: str, names: Sequence[str], side: int) -> Tree:
    tests = {}
    for label, name in enumerate(names):
        for part, count in (("train", 6), ("test", 4)):
            for k in range(count):
                path = photo(root / id / part / name / f"{k:04d}.jpg", _seed(f"{id}{part}{name}{k}") // 5 * 5, side)
                if part == "test":
                    tests[path] = label
    return Tree(id, root, tests, tuple(names), 6 * len(names))


def flowers12(root: Path) -> Tree:
    return _copy(
        root, "flowers12", sorted(set(CATEGORIES) - {"daffodil", "snowdrop", "crocus", "tulip", "cowslip"}), SIDE
    )


def cifar10_jpeg(root: Path) -> Tree:
    return _copy(root, "cifar10-jpeg", classes.of("cifar10"), 32)


MAKERS: dict[str, Callable[[Path], Tree]] = {
    maker.__name__.replace("_", "-"): maker
    for maker in (
        cub200,
        flowers102,
        flowers17,
        flowers12,
        cifar10_jpeg,
        dogs120,
        stanford40,
        mit67,
        caltech256,
        tinyimagenet,
        imagenet,
        folder,
    )
}


def cifar(root: Path, id: str, small: bool = False, labels: Sequence[int] | None = None) -> Path:
    """The python version's pickles. `small`: 8 images a file, else enough for the official cut.

    `labels`: so many images a file, of these classes in turn, also among the images that are for validation.
    """
    from torchvision.datasets import CIFAR10, CIFAR100

    kind = CIFAR10 if id == "cifar10" else CIFAR100
    base = root / kind.base_folder
    base.mkdir(parents=True)
    rng, many = np.random.default_rng(0), 10 if id == "cifar10" else 100
    own = labels or [int(k % many) for k in range(8 if small else 600 if id == "cifar10" else 3000)]
    train = [*own] * len(kind.train_list)
    if labels:
        for place, label in zip(validation_order(id, len(train)).tolist(), [*train], strict=True):
            train[place] = label
    for number, (name, _) in enumerate((*kind.train_list, *kind.test_list)):
        of_file = (train[number * len(own) :] or own)[: len(own)]
        pixels = rng.integers(0, 256, (len(own), 3072), dtype=np.uint8)
        content = {"data": pixels, "labels" if id == "cifar10" else "fine_labels": of_file}
        (base / name).write_bytes(pickle.dumps(content))
    names = {kind.meta["key"]: list(classes.of(id))}
    (base / kind.meta["filename"]).write_bytes(pickle.dumps(names))
    return base


def _spread(id: str, subsets: Sequence[DatasetId]) -> list[int] | None:
    """Labels of 8 images for each subset, its classes evenly, the subsets in turn; None where there is no subset."""
    if not any(subset.items for subset in subsets):
        return None
    names = classes.of(id)
    chosen = [labels_of(subset, names) if subset.items else list(range(len(names))) for subset in subsets]
    return [own[k * len(own) // 8] for k in range(8) for own in chosen]


def make(id: str, root: Path, subsets: Sequence[DatasetId] = ()) -> None:
    """Make the tree of a whole data set below the folder of data sets, with images of each of the subsets' classes
    where it has many classes and few images. InputError for one that has no maker."""
    if id in ("cifar10", "cifar100"):
        cifar(root, id, small=True, labels=_spread(id, subsets))
    elif id in MAKERS:
        MAKERS[id](root)
    else:
        raise InputError(f"--smoke: there is no maker for the data set {id}")
