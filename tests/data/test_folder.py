"""`folder:<path>`: classes, splits, what is left out, end to end through `eval`."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from transferbench import data
from transferbench.base.errors import InputError
from transferbench.cli.main import main
from transferbench.data import Dataset


def image(path: Path, level: int = 0, size: tuple[int, int] = (4, 4)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (level, level, level)).save(path)


def loaded(folder: Path) -> Dataset:
    return data.load(f"folder:{folder}", "test")


MODEL = """
import torch
from torch import nn

class ByLevel(nn.Module):
    '''Right on every folder by its number: the image of class k has the grey level 20 k.'''
    def __init__(self):
        super().__init__()
        self.levels = nn.Parameter(torch.arange(12.0) * 20 / 255)
    def forward(self, x):
        return -40 * (x.mean((1, 2, 3))[:, None] - self.levels) ** 2

def make():
    return ByLevel().eval()
make.input_shape, make.classes, make.fingerprint = (3, 4, 4), 12, "1"
"""


@pytest.mark.parametrize("width", [1, 3])
def test_a_model_that_is_right_by_number_is_right_on_folders_that_are_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int
) -> None:
    for k in range(12):
        for copy in range(2):
            image(tmp_path / "mine" / f"{k:0{width}d}" / f"{copy}.png", 20 * k)
    (tmp_path / "mine" / "0".zfill(width) / "notes.txt").write_text("x")
    (tmp_path / f"by_level{width}.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    words = ["eval", "--model", f"python:by_level{width}:make", "--dataset", "folder:mine", "--norms", "Linf"]
    assert main([*words, "--eps", "Linf=1/255", "--attacks", "fgsm", "--out", "out", "--n", "24"]) == 0
    notes = ["left out: .txt 1"]
    if width == 1:
        notes.insert(0, "class names are numbers, labels follow their values: 0, 1, 2, ..., 11")
    printed = " ".join(capsys.readouterr().err.split())
    for note in notes:
        assert printed.count(f"folder:mine test: {note}") == 1
    record = json.loads(next((tmp_path / "out" / "records").glob("*.json")).read_text())
    assert record["data_notes"] == notes
    assert record["clean"]["hex"] == "ffffff"


def test_classes_are_those_of_train_also_where_another_split_lacks_some(tmp_path: Path) -> None:
    for name in ("ant", "bee", "cat"):
        for k in range(3):
            image(tmp_path / "train" / name / f"{k}.png")
    image(tmp_path / "test" / "cat" / "x.png")
    assert loaded(tmp_path).classes == ("ant", "bee", "cat")
    assert loaded(tmp_path).labels.tolist() == [2]
    assert loaded(tmp_path).notes == ("2 of 3 classes have no images (first: 'ant')",)
    image(tmp_path / "test" / "dog" / "x.png")
    with pytest.raises(InputError, match=r"test/dog is no class folder of .*train"):
        loaded(tmp_path)


def test_spellings_of_one_class_meet_across_splits_and_systems(tmp_path: Path) -> None:
    spellings = {form: unicodedata.normalize(form, "café") for form in ("NFC", "NFD")}
    for root, train, own in (("a", "NFC", "NFD"), ("b", "NFD", "NFC")):
        for k in range(3):
            image(tmp_path / root / "train" / spellings[train] / f"{k}.png")
            image(tmp_path / root / "train" / "tea" / f"{k}.png")
            image(tmp_path / root / "test" / spellings[own] / f"{k}.png", k)
            image(tmp_path / root / "test" / "tea" / f"{k}.png", 10 + k)
    one, other = loaded(tmp_path / "a"), loaded(tmp_path / "b")
    assert one.classes == other.classes == (spellings["NFC"], "tea")
    assert torch.equal(one.ids, other.ids)
    assert torch.equal(one.pixels, other.pixels)


def test_a_link_to_a_folder_of_images_counts_and_everything_else_is_said(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for k in range(5):
            image(tmp_path / "set" / "test" / name / f"{k}.png", k)
            image(tmp_path / "set" / "test" / name / ".ipynb_checkpoints" / f"{k}.png", k)
            image(tmp_path / "set" / "train" / name / f"{k}.png", k)
            image(tmp_path / "more" / name / f"{k}.png", 10 + k)
    (tmp_path / "set" / "test" / "a" / "linked").symlink_to(tmp_path / "more" / "a")
    (tmp_path / "set" / "test" / "b" / "back").symlink_to(tmp_path / "set" / "test")
    Image.new("RGB", (4, 4)).save(tmp_path / "set" / "test" / "b" / "photo.jfif", format="JPEG")
    Image.new("RGB", (4, 4)).save(tmp_path / "set" / "test" / "b" / "photo.WEBP", format="WEBP")
    (tmp_path / "set" / "train" / ".ipynb_checkpoints").mkdir()
    (tmp_path / "set" / "extra").mkdir()
    (tmp_path / "set" / "test" / "b" / "phone.heic").write_bytes(b"x")
    found = loaded(tmp_path / "set")
    assert found.classes == ("a", "b")
    assert found.class_counts() == [10, 7]
    said = "left out: .heic 1, folder beside train/, val/, test/ 1, link to a folder above it 1"
    assert found.notes == (said,)
    assert data.load(f"folder:{tmp_path / 'set'}", "train").classes == ("a", "b")


def test_images_of_one_folder_in_two_classes_are_refused(tmp_path: Path) -> None:
    image(tmp_path / "cat" / "a.png")
    image(tmp_path / "dog" / "wolf" / "b.png")
    (tmp_path / "cat" / "more").symlink_to(tmp_path / "dog" / "wolf")
    with pytest.raises(InputError, match="a link puts the images of one folder into 'cat' and 'dog'"):
        loaded(tmp_path)
    (tmp_path / "cat" / "more").unlink()
    (tmp_path / "hound").symlink_to(tmp_path / "dog")
    with pytest.raises(InputError, match="into 'dog' and 'hound'"):
        loaded(tmp_path)


@pytest.mark.parametrize("names", [("Train", "Test"), ("training", "validation"), ("TEST", "valid")])
def test_folders_that_look_like_splits_are_not_taken_for_classes(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        image(tmp_path / name / "cat" / "a.png")
    with pytest.raises(InputError, match="look like splits: call them train, val and test"):
        loaded(tmp_path)


def test_a_class_whose_files_are_all_left_out_is_named_with_the_reason(tmp_path: Path) -> None:
    for k in range(3):
        image(tmp_path / "train" / "ant" / f"{k}.png")
    (tmp_path / "train" / "bee").mkdir()
    (tmp_path / "train" / "bee" / "x.heic").write_bytes(b"x")
    message = r"left out: \.heic 1; 1 of 2 classes have no images \(first: 'bee'\)"
    with pytest.raises(InputError, match=message):
        data.load(f"folder:{tmp_path}", "train")


def test_numbers_that_are_one_class_are_refused(tmp_path: Path) -> None:
    for name in ("1", "01", "2"):
        image(tmp_path / name / "a.png")
    with pytest.raises(InputError, match=r"data set folder:.*classes '01' and '1' are the same number"):
        loaded(tmp_path)


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b"])
def test_a_path_that_no_system_takes_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="there is no folder"):
        data.load(f"folder:{name}", "test")


def test_an_image_is_not_turned_as_its_exif_says(tmp_path: Path) -> None:
    from torchvision.datasets import ImageFolder
    from torchvision.transforms.functional import to_tensor

    pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.fromarray(pixels).save(tmp_path / name / "x.png", exif=exif)
    theirs = ImageFolder(str(tmp_path), transform=to_tensor)[0][0]
    assert torch.equal(loaded(tmp_path).pixels[0], theirs)
