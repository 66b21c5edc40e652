"""torchvision's ImageNet classifiers with their normalisation: `torchvision:<name>`.

The stages are those whose features Renofeation matches: layer1..layer4 of a ResNet, and of MobileNetV2 the groups that
end with 24, 32, 64, 160 and 1280 channels (fe_resnet.py, fe_mobilenet.py of its code).
"""

from __future__ import annotations

from torch import nn

from transferbench.base.errors import InputError
from transferbench.base.registry import unknown
from transferbench.models.features import find_layers
from transferbench.models.networks import Built
from transferbench.models.networks.normalised import MEAN, STD, Normalised

IDS = {"torchvision": "torchvision:<name>, any classifier of torchvision: resnet18, resnet50, mobilenet_v2, ..."}

_MOBILENET = tuple(f"model.features.{end}" for end in (3, 6, 10, 16, 18))


def check_name(name: str) -> None:
    """InputError unless it names one of torchvision's classifiers."""
    import torchvision.models

    names = torchvision.models.list_models(module=torchvision.models)
    if name not in names:
        raise InputError(unknown("torchvision network", name, names).partition(" (there are")[0])


def build(id: str, num_classes: int) -> Built:
    """The classifier with random weights. InputError for an unknown name."""
    import torchvision.models

    name = id.partition(":")[2]
    check_name(name)
    inner: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=num_classes)
    model = Normalised(inner)
    layers = find_layers(model)
    return Built(model, layers._replace(stages=_MOBILENET) if name == "mobilenet_v2" else layers, (3, 224, 224))


def unstated(id: str) -> str:
    """The normalisation, which torchvision's weights need and a file of other weights may not."""
    return f"input normalised with ImageNet's mean {MEAN} and deviation {STD}, as torchvision's own weights"
