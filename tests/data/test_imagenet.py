"""ImageNet with RobustBench's list of 5000 validation images, as it is shipped."""

from __future__ import annotations

import json
import os
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

from transferbench import data
from transferbench.base.errors import InputError
from transferbench.cli.main import main
from transferbench.data import View
from transferbench.models.catalogue import classes

MISSING = 3
"""Classes that have no image on the list."""


def names() -> list[str]:
    spec = find_spec("robustbench")
    assert spec is not None
    assert spec.origin is not None
    return (Path(spec.origin).parent / "helper_files" / "imagenet_test_image_ids.txt").read_text().split()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of data sets with an image under each of the 5000 names: hard links to two files."""
    root = tmp_path_factory.mktemp("data")
    pictures = []
    for level in (0, 200):
        pictures.append(root / f"{level}.png")
        Image.new("RGB", (8, 6), (level, level, level)).save(pictures[-1])
    for number, name in enumerate(names()):
        path = root / "imagenet" / "val" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(pictures[number % 2], path)
    return root


def test_the_shipped_list_is_read_whole_in_its_order(root: Path) -> None:
    test = data.load("imagenet", "test", root, View("Res256Crop224"))
    assert isinstance(test.images, data.files.Files)
    assert [path.relative_to(root / "imagenet" / "val").as_posix() for path in test.images.paths] == names()
    assert len(test) == 5000
    assert test.classes == classes.of("imagenet")
    counts = test.class_counts()
    assert counts.count(0) == MISSING
    for name, label in zip(names(), test.labels.tolist(), strict=True):
        assert test.classes[label] == name.partition("/")[0]
    assert test.notes == (f"3 of 1000 classes have no images (first: {test.classes[counts.index(0)]!r})",)


def test_a_network_of_another_side_gets_its_own(root: Path) -> None:
    assert data.load("imagenet", "test", root).shape == (3, 224, 224)
    assert data.load("imagenet", "test", root, View("", 224)).preprocessing == "Res256Crop224"
    assert data.load("imagenet", "test", root, View("", 160)).shape == (3, 160, 160)


def test_a_listed_image_that_is_missing_is_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "imagenet").mkdir()
    (tmp_path / "imagenet" / "val").symlink_to(root / "imagenet" / "val")
    assert len(data.load("imagenet", "test", tmp_path)) == 5000
    (tmp_path / "imagenet" / "val").unlink()
    (tmp_path / "imagenet" / "val").mkdir()
    with pytest.raises(InputError, match="5000 listed images are missing"):
        data.load("imagenet", "test", tmp_path)


def test_training_images_of_every_class_are_needed(root: Path, tmp_path: Path) -> None:
    for wnid in classes.of("imagenet")[1:]:
        (tmp_path / "imagenet" / "train" / wnid).mkdir(parents=True)
        for k in range(2):
            os.link(root / "0.png", tmp_path / "imagenet" / "train" / wnid / f"{wnid}_{k}.JPEG")
    with pytest.raises(InputError, match=r"n01440764: .*No such file"):
        data.load("imagenet", "train", tmp_path)
    (tmp_path / "imagenet" / "train" / "n01440764").mkdir()
    with pytest.raises(InputError, match=r"split train: 1 of 1000 classes have no images \(first: 'n01440764'\)"):
        data.load("imagenet", "train", tmp_path)


MODEL = """
import torch
from torch import nn

class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 1000)
    def forward(self, x):
        return self.head(x.mean((2, 3)))

def make():
    torch.manual_seed(0)
    return Small().eval()
make.input_shape, make.classes, make.fingerprint = (3, 224, 224), 1000, "1"
"""


def test_eval_runs_on_the_shipped_list(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "small_imagenet_net.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    words = ["eval", "--model", "python:small_imagenet_net:make", "--dataset", "imagenet", "--data-dir", str(root)]
    words += ["--norms", "Linf", "--eps", "Linf=4/255", "--attacks", "fgsm", "--n", "5", "--out", "out"]
    assert main([*words, "--allow-low-accuracy"]) == 0
    assert "imagenet test: 3 of 1000 classes have no images" in " ".join(capsys.readouterr().err.split())
    record = json.loads(next((tmp_path / "out" / "records").glob("*.json")).read_text())
    assert (record["n"], len(record["class_counts"])) == (5, 1000)
