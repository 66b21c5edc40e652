from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from transferbench import data
from transferbench.base.errors import FaultError, InputError
from transferbench.data import SPLITS, Dataset

SIZES = {"letters": (5000, 500, 500), "digits": (200, 200, 1397)}
CLASSES = {"letters": 26, "digits": 10}


@pytest.mark.parametrize("id", list(SIZES))
def test_the_embedded_sets_have_their_sizes_and_are_disjoint(id: str) -> None:
    parts = [data.load(id, split) for split in SPLITS]
    assert tuple(map(len, parts)) == SIZES[id]
    ids = [set(part.ids.tolist()) for part in parts]
    assert len(set.union(*ids)) == sum(map(len, ids))
    for part in parts:
        assert part.images.shape[1:] == (1, 8, 8)
        assert part.images.dtype == torch.float32
        assert float(part.images.min()) >= 0
        assert float(part.images.max()) == 1
        # Sixteen ink counts per pixel, as in the UCI digits.
        assert torch.equal((part.images * 16).round() / 16, part.images)
        assert len(part.classes) == CLASSES[id]
    assert parts[2].attackable == 200


def test_digits_train_on_twenty_of_each() -> None:
    assert data.load("digits", "train").class_counts() == [20] * 10
    assert data.load("digits", "val").class_counts() == [20] * 10


@pytest.mark.parametrize("id", list(SIZES))
@pytest.mark.parametrize("n", [50, 200])
def test_the_first_n_are_a_fair_sample(id: str, n: int) -> None:
    """No class is far from its share among the first n: a chi-square test that a sorted order would fail."""
    from scipy.stats import chisquare

    test = data.load(id, "test")
    counts, whole = np.array(test.first(n).class_counts()), np.array(test.class_counts())
    assert chisquare(counts, n * whole / whole.sum()).pvalue > 0.001


@pytest.mark.slow
def test_the_embedded_sets_are_the_same_in_another_process() -> None:
    code = "from transferbench import data; print(*(data.load(i, 'test').fingerprint for i in ('letters', 'digits')))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert other == [data.load(id, "test").fingerprint for id in ("letters", "digits")]


def test_more_than_there_is_to_attack_is_refused() -> None:
    with pytest.raises(InputError, match="digits has 200 examples to attack"):
        data.load("digits", "test").first(201)


def test_a_fingerprint_knows_pixels_labels_ids_and_order() -> None:
    digits = data.load("digits", "test").first(20)
    prints = {digits.fingerprint, digits.select(list(range(20))[::-1]).fingerprint}
    changed = digits.images.clone()
    changed[3, 0, 4, 4] += 1 / 16
    prints.add(Dataset("digits", "test", changed, digits.labels, digits.ids, digits.classes).fingerprint)
    prints.add(Dataset("digits", "test", digits.images, digits.labels.flip(0), digits.ids, digits.classes).fingerprint)
    assert len(prints) == 4


def test_a_damaged_set_is_a_fault() -> None:
    good = data.load("digits", "test").first(4)
    with pytest.raises(FaultError, match="not unique"):
        Dataset("d", "test", good.images, good.labels, torch.zeros(4, dtype=torch.int64), good.classes)
    with pytest.raises(FaultError, match="outside"):
        Dataset("d", "test", good.images, good.labels + 10, good.ids, good.classes)


def make_folder(root: Path, splits: tuple[str, ...] = ("train", "test"), per_class: int = 12) -> Path:
    rng = np.random.default_rng(0)
    for split in splits:
        for name in ("cat", "ant", "bee"):
            (root / split / name).mkdir(parents=True)
            for place in range(per_class):
                pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{place:03d}.png")
    return root


def test_a_folder_is_read_in_hashed_order_with_sorted_classes(tmp_path: Path) -> None:
    make_folder(tmp_path)
    test = data.load(f"folder:{tmp_path}", "test")
    assert test.classes == ("ant", "bee", "cat")
    assert test.class_counts() == [12, 12, 12]
    assert test.labels.tolist() != sorted(test.labels.tolist())
    assert min(test.first(18).class_counts()) >= 2
    only = data.load(f"folder:{tmp_path / 'test'}", "test")
    assert torch.equal(only.pixels, test.pixels)
    assert torch.equal(only.ids, test.ids)


def test_grey_and_palette_images_become_rgb(tmp_path: Path) -> None:
    make_folder(tmp_path, ("test",), 2)
    for mode, name in (("L", "g.png"), ("P", "p.png"), ("CMYK", "c.jpg")):
        Image.new(mode, (8, 8)).save(tmp_path / "test" / "ant" / name)
    assert data.load(f"folder:{tmp_path}", "test").shape == (3, 8, 8)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda root: (root / "test" / "ant" / "000.png").write_bytes(b"<html>"), r"000\.png: not readable"),
        (lambda root: [path.unlink() for path in (root / "test").glob("*/*")], "3 of 3 classes have no images"),
        (lambda root: Image.new("RGB", (9, 9)).save(root / "test" / "cat" / "x.png"), "differ in size"),
        (lambda root: (root / "test").rename(root / "tset"), "test needs the folder"),
    ],
)
def test_a_broken_folder_is_named(tmp_path: Path, damage: object, complaint: str) -> None:
    make_folder(tmp_path)
    damage(tmp_path)  # type: ignore[operator]
    with pytest.raises(InputError, match=complaint):
        data.load(f"folder:{tmp_path}", "test")


def test_cifar10_without_its_files_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cifar-10-batches-py missing .*expected there"):
        data.load("cifar10", "test", tmp_path)
    place = tmp_path / "cifar-10-batches-py"
    place.mkdir()
    (place / "test_batch").write_bytes(pickle.dumps({"data": np.zeros((1, 3072))}))
    with pytest.raises(InputError, match="differ from the official ones"):
        data.load("cifar10", "test", tmp_path)
