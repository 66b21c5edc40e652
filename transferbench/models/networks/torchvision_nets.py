"""torchvision's ImageNet classifiers with their normalisation: `torchvision:<name>`.

The stages are those whose features Renofeation matches: layer1..layer4 of a ResNet, and of MobileNetV2 the groups that
end with 24, 32, 64, 160 and 1280 channels (fe_resnet.py, fe_mobilenet.py of its code); every block of a ViT, the four
stages of Swin and ConvNeXt.
"""

from __future__ import annotations

import re

from torch import nn

from transferbench.base.errors import InputError
from transferbench.base.registry import unknown
from transferbench.models.features import find_layers
from transferbench.models.networks import Built
from transferbench.models.networks.normalised import MEAN, STD, Normalised

NORMALISATION = "default"
IDS = {"torchvision": "torchvision:<name>, any classifier of torchvision: resnet18, resnet50, mobilenet_v2, ..."}

_MOBILENET = tuple(f"model.features.{end}" for end in (3, 6, 10, 16, 18))
_FEATURES = tuple(f"model.features.{number}" for number in (1, 3, 5, 7))
_BLOCK = re.compile(r"model\.encoder\.layers\.encoder_layer_\d+")
_SIDE = 224


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
    return Built(model, layers._replace(stages=_stages(name, model) or layers.stages), (3, _side(inner), _side(inner)))


def _stages(name: str, model: nn.Module) -> tuple[str, ...]:
    """The stages of networks whose modules do not name them; empty for others."""
    if name == "mobilenet_v2":
        return _MOBILENET
    if name.startswith("vit_"):
        return tuple(module for module, _ in model.named_modules() if _BLOCK.fullmatch(module))
    return _FEATURES if name.startswith(("swin_", "convnext_")) else ()


def _side(inner: nn.Module) -> int:
    """The side of the images: a ViT's position embeddings have one, to others any side will do."""
    side = getattr(inner, "image_size", _SIDE)
    return side if isinstance(side, int) else _SIDE


def unstated(id: str) -> str:
    """The normalisation, which torchvision's weights need and a file of other weights may not."""
    return (
        f"input normalised with ImageNet's mean {MEAN} and deviation {STD}, as torchvision's own weights (another: "
        f"--network normalised:<mean>/<std>:{id})"
    )
