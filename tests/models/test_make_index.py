"""The index of RobustBench's models against robustbench itself: what each ImageNet model does to images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from transferbench.data.preprocessing import Preprocessing
from transferbench.models.catalogue import robustbench
from transferbench.models.loaders.robustbench_package import model_dicts

IMAGENET = [entry for entry in robustbench.entries() if entry.dataset == "imagenet"]


@pytest.fixture(scope="module")
def theirs() -> dict[str, Any]:
    """Full id -> the pipeline that robustbench's own function returns."""
    zoo = model_dicts()
    from robustbench.data import get_preprocessing

    dataset = next(dataset for dataset in zoo if dataset.value == "imagenet")
    return {
        f"RB_{id}@imagenet/{threat.value}": get_preprocessing(dataset, threat, id, None)
        for threat, models in zoo[dataset].items()
        for id in models
    }


def notation(pipeline: transforms.Compose) -> str:
    """A pipeline of torchvision in RobustBench's notation."""
    words = ""
    for part in pipeline.transforms:
        if isinstance(part, transforms.Resize):
            both = not isinstance(part.size, int)
            assert not both or part.size[0] == part.size[1]
            words += f"{'Bicubic' * (part.interpolation.value == 'bicubic')}Res{part.size[0] if both else part.size}"
            assert part.interpolation.value in ("bilinear", "bicubic")
            assert part.antialias
        elif isinstance(part, transforms.CenterCrop):
            assert part.size[0] == part.size[1]
            words += f"Crop{part.size[0]}"
        else:
            assert isinstance(part, transforms.ToTensor)
    return words


def test_every_imagenet_model_has_robustbenchs_preprocessing(theirs: dict[str, Any]) -> None:
    assert len(IMAGENET) == len(theirs) == 42
    assert {entry.name: entry.preprocessing for entry in IMAGENET} == {
        id: notation(pipeline) for id, pipeline in theirs.items()
    }
    for entry in IMAGENET:
        card = robustbench.card(entry.name)
        assert card is not None
        assert Preprocessing.parse(card.preprocessing).side == card.input_shape[1] == card.input_shape[2]


@pytest.mark.parametrize("size", [(500, 375), (333, 501), (287, 283), (120, 97)])
def test_pixels_of_every_preprocessing_are_robustbenchs(theirs: dict[str, Any], size: tuple[int, int]) -> None:
    image = Image.fromarray(np.random.default_rng(3).integers(0, 256, (*size, 3), dtype=np.uint8))
    first = {entry.preprocessing: entry.name for entry in reversed(IMAGENET)}
    assert set(first) == {
        *("Res256Crop224", "BicubicRes256Crop224", "Res224", "Crop288"),
        *("Res224Crop224", "BicubicRes224Crop224", "BicubicRes248Crop224"),
    }
    for text, id in first.items():
        assert torch.equal(Preprocessing.parse(text)(image), theirs[id](image)), (text, id)
