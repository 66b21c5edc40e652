"""torchvision's cards against torchvision: the pixels of every set of weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.models import get_model_weights, list_models

from transferbench.data.preprocessing import Preprocessing
from transferbench.models.loaders import torchvision_models
from transferbench.models.networks.normalised import Normalisation


def weights() -> list[tuple[str, Any]]:
    """(full id, member) of every set of weights of every classifier."""
    import torchvision

    names = list_models(module=torchvision.models)
    return [(f"torchvision:{name}@{member.name}", member) for name in names for member in get_model_weights(name)]


def test_the_pixels_of_every_set_of_weights_are_those_of_its_own_transforms() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (375, 501, 3), dtype=np.uint8))
    pipelines: dict[tuple[str, str], dict[str, Any]] = {}
    for id, member in weights():
        card = torchvision_models.card(id)
        pipelines.setdefault((card.preprocessing, card.network), {})[repr(member.transforms())] = member.transforms()
    assert len({text for text, _ in pipelines}) > 10
    others = {network for _, network in pipelines if network.startswith("normalised:")}
    assert others, "some are normalised in another way"
    for (text, network), presets in pipelines.items():
        named = network.split(":")[1] if network.startswith("normalised:") else "imagenet"
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in Normalisation.parse(named))
        own = (Preprocessing.parse(text)(image) - mean) / std
        for preset in presets.values():
            assert torch.equal(own, preset(image)), text
