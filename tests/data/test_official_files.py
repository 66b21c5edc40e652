"""Every data set that has files, on small trees in its official layout, whole and broken."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support import official

from transferbench import data
from transferbench.base import registry
from transferbench.base.corruptions import BENCHMARKS
from transferbench.base.errors import InputError
from transferbench.data import View, downloads, image_copies
from transferbench.data.files import Files
from transferbench.data.overlap import without
from transferbench.data.preprocessing import Preprocessing
from transferbench.smoke import trees
from transferbench.smoke.trees import MAKERS, Tree
from transferbench.training.splits import load_splits

VIEW = View("Res36Crop32")


@pytest.fixture(params=sorted(MAKERS))
def tree(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    tree = MAKERS[request.param](tmp_path)
    official.register(monkeypatch, request.param, tmp_path)
    return tree


def paths(dataset: data.Dataset) -> list[Path]:
    assert isinstance(dataset.images, Files)
    return dataset.images.paths


def test_every_data_set_with_files_has_a_tree() -> None:
    with_files = {id for id, entry in registry.entries("data").items() if registry.literal(entry, "NEEDS").get(id)}
    corrupted = {one.family for one in BENCHMARKS}
    assert with_files == set(MAKERS) - {"folder"} | {"cifar10", "cifar100"} | corrupted


def test_labels_splits_and_order_are_the_official_ones(tree: Tree) -> None:
    test = data.load(tree.id, "test", tree.root, VIEW)
    assert dict(zip(paths(test), test.labels.tolist(), strict=True)) == tree.tests
    assert test.classes == tree.classes
    parts = [data.load(tree.id, split, tree.root, VIEW) for split in ("train", "val")]
    assert sum(map(len, parts)) == tree.trained
    assert min(parts[1].class_counts()) >= 1
    assert not set(paths(parts[0])) & set(paths(parts[1]))
    assert not {path for part in parts for path in paths(part)} & set(tree.tests)
    contents = [{hashlib.sha256(path.read_bytes()).digest() for path in paths(part)} for part in (*parts, test)]
    assert not contents[1] & contents[2], "no validation image is a test image, by content"
    again = data.load(tree.id, "test", tree.root, VIEW)
    assert torch.equal(again.ids, test.ids)
    assert again.fingerprint == test.fingerprint


def test_order_is_that_of_the_hashed_paths(tree: Tree) -> None:
    test = data.load(tree.id, "test", tree.root, VIEW)
    if tree.id == "imagenet":
        listed = (tree.root / "lists" / "imagenet_test_image_ids.txt").read_text().split()
        assert [path.relative_to(tree.root / "imagenet" / "val").as_posix() for path in paths(test)] == listed
        return
    ids = test.ids.tolist()
    assert ids == sorted(ids), "ids are the first bits of the hashes that the order is made of"
    assert len(set(ids)) == len(ids)


def test_pixels_come_when_asked_for_and_in_the_victims_size(tree: Tree) -> None:
    test = data.load(tree.id, "test", tree.root, VIEW)
    # TinyImageNet has one small size: it is what it is, and resized inside a network.
    side = 64 if tree.id == "tinyimagenet" else 32
    assert test.shape == (3, side, side)
    shard = test.first(4).on("cpu")
    assert shard.pixels.shape == (4, 3, side, side)
    assert shard.pixels.dtype == torch.float32
    assert 0 <= float(shard.pixels.min()) <= float(shard.pixels.max()) <= 1
    wanted = test.images.preprocessing(Image.open(paths(test)[2]).convert("RGB"))  # type: ignore[union-attr]
    assert torch.equal(shard.pixels[2], wanted)
    assert [len(part) for part in test.batches(3)][:2] == [3, 3]


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_what_is_missing_is_listed_with_what_is_expected(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = MAKERS[name](tmp_path)
    official.register(monkeypatch, name, tmp_path)
    if name == "folder":
        with pytest.raises(InputError, match="no folder"):
            data.load("folder:nowhere", "test", tmp_path)
        return
    needs = registry.literal(registry.find("data", name), "NEEDS")[name]
    for needed in needs:
        victim = tree.root / needed
        victim.rename(tree.root / "elsewhere")
        splits = ("test", "train")
        complaints = []
        for split in splits:
            try:
                data.load(name, split, tree.root, VIEW)
            except InputError as error:
                complaints.append(str(error))
        (tree.root / "elsewhere").rename(victim)
        assert complaints, needed
        for text in complaints:
            assert str(victim) in text
            assert needed in text.split("expected there:")[1]
            assert "http" in text
    with pytest.raises(InputError, match=f"data set {name}: .* missing"):
        data.load(name, "test", tmp_path / "empty")


def test_an_unreadable_image_is_named(tree: Tree) -> None:
    path = next(iter(tree.tests))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match=f"{path.name}: not readable"):
        data.load(tree.id, "test", tree.root, VIEW).on("cpu")
    path.write_bytes(b"<html>")
    with pytest.raises(InputError, match=f"{path.name}: not readable"):
        data.load(tree.id, "test", tree.root, VIEW)


def test_a_listed_image_that_is_missing_is_refused_and_a_class_without_test_images_is_said(tree: Tree) -> None:
    label = tree.tests[next(iter(tree.tests))]
    mine = [path for path, own in tree.tests.items() if own == label]
    by_listing = tree.id in ("tinyimagenet", *image_copies.IDS) or tree.id.startswith("folder:")
    if not by_listing:
        # Not the last of its folder: Caltech counts the files of a class.
        mine[0].unlink()
        with pytest.raises(InputError, match=rf"1 listed images are missing \(first: .*{mine[0].name}"):
            data.load(tree.id, "test", tree.root, VIEW)
        return
    for path in mine:
        path.unlink()
    if tree.id == "tinyimagenet":
        annotations = tree.root / "tiny-imagenet-200" / "val" / "val_annotations.txt"
        gone = {path.name for path in mine}
        kept = [line for line in annotations.read_text().splitlines() if line.split("\t")[0] not in gone]
        annotations.write_text("\n".join(kept) + "\n")
    test = data.load(tree.id, "test", tree.root, VIEW)
    assert test.classes == tree.classes
    assert test.class_counts()[label] == 0
    assert test.notes == (f"1 of {len(tree.classes)} classes have no images (first: {tree.classes[label]!r})",)


def test_a_class_without_training_images_is_refused(tree: Tree) -> None:
    train, val = (data.load(tree.id, split, tree.root, VIEW) for split in ("train", "val"))
    label = 1
    for part in (train, val):
        for path, own in zip(paths(part), part.labels.tolist(), strict=True):
            if own == label:
                path.unlink()
    with pytest.raises(InputError, match=r"no images \(first: |listed images are missing|no more than the 4 images"):
        data.load(tree.id, "train", tree.root, VIEW)


def saved(mode: str) -> Callable[[Path], None]:
    """A file of that kind at a path, whatever the path's suffix says, all pixels at half of white."""

    def save(path: Path) -> None:
        side = 64
        if mode == "I;16":
            deep = np.full((side, side), 32_896, dtype=np.uint16)
            Image.fromarray(deep).save(path, format="PNG")
            return
        colours = {"L": 128, "P": 128, "RGBA": (128, 128, 128, 255), "CMYK": (127, 127, 127, 0)}
        image = Image.new(mode, (side, side), colours[mode])
        if mode == "P":
            image.putpalette([value for value in range(256) for _ in range(3)])
        image.save(path, format="JPEG" if mode == "CMYK" else "PNG")

    return save


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "I;16"])
def test_every_kind_of_image_becomes_the_same_grey(tree: Tree, mode: str) -> None:
    test = data.load(tree.id, "test", tree.root, VIEW)
    saved(mode)(paths(test)[0])
    pixels = data.load(tree.id, "test", tree.root, VIEW).select([0]).pixels
    assert pixels.shape[1] == 3
    assert float((pixels - 128 / 255).abs().max()) < 0.02


def test_pixels_of_unknown_scale_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.ones((4, 4), dtype=np.float32)).save(tmp_path / "x.tiff")
    with pytest.raises(InputError, match="floating-point"):
        _ = Files([tmp_path / "x.tiff"], Preprocessing.parse(""))[torch.tensor([0])]


def test_tinyimagenet_is_the_same_in_both_layouts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trees.tinyimagenet(tmp_path)
    published = data.load("tinyimagenet", "test", tmp_path)
    folder = tmp_path / "tiny-imagenet-200" / "val" / "images"
    for path, label in zip(paths(published), published.labels.tolist(), strict=True):
        place = folder / published.classes[label]
        place.mkdir(exist_ok=True)
        shutil.move(path, place / path.name)
    arranged = data.load("tinyimagenet", "test", tmp_path)
    assert torch.equal(arranged.ids, published.ids)
    assert torch.equal(arranged.labels, published.labels)
    assert [path.name for path in paths(arranged)] == [path.name for path in paths(published)]


def test_a_changed_official_file_is_told_by_its_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = trees.flowers102(tmp_path)
    official.register(monkeypatch, "flowers102", tmp_path)
    with tree.lists[1].open("ab") as file:
        file.write(b"x")
    with pytest.raises(InputError, match="another hash"):
        data.load("flowers102", "test", tmp_path)
    base = trees.cifar(tmp_path, "cifar10")
    official.register(monkeypatch, "cifar10", tmp_path)
    assert len(data.load("cifar10", "test", tmp_path)) == 600
    with (base / "test_batch").open("ab") as file:
        file.write(b"x")
    with pytest.raises(InputError, match="differ from the official ones"):
        data.load("cifar10", "test", tmp_path)


@pytest.mark.parametrize("id", ["cifar10", "cifar100"])
def test_cifar_keeps_the_published_order_and_cuts_2000(
    id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trees.cifar(tmp_path, id)
    official.register(monkeypatch, id, tmp_path)
    parts = {split: data.load(id, split, tmp_path) for split in data.SPLITS}
    assert parts["test"].ids.tolist() == list(range(len(parts["test"])))
    assert parts["test"].labels[:12].tolist() == [k % len(parts["test"].classes) for k in range(12)]
    assert len(parts["val"]) == 2000
    assert len(parts["train"]) == 1000
    assert not set(parts["val"].ids.tolist()) & set(parts["train"].ids.tolist())
    assert parts["train"].augment == "crop-flip"


def test_files_of_the_networks_own_size_are_left_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "test" / name).mkdir(parents=True)
        for k in range(3):
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(
                tmp_path / "test" / name / f"{k}.png"
            )
    plain = data.load(f"folder:{tmp_path}", "test")
    same = data.load(f"folder:{tmp_path}", "test", None, View("", 32))
    assert same.preprocessing == ""
    assert torch.equal(same.pixels, plain.pixels)
    assert same.fingerprint == plain.fingerprint
    other = data.load(f"folder:{tmp_path}", "test", None, View("", 28))
    assert other.preprocessing == "Res32Crop28"
    assert other.shape == (3, 28, 28)
    assert other.fingerprint != plain.fingerprint


# Training pipelines
def test_crops_and_flips_are_keyed_windows_of_the_padded_image() -> None:
    x = torch.rand(40, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    from transferbench.data.augment import crop_flip

    keys = torch.arange(40) * 7919
    got = crop_flip(x, keys)
    assert torch.equal(crop_flip(x[5:9], keys[5:9]), got[5:9]), "an image's draw is its key's alone"
    assert not torch.equal(crop_flip(x, keys + 1), got)
    padded = torch.nn.functional.pad(x, (1, 1, 1, 1))
    seen = set()
    for image, whole in zip(got, padded, strict=True):
        windows = {
            (top, left, flip): whole[:, top : top + 8, left : left + 8].flip(2 if flip else ())
            for top in range(3)
            for left in range(3)
            for flip in (False, True)
        }
        found = [place for place, window in windows.items() if torch.equal(window, image)]
        assert len(found) == 1
        seen.update(found)
    assert len(seen) > 12, "all offsets and both directions are drawn"


def test_resized_crops_are_keyed_and_within_torchvisions_bounds(tmp_path: Path) -> None:
    from transferbench.data.preprocessing import resized_crop

    for seed in range(300):
        left, top, right, bottom = resized_crop((60, 40), np.random.default_rng(seed))
        assert 0 <= left < right <= 60
        assert 0 <= top < bottom <= 40
        width, height = right - left, bottom - top
        assert 0.05 < width * height / 2400 <= 1
        assert 0.6 < width / height < 1.6
    path = trees.photo(tmp_path / "x.png", 3)
    files = Files([path, path], Preprocessing.parse("Res36Crop32"))
    at = torch.tensor([0, 1])
    one, two = files.augmented(at, torch.tensor([5, 6]))
    assert one.shape == (3, 32, 32)
    assert not torch.equal(one, two)
    assert torch.equal(files.augmented(at, torch.tensor([6, 5]))[0], two)


def test_shots_are_k_of_each_class_by_the_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trees.cub200(tmp_path)
    train = data.load("cub200", "train", tmp_path, VIEW)
    few = train.shots(3, 98)
    assert few.class_counts() == [3, 3, 3]
    assert set(few.ids.tolist()) <= set(train.ids.tolist())
    assert torch.equal(train.shots(3, 98).ids, few.ids)
    assert not torch.equal(train.shots(3, 99).ids, few.ids)
    with pytest.raises(InputError, match="between 1 and"):
        train.shots(100, 98)


def test_validation_images_that_are_test_images_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = trees.folder(tmp_path)
    val = data.load(tree.id, "val", tmp_path, VIEW)
    test = next(iter(tree.tests))
    shutil.copyfile(test, paths(val)[1])
    left = load_splits(tree.id, tmp_path, VIEW)[1]
    assert paths(left) == [path for place, path in enumerate(paths(val)) if place != 1]
    digits = data.load("digits", "val")
    assert without(digits, digits.select([4, 7])).ids.tolist() == [
        id for place, id in enumerate(digits.ids.tolist()) if place not in (4, 7)
    ]


def test_a_folder_with_train_and_val_alone_is_tested_on_val(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = trees.folder(tmp_path)
    (tmp_path / "mine" / "test").rename(tmp_path / "mine" / "val")
    test = data.load(tree.id, "test", tmp_path, VIEW)
    assert {path.parent.parent.name for path in paths(test)} == {"val"}
    val = data.load(tree.id, "val", tmp_path, VIEW)
    assert {path.parent.parent.name for path in paths(val)} == {"train"}
    shutil.rmtree(tmp_path / "mine" / "train")
    with pytest.raises(InputError, match=r"needs the folder .*train"):
        data.load(tree.id, "train", tmp_path, VIEW)
    assert len(data.load(tree.id, "test", tmp_path, VIEW)) == len(test), "only the split asked for needs to exist"


# Downloads
def archive(tmp_path: Path) -> tuple[str, str]:
    (tmp_path / "made" / "things").mkdir(parents=True)
    (tmp_path / "made" / "things" / "a.txt").write_text("a")
    path = Path(shutil.make_archive(str(tmp_path / "things"), "gztar", tmp_path / "made"))
    return path.as_uri(), hashlib.md5(path.read_bytes()).hexdigest()


def test_a_download_is_unpacked_and_moved(tmp_path: Path) -> None:
    url, md5 = archive(tmp_path)
    downloads.fetch_archive(url, md5, tmp_path / "data", "things")
    assert [path.relative_to(tmp_path / "data").as_posix() for path in (tmp_path / "data").rglob("*")] == [
        "things",
        "things/a.txt",
    ]
    downloads.fetch_file(url, md5, tmp_path / "data" / "again.tar.gz")
    assert (tmp_path / "data" / "again.tar.gz").is_file()


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        ("hash", "its md5 is [0-9a-f]{32}, expected 0{32}"),
        ("holds", "holds no others"),
        ("url", "failed"),
        ("archive", "cannot be unpacked"),
    ],
)
def test_a_failed_download_leaves_nothing(tmp_path: Path, damage: str, complaint: str) -> None:
    url, md5 = archive(tmp_path)
    holds = "others" if damage == "holds" else "things"
    if damage == "hash":
        md5 = "0" * 32
    if damage == "url":
        url = (tmp_path / "nowhere.tar.gz").as_uri()
    if damage == "archive":
        path = tmp_path / "things.tar.gz"
        path.write_bytes(path.read_bytes()[:60])
        md5 = hashlib.md5(path.read_bytes()).hexdigest()
    with pytest.raises(InputError, match=complaint):
        downloads.fetch_archive(url, md5, tmp_path / "data", holds)
    assert not (tmp_path / "data").exists()
    assert not list(tmp_path.glob(".download-*"))


def test_what_cannot_be_downloaded_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be downloaded"):
        data.download("imagenet", tmp_path)
