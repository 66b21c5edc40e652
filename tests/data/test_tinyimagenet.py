"""TinyImageNet's validation images sorted into folders: what lies there, and what lies there twice."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from transferbench import data
from transferbench.base.errors import InputError
from transferbench.data.files import Files
from transferbench.smoke import trees


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """The folder of the validation images, sorted by class."""
    tree = trees.tinyimagenet(tmp_path)
    pictures = tmp_path / "tiny-imagenet-200" / "val" / "images"
    for path, label in tree.tests.items():
        place = pictures / tree.classes[label]
        place.mkdir(exist_ok=True)
        shutil.move(path, place / path.name)
    return pictures


def test_hidden_and_other_files_change_nothing(tmp_path: Path, pictures: Path) -> None:
    before = data.load("tinyimagenet", "test", tmp_path)
    wnid = before.classes[1]
    shutil.copytree(pictures / wnid, pictures / wnid / ".ipynb_checkpoints")
    (pictures / wnid / "._val_1.JPEG").write_bytes(b"x")
    (pictures / wnid / "boxes.txt").write_bytes(b"x")
    after = data.load("tinyimagenet", "test", tmp_path)
    assert torch.equal(after.ids, before.ids)
    assert after.notes == ("left out: .txt 1",)


def test_an_image_in_two_classes_is_refused(tmp_path: Path, pictures: Path) -> None:
    one, other = sorted(path for path in pictures.iterdir() if path.is_dir())[:2]
    name = next(one.iterdir()).name
    shutil.copyfile(one / name, other / name)
    with pytest.raises(InputError, match=rf"has {name} twice, in {one.name} and in {other.name}"):
        data.load("tinyimagenet", "test", tmp_path)


def test_the_first_class_may_have_no_image(tmp_path: Path, pictures: Path) -> None:
    first = data.load("tinyimagenet", "test", tmp_path).classes[0]
    shutil.rmtree(pictures / first)
    test = data.load("tinyimagenet", "test", tmp_path)
    assert test.class_counts()[0] == 0
    assert test.notes == (f"1 of 3 classes have no images (first: {first!r})",)


def test_training_folders_are_listed_by_the_same_rules(tmp_path: Path, pictures: Path) -> None:
    before = [data.load("tinyimagenet", split, tmp_path).fingerprint for split in data.SPLITS[:2]]
    folder = tmp_path / "tiny-imagenet-200" / "train" / "n01443537" / "images"
    shutil.copyfile(next(folder.iterdir()), folder / ".copy.JPEG")
    (folder / "back").symlink_to(folder.parent)
    parts = [data.load("tinyimagenet", split, tmp_path) for split in data.SPLITS[:2]]
    assert [part.fingerprint for part in parts] == before
    assert parts[0].notes == ("left out: link to a folder above it 1",)
    assert all(isinstance(part.images, Files) for part in parts)
