"""Checkpoints of Renofeation's train.py (`ckpt/<name>.pth`), with the names and the outputs of its own classes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from support.formula_weights import numbers, picture

from transferbench.base.errors import InputError
from transferbench.models import networks, victims

BLOCKS = (4, 3, 4, 6, 2)
"""The blocks of layer1 to layer5 in fe_mobilenet.py."""


def renofeation_name(name: str) -> str:
    """The name in fe_mobilenet.py of a parameter of torchvision's."""
    match = re.fullmatch(r"features\.(\d+)\.(.+)", name)
    if match is None:
        return name
    number = int(match[1])
    for stage, blocks in enumerate(BLOCKS, start=1):
        if number < blocks:
            return f"layer{stage}.{number}.{match[2]}"
        number -= blocks
    raise AssertionError(name)


def checkpoint(path: Path, network: str, wrapper: str = "") -> Path:
    inner = networks.build(network, 5).model.get_submodule("model")
    state = {wrapper + renofeation_name(name): tensor for name, tensor in numbers(inner.state_dict()).items()}
    torch.save({"state_dict": state}, path)
    return path


# The outputs of resnet18_dropout and mbnetv2_dropout (num_classes=5, dropout=.1, in eval mode) of Renofeation's
# fe_resnet.py and fe_mobilenet.py with these weights, for the picture behind its normalisation; bit-equal to ours
# on the machine that ran both.
LOGITS = {
    "torchvision:resnet18": [-39.792301, 15.481787, 8.985859, -33.063477, 56.396519],
    "torchvision:mobilenet_v2": [2.955591, 5.206934, -7.353856, 1.076432, 6.338430],
}


@pytest.mark.parametrize("network", LOGITS)
@pytest.mark.parametrize("wrapper", ["", "module."])
def test_its_checkpoints_load_as_torchvisions_networks(network: str, wrapper: str, tmp_path: Path) -> None:
    victim = victims.load(f"file:{network}={checkpoint(tmp_path / 'w.pth', network, wrapper)}")
    with torch.no_grad():
        assert victim.model(picture())[0].tolist() == pytest.approx(LOGITS[network], abs=2e-3)
    assert len(victim.card.classes) == 5
    translated = any("layer1 to layer5" in note for note in victim.card.weights_notes)
    assert translated == (network == "torchvision:mobilenet_v2"), "the translation is on the card"


def test_its_mobilenet_loads_behind_a_resizing_layer(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "w.pth", "torchvision:mobilenet_v2")
    victim = victims.load(f"file:resized:32-224:torchvision:mobilenet_v2={path}")
    assert victim.layers.stages[0] == "model.model.features.3"


def test_what_is_no_whole_mobilenet_is_refused(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "w.pth", "torchvision:mobilenet_v2")
    content = torch.load(path)
    del content["state_dict"]["layer5.1.0.weight"]
    torch.save(content, path)
    with pytest.raises(InputError, match="names are missing"):
        victims.load(f"file:torchvision:mobilenet_v2={path}")
    with pytest.raises(InputError, match="names are missing"):
        victims.load(f"file:torchvision:resnet18={checkpoint(tmp_path / 'm.pth', 'torchvision:mobilenet_v2')}")


def test_swins_of_robustbench_are_read_behind_their_normalisation() -> None:
    """With the names of the installed timm or of the file's, alone or behind the constants of a normalisation."""
    from collections import OrderedDict

    import timm
    from torch import nn

    from transferbench.models.loaders import robustbench

    inner = timm.create_model("swin_s3_tiny_224", img_size=32, window_size=1, embed_dim=8, num_heads=(1, 1, 1, 1))
    model = nn.Sequential(OrderedDict(normalize=nn.BatchNorm2d(3, affine=False), model=inner))
    own = model.state_dict()
    for prefix in ("", "model.", "module.model."):
        state = {f"{prefix}{name}": tensor for name, tensor in inner.state_dict().items()}
        found = robustbench._rename_swin(state, model)
        assert found.keys() == {name for name in own if name.startswith("model.")}
        assert all(torch.equal(found[name], own[name]) for name in found)
