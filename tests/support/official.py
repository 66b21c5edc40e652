"""Synthetic trees as if they were the official files: their hashes, numbers and lists in place of the real ones.

A smoke run reads the same trees with `View(synthetic=True)`; these tests go through the official path.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def register(monkeypatch: pytest.MonkeyPatch, id: str, root: Path) -> None:
    """Until the end of the test, the files below `root` are the official ones of the data set."""
    if id == "flowers102":
        from torchvision.datasets import Flowers102

        names = {"label": "imagelabels.mat", "setid": "setid.mat"}
        files = {kind: (name, _md5(root / "flowers-102" / name)) for kind, name in names.items()}
        monkeypatch.setattr(Flowers102, "_file_dict", {**Flowers102._file_dict, **files})
    elif id == "caltech256":
        from transferbench.data import caltech256

        monkeypatch.setattr(caltech256, "TEST_IMAGES", caltech256.SYNTHETIC_TEST_IMAGES)
    elif id == "imagenet":
        from transferbench.data import imagenet

        monkeypatch.setattr(imagenet, "_robustbench", lambda: root / imagenet.SYNTHETIC_LISTS)
    elif id in ("cifar10", "cifar100"):
        from torchvision.datasets import CIFAR10, CIFAR100

        kind = CIFAR10 if id == "cifar10" else CIFAR100
        base = root / kind.base_folder
        for group in ("train_list", "test_list"):
            monkeypatch.setattr(kind, group, [[name, _md5(base / name)] for name, _ in getattr(kind, group)])
        monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": _md5(base / kind.meta["filename"])})
