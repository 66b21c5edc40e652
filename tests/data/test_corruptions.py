"""CIFAR-C, ImageNet-C and ImageNet-3DCC against RobustBench's own loaders, on trees in the official layouts."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support import corruption_trees, official

from transferbench import data
from transferbench.base import corruptions
from transferbench.base.corruptions import BENCHMARKS, SEVERITIES
from transferbench.base.errors import InputError
from transferbench.data import cifar_c, downloads, imagenet_c
from transferbench.models.catalogue import classes
from transferbench.models.loaders import robustbench_package
from transferbench.smoke import trees
from transferbench.workflows import catalogue


@pytest.fixture(scope="module")
def theirs() -> object:
    """RobustBench's module of data."""
    robustbench_package.model_dicts()
    from robustbench import data as module

    return module


def test_the_benchmarks_are_robustbenchs(theirs: object) -> None:
    names = {
        (dataset.value, threat.value): names
        for dataset, threats in theirs.CORRUPTIONS_DICT.items()  # type: ignore[attr-defined]
        for threat, names in threats.items()
    }
    assert {(one.dataset, one.threat): one.names for one in BENCHMARKS} == names
    folders = theirs.CORRUPTIONS_DIR_NAMES  # type: ignore[attr-defined]
    needs = {**cifar_c.NEEDS, **imagenet_c.NEEDS}
    for one in BENCHMARKS:
        mine = {(d.value, t.value): folder for d, threats in folders.items() for t, folder in threats.items()}
        assert needs[one.family] == (mine[one.dataset, one.threat],)
    links = {d.value: link for d, link in theirs.ZENODO_CORRUPTIONS_LINKS.items()}  # type: ignore[attr-defined]
    for family, (url, _) in cifar_c.ARCHIVES.items():
        record, (name,) = links[corruptions.of_family(family).dataset]
        assert url == f"https://zenodo.org/records/{record}/files/{name}"


@pytest.mark.parametrize("family", ["cifar10-c", "cifar100-c"])
def test_images_and_labels_are_those_of_robustbenchs_loader(family: str, tmp_path: Path, theirs: object) -> None:
    folder, n = tmp_path / cifar_c.NEEDS[family][0], 5
    folder.mkdir()
    rng = np.random.default_rng(0)
    # The official size, of which a file system stores what is not zero.
    images = np.lib.format.open_memmap(folder / "fog.npy", mode="w+", dtype=np.uint8, shape=(50_000, 32, 32, 3))
    for severity in SEVERITIES:
        images[(severity - 1) * 10_000 : (severity - 1) * 10_000 + n] = rng.integers(0, 256, (n, 32, 32, 3))
    images.flush()
    np.save(folder / "labels.npy", np.tile(rng.integers(0, 10, 10_000), 5))
    load = getattr(theirs, f"load_{family.replace('-', '')}")
    for severity in (2, 5):
        x, y = load(n, severity, str(tmp_path), False, ["fog"])
        mine = data.load(f"{family}:fog:{severity}", "test", tmp_path)
        assert len(mine) == 10_000
        part = mine.first(n)
        assert torch.equal(part.pixels, x)
        assert torch.equal(part.labels, y)
        assert part.ids.tolist() == list(range(n))
        assert part.classes == classes.of(corruptions.of_family(family).dataset)


@pytest.mark.parametrize("threat", ["corruptions", "corruptions_3d"])
def test_imagenets_are_those_of_robustbenchs_loader(threat: str, tmp_path: Path, theirs: object) -> None:
    one = corruptions.benchmark(threat, "imagenet")
    name, n = one.names[0], 4
    base = tmp_path / imagenet_c.NEEDS[one.family][0] / name / "3"
    rows, wnids = data.imagenet_c.imagenet.attacked(tmp_path, data.View())
    for wnid in wnids:
        (base / wnid).mkdir(parents=True)
    same = tmp_path / "same.JPEG"
    Image.new("RGB", (224, 224)).save(same)
    for place, row in enumerate(rows):
        if place < n:
            pixels = np.random.default_rng(place).integers(0, 256, (224, 224, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(base / row.path)
        else:
            os.link(same, base / row.path)
    load = theirs.load_imagenetc if threat == "corruptions" else theirs.load_imagenet3dcc  # type: ignore[attr-defined]
    x, y = load(n, 3, str(tmp_path), False, [name], theirs.PREPROCESSINGS["Res224"])  # type: ignore[attr-defined]
    mine = data.load(f"{one.family}:{name}:3", "test", tmp_path)
    assert len(mine) == 5000
    assert mine.preprocessing == "Res224"
    part = mine.first(n)
    assert torch.equal(part.pixels, x)
    assert torch.equal(part.labels, y)


def test_a_subset_is_taken_behind_the_severity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corruption_trees.cifar(tmp_path, names=["fog"])
    corruption_trees.register(monkeypatch)
    part = data.load("cifar10-c:fog:2[ship,0]", "test", tmp_path)
    assert part.classes == ("ship", "airplane")
    assert part.ids.tolist() == [0, 8, 10, 18, 20]
    assert part.labels.tolist() == [1, 0, 1, 0, 1]


@pytest.mark.parametrize(
    ("id", "complaint"),
    [
        ("cifar10-c", "write it as cifar10-c:<corruption>:<severity>"),
        ("cifar10-c:fog", "write it as"),
        ("cifar10-c:fogg:3", "unknown corruption 'fogg'; did you mean 'fog'"),
        ("cifar10-c:fog:0", "severity '0' is none of 1, 2, 3, 4, 5"),
        ("cifar10-c:fog:03", "severity '03' is none"),
        ("cifar10-c:near_focus:3", "unknown corruption 'near_focus'"),
        ("imagenet-3dcc:fog:3", "did you mean 'fog_3d'"),
    ],
)
def test_wrong_ids_are_one_line(id: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        data.load(id, "test")


def test_what_is_missing_or_damaged_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"CIFAR-10-C/fog\.npy, .*labels\.npy missing .*zenodo\.org/records/2535967"):
        data.load("cifar10-c:fog:3", "test", tmp_path)
    with pytest.raises(InputError, match=r"ImageNet-3DCC/flash/2 missing .*3DCommonCorruptions"):
        data.load("imagenet-3dcc:flash:2", "test", tmp_path)
    folder = corruption_trees.cifar(tmp_path, names=["fog", "snow", "frost"])
    with pytest.raises(InputError, match=r"labels.npy holds int64 \(120,\), not 50000 labels"):
        data.load("cifar10-c:fog:3", "test", tmp_path)
    corruption_trees.register(monkeypatch)
    assert len(data.load("cifar10-c:fog:3", "test", tmp_path)) == corruption_trees.COUNT
    with pytest.raises(InputError, match="test images alone; train on those of cifar10"):
        data.load("cifar10-c:fog:3", "train", tmp_path)
    np.save(folder / "snow.npy", np.zeros((120, 32, 32, 3), dtype=np.float32))
    with pytest.raises(InputError, match=r"snow\.npy holds float32"):
        data.load("cifar10-c:snow:3", "test", tmp_path)
    header = b"\x93NUMPY\x01\x00\x76\x00"
    shapes = [
        b"{'descr': '|u1', 'fortran_order': False, 'shape': %s, }" % text for text in (b"(-1, 4)", b"(9" + b"9" * 30)
    ]
    for content in (b"\x93NUMPY", header + b"((((".ljust(118), *(header + shape.ljust(118) for shape in shapes)):
        (folder / "frost.npy").write_bytes(content)
        with pytest.raises(InputError, match=r"frost\.npy is no array of numbers"):
            data.load("cifar10-c:frost:3", "test", tmp_path)
    np.savez(folder / "frost", x=np.zeros(3))
    (folder / "frost.npz").rename(folder / "frost.npy")
    with pytest.raises(InputError, match=r"frost\.npy is no array of numbers"):
        data.load("cifar10-c:frost:3", "test", tmp_path)
    labels = np.load(folder / "labels.npy")
    labels[-1] = (labels[-1] + 1) % 10
    np.save(folder / "labels.npy", labels)
    with pytest.raises(InputError, match="labels of the five severities differ"):
        data.load("cifar10-c:fog:3", "test", tmp_path)


def test_imagenet_c_on_a_small_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = trees.imagenet(tmp_path)
    official.register(monkeypatch, "imagenet", tmp_path)
    corruption_trees.imagenet(tmp_path, names=["fog"])
    clean = data.load("imagenet", "test", tmp_path)
    mine = data.load("imagenet-c:fog:5", "test", tmp_path)
    assert torch.equal(mine.ids, clean.ids), "an image has one id, whatever its corruption"
    assert torch.equal(mine.labels, clean.labels)
    assert mine.shape == (3, 224, 224)
    assert mine.classes == tree.classes


def test_the_archive_is_downloaded_checked_and_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = corruption_trees.cifar(tmp_path / "made", names=["fog"])
    archive = tmp_path / "CIFAR-10-C.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(folder, "CIFAR-10-C")
    md5 = hashlib.md5(archive.read_bytes()).hexdigest()
    corruption_trees.register(monkeypatch)
    monkeypatch.setitem(cifar_c.ARCHIVES, "cifar10-c", (archive.as_uri(), "0" * 32))
    with pytest.raises(InputError, match=f"its md5 is {md5}, expected 0000"):
        data.download("cifar10-c:fog:1", tmp_path / "data")
    assert not (tmp_path / "data" / "CIFAR-10-C").exists()
    monkeypatch.setitem(cifar_c.ARCHIVES, "cifar10-c", (archive.as_uri(), md5))
    data.download("cifar10-c:fog:1[0-4]", tmp_path / "data")
    assert len(data.load("cifar10-c:fog:1", "test", tmp_path / "data")) == corruption_trees.COUNT
    monkeypatch.setattr(downloads, "fetch_archive", lambda *_: pytest.fail("it is there"))
    data.download("cifar10-c", tmp_path / "data")
    with pytest.raises(InputError, match="imagenet-c: it cannot be downloaded"):
        data.download("imagenet-c", tmp_path / "data")


def test_list_datasets_says_what_is_there(tmp_path: Path) -> None:
    corruption_trees.cifar(tmp_path, names=["fog"])
    lines = catalogue.lines("datasets", tmp_path)
    assert lines["cifar10-c"].startswith("present  cifar10-c:<corruption>:<severity>")
    assert lines["imagenet-c"].startswith("missing")
    shutil.rmtree(tmp_path / "CIFAR-10-C")
    assert catalogue.lines("datasets", tmp_path)["cifar10-c"].startswith("missing")
