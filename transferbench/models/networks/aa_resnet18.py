"""The CIFAR ResNet-18 in the reference AutoAttack package's examples."""

from __future__ import annotations

from transferbench.models.features import Layers
from transferbench.models.networks import Built

IDS = {"aa-resnet18": "ResNet-18 of the reference AutoAttack package's examples, 32x32 RGB"}
NORMALISATION = "none"


def build(id: str, num_classes: int) -> Built:
    """pyautoattack's ResNet with random weights."""
    from pyautoattack.examples import resnet

    model = resnet.ResNet(resnet.BasicBlock, [2, 2, 2, 2], num_classes=num_classes)
    return Built(model, Layers(("layer1", "layer2", "layer3", "layer4"), "linear"), (3, 32, 32))
