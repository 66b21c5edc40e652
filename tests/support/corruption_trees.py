"""Small trees of corrupted images in the official layouts of CIFAR-10-C, CIFAR-100-C, ImageNet-C and ImageNet-3DCC."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from transferbench.base.corruptions import SEVERITIES, benchmark, of_family
from transferbench.data import cifar_c
from transferbench.smoke import trees

COUNT = 24
"""Images of each severity."""


def register(monkeypatch: pytest.MonkeyPatch, count: int = COUNT) -> None:
    """Until the end of the test, a severity of the official files has so many images."""
    monkeypatch.setattr(cifar_c, "COUNT", count)


def cifar(root: Path, family: str = "cifar10-c", names: Sequence[str] = (), count: int = COUNT) -> Path:
    """CIFAR-C: noise around a colour of the label, stronger with severity; the labels are those of trees.cifar."""
    one = of_family(family)
    folder = root / cifar_c.NEEDS[family][0]
    folder.mkdir(parents=True)
    classes = 10 if family == "cifar10-c" else 100
    labels = np.arange(count) % classes
    for number, name in enumerate(names or one.names):
        rng = np.random.default_rng(number)
        noise = rng.integers(0, 256, (len(SEVERITIES), count, 32, 32, 3))
        strength = np.arange(1, len(SEVERITIES) + 1).reshape(-1, 1, 1, 1, 1) / len(SEVERITIES)
        colour = (labels * 25 % 256).reshape(1, -1, 1, 1, 1)
        images = (colour * (1 - strength) + noise * strength).astype(np.uint8)
        np.save(folder / f"{name}.npy", images.reshape(-1, 32, 32, 3))
    np.save(folder / "labels.npy", np.tile(labels, len(SEVERITIES)))
    return folder


def imagenet(root: Path, threat: str = "corruptions", names: Sequence[str] = ()) -> Path:
    """Corrupted copies, 224x224, of the images that trees.imagenet lists (in root/lists)."""
    one = benchmark(threat, "imagenet")
    folder = root / ("ImageNet-C" if threat == "corruptions" else "ImageNet-3DCC")
    listed = (root / "lists" / "imagenet_test_image_ids.txt").read_text().split()
    for number, name in enumerate(names or one.names):
        for severity in SEVERITIES:
            for place, path in enumerate(listed):
                pixels = np.random.default_rng([number, severity, place]).integers(
                    0, 256, (224, 224, 3), dtype=np.uint8
                )
                file = folder / name / str(severity) / path
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(file)
    return folder


def clean_cifar(root: Path, id: str = "cifar10") -> Path:
    """The clean data set, whose labels are those of `cifar`."""
    return trees.cifar(root, id)
