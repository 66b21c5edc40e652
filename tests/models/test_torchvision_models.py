"""torchvision's cards against torchvision: the pixels of every set of weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.models import get_model_weights, list_models

from transferbench.base.errors import InputError
from transferbench.data.preprocessing import Preprocessing
from transferbench.models.loaders import torchvision_models
from transferbench.models.networks.normalised import MEAN, STD


def weights() -> list[tuple[str, Any]]:
    """(full id, member) of every set of weights of every classifier."""
    import torchvision

    names = list_models(module=torchvision.models)
    return [(f"torchvision:{name}@{member.name}", member) for name in names for member in get_model_weights(name)]


def test_the_pixels_of_every_set_of_weights_are_those_of_its_own_transforms() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (375, 501, 3), dtype=np.uint8))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    refused: dict[str, str] = {}
    pipelines: dict[str, dict[str, Any]] = {}
    for id, member in weights():
        try:
            text = torchvision_models.card(id).preprocessing
        except InputError as error:
            refused[id] = str(error)
            continue
        pipelines.setdefault(text, {})[repr(member.transforms())] = member.transforms()
    assert all("normalisation is not ImageNet's usual one" in reason for reason in refused.values())
    assert len(refused) < 10
    assert len(pipelines) > 10
    for text, presets in pipelines.items():
        own = (Preprocessing.parse(text)(image) - mean) / std
        for preset in presets.values():
            assert torch.equal(own, preset(image)), text
