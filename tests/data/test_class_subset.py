"""Subsets of classes: labels in the order written, the examples' order and ids as in the whole data set."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support import official

from transferbench import data
from transferbench.base.dataset_id import DatasetId
from transferbench.base.errors import InputError
from transferbench.data import SPLITS
from transferbench.data.files import Files
from transferbench.models.catalogue import classes
from transferbench.smoke import trees
from transferbench.training.splits import load_splits


@pytest.mark.parametrize("split", SPLITS)
def test_labels_are_renumbered_in_the_order_written(split: data.Split) -> None:
    whole, part = data.load("letters", split), data.load("letters[Z,0-2,5]", split)
    assert part.classes == ("Z", "A", "B", "C", "F")
    assert part.id == "letters[Z,0-2,5]"
    letters = [whole.classes[label] for label in whole.labels.tolist()]
    kept = [at for at, letter in enumerate(letters) if letter in part.classes]
    assert torch.equal(part.ids, whole.ids[kept])
    assert torch.equal(part.images, whole.images[kept])
    assert [part.classes[label] for label in part.labels.tolist()] == [letters[at] for at in kept]
    assert part.notes == ("labels 0 to 4 are the labels 25,0-2,5 of letters (Z, A, B, C, F)",)
    assert part.fingerprint != whole.fingerprint


def test_what_is_reserved_for_clean_accuracy_stays_reserved() -> None:
    whole, part = data.load("digits", "test"), data.load("digits[3,7]", "test")
    assert whole.attackable == 200
    assert part.attackable == sum(label in (3, 7) for label in whole.labels[:200].tolist())
    assert part.attackable < len(part)
    first = part.first(part.attackable)
    assert set(first.ids.tolist()) <= set(whole.ids[:200].tolist())
    with pytest.raises(InputError, match=rf"data set digits\[3,7\] has {part.attackable} examples to attack"):
        part.first(part.attackable + 1)


@pytest.mark.parametrize(
    ("id", "complaint"),
    [
        (
            "letters[0-26]",
            r"data set letters\[0-26\]: there is no class 26; did you mean 25\? \(the labels are 0 to 25",
        ),
        ("letters[9999999999999-9999999999999999]", "there is no class 9999999999999; did you mean 25"),
        ("letters[a,B]", "unknown class 'a'; did you mean 'A'"),
        ("letters[5-3]", "write 3-5"),
        ("letters[A,0]", r"class 'A' \(label 0\) is named twice"),
        ("letters[0-3,2]", r"class 'C' \(label 2\) is named twice"),
        ("letters[7]", "at least 2 classes"),
    ],
)
def test_wrong_classes_are_one_line(id: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        data.load(id, "test")


def test_a_folders_classes_are_meant_by_their_names_where_these_are_numbers(tmp_path: Path) -> None:
    for name in ("1", "2", "3", "10"):
        for part in ("train", "test"):
            for k in range(4):
                trees.photo(tmp_path / "numbers" / part / name / f"{k}.png", 7 * k + int(name))
    view = data.View("Res36Crop32")
    part = data.load(f"folder:{tmp_path}/numbers[1-2,10]", "test", view=view)
    assert part.classes == ("1", "2", "10")
    assert isinstance(part.images, Files)
    assert [path.parent.name for path in part.images.paths] == [part.classes[k] for k in part.labels.tolist()]
    with pytest.raises(InputError, match=r"no class 0; did you mean 1\? \(the classes are named 1 to 10\)"):
        data.load(f"folder:{tmp_path}/numbers[0,1]", "test", view=view)
    with pytest.raises(InputError, match="no class 4; did you mean 3"):
        data.load(f"folder:{tmp_path}/numbers[1-10]", "test", view=view)


def test_a_folder_whose_own_name_ends_in_brackets_is_written_with_a_slash(tmp_path: Path) -> None:
    for name in ("ant", "bee"):
        trees.photo(tmp_path / "mine[ant,bee]" / name / "0.png", 0)
    with pytest.raises(InputError, match=r"Then write folder:.*\[ant,bee\]/;"):
        data.load(f"folder:{tmp_path}/mine[ant,bee]", "test")
    view = data.View("Res36Crop32")
    assert data.load(f"folder:{tmp_path}/mine[ant,bee]/", "test", view=view).classes == ("ant", "bee")


def test_the_validation_images_are_the_whole_sets_of_these_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trees.cifar(tmp_path, "cifar10")
    official.register(monkeypatch, "cifar10", tmp_path)
    whole = load_splits("cifar10", tmp_path)
    for number, split in enumerate(load_splits("cifar10[airplane,8]", tmp_path)):
        mine = whole[number]
        assert split is not None
        assert mine is not None
        assert torch.equal(split.ids, mine.ids[(mine.labels == 0) | (mine.labels == 8)])
        assert split.classes == ("airplane", "ship")


def test_the_base_decides_what_is_not_about_classes(tmp_path: Path) -> None:
    assert data.are_photographs("imagenet[0-9]")
    assert not data.are_photographs("cifar10[0-9]")
    assert classes.radii_of("cifar10[cat,dog]") == classes.radii_of("cifar10")
    with pytest.raises(InputError, match=r"data set cifar100: .*cifar-100-python missing"):
        data.load("cifar100[0-49]", "test", tmp_path)
    with pytest.raises(InputError, match="cannot be downloaded"):
        data.download("imagenet[0-9]", tmp_path)


def test_a_note_about_missing_classes_is_about_the_subset(tmp_path: Path) -> None:
    root = tmp_path / "gaps"
    for name in ("ant", "bee", "cat"):
        for part in ("train", "test") if name != "cat" else ("train",):
            for k in range(3):
                trees.photo(root / part / name / f"{k}.png", 5 * k)
    view = data.View("Res36Crop32")
    assert "1 of 3 classes have no images (first: 'cat')" in data.load(f"folder:{root}", "test", view=view).notes
    assert not any("no images" in note for note in data.load(f"folder:{root}[ant,bee]", "test", view=view).notes)
    assert (
        "1 of 2 classes have no images (first: 'cat')" in data.load(f"folder:{root}[ant,cat]", "test", view=view).notes
    )
    with pytest.raises(InputError, match="unknown class 'dog'"):
        data.load(f"folder:{root}[cat,dog]", "test", view=view)


@pytest.mark.parametrize("id", ["cifar10", "cifar100"])
def test_a_smoke_runs_tree_has_images_of_every_subset(tmp_path: Path, id: str) -> None:
    many = len(classes.of(id))
    ids = [f"{id}[0-{many // 2 - 1}]", f"{id}[{many // 2}-{many - 1}]", f"{id}[3,{many - 2}]"]
    trees.make(id, tmp_path, [DatasetId.parse(one) for one in ids])
    for one in ids:
        for split in SPLITS:
            assert len(data.load(one, split, tmp_path, data.View(synthetic=True))) >= (4 if split == "test" else 1)
