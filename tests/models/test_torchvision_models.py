"""torchvision's cards against torchvision: the pixels of every set of weights."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn
from torchvision.models import get_model_builder, get_model_weights, list_models

from transferbench.data.preprocessing import Preprocessing
from transferbench.models.loaders import torchvision_models
from transferbench.models.networks import torchvision_nets
from transferbench.models.networks.normalised import Normalisation


def weights() -> list[tuple[str, Any]]:
    """(full id, member) of every set of weights of every classifier."""
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
        if network.endswith(torchvision_nets.TRANSFORMS_INPUT):
            # The network transforms what torchvision's transforms give it; compared by logits below.
            named = "imagenet"
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in Normalisation.parse(named))
        own = (Preprocessing.parse(text)(image) - mean) / std
        for preset in presets.values():
            assert torch.equal(own, preset(image)), text


def test_networks_that_transform_their_input_are_known() -> None:
    builders = {name: get_model_builder(name) for name in list_models(module=torchvision.models)}
    takes = [name for name, builder in builders.items() if "transform_input" in inspect.getsource(builder)]
    assert tuple(takes) == torchvision_nets.TRANSFORMS_INPUT


@pytest.mark.parametrize("name", ["googlenet", "densenet121"])
def test_the_logits_are_those_of_torchvisions_own_constructor(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The constructor that is given weights does more than load them: it sets transform_input, and renames."""
    torch.manual_seed(0)
    arguments = {"init_weights": False} if name == "googlenet" else {}
    made = torchvision.models.get_model(name, weights=None, **arguments)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.fill_(0.3)  # type: ignore[union-attr, operator]
    older = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", key): tensor
        for key, tensor in made.state_dict().items()
        if not key.endswith("num_batches_tracked") or name == "googlenet"
    }
    member = get_model_weights(name).IMAGENET1K_V1
    monkeypatch.setattr(type(member), "get_state_dict", lambda *_, **__: dict(older))
    own = torchvision.models.get_model(name, weights=member).eval()
    card = torchvision_models.card(f"torchvision:{name}")
    torch.save(older, tmp_path / card.weights)
    victim = torchvision_models.load_synthetic(f"torchvision:{name}", tmp_path)
    x = torch.rand(2, 3, 64, 64)
    preset = member.transforms()
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (preset.mean, preset.std))
    with torch.no_grad():
        expected, without = own((x - mean) / std), made.eval()((x - mean) / std)
        assert torch.allclose(victim.model(x), expected, rtol=1e-3, atol=1e-5 * float(expected.std()))
    if name == "googlenet":
        assert not torch.allclose(without, expected, rtol=1e-3, atol=1e-2 * float(expected.std()))
