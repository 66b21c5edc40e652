"""torchvision's ImageNet classifiers with their normalisation: `torchvision:<name>[@<side>]`, images of 224 by default.

A ViT is built for the side, all others take any (`torchvision:resnet18@32` for weights that were trained on CIFAR).
The stages are those whose features Renofeation matches: layer1..layer4 of a ResNet, and of MobileNetV2 the groups that
end with 24, 32, 64, 160 and 1280 channels (fe_resnet.py, fe_mobilenet.py of its code); every block of a ViT, the four
stages of Swin and ConvNeXt; of EfficientNets and MobileNetV3 what lies between the first convolution and the last, the
dense blocks of DenseNets, the poolings of VGGs.
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
IDS = {
    "torchvision": "torchvision:<name>[@<side>], any classifier of torchvision: resnet18, resnet50, mobilenet_v2, ..."
}

TRANSFORMS_INPUT = ("googlenet", "inception_v3")
"""Networks whose constructor, given torchvision's weights, adds a layer (`transform_input`) that undoes ImageNet's
normalisation and does that of mean and deviation 0.5 instead. No file of weights shows it."""
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
    """The classifier with random weights. InputError for an unknown name, or a side that patches do not fill."""
    import torchvision.models

    name, side = _parts(id)
    sizes = {"image_size": side} if name.startswith("vit_") else {}
    try:
        inner: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=num_classes, **sizes)
    except AssertionError:
        # torchvision's own check that patches fill the image.
        raise InputError(f"network {id}: images of {side} do not divide into its patches") from None
    model = Normalised(inner)
    layers = find_layers(model)
    return Built(model, layers._replace(stages=_stages(name, model) or layers.stages), (3, side, side))


def _parts(id: str) -> tuple[str, int]:
    """(torchvision's name, the side of the images). InputError for an unknown name, or a side that is no number."""
    name, at, side = id.partition(":")[2].partition("@")
    check_name(name)
    if at and not re.fullmatch(r"[1-9]\d{0,3}", side):
        raise InputError(f"network {id}: write the side of its images behind the sign, torchvision:{name}@32")
    return name, int(side) if at else _SIDE


def _stages(name: str, model: nn.Module) -> tuple[str, ...]:
    """The stages of networks whose modules do not name them; empty for others."""
    if name == "mobilenet_v2":
        return _MOBILENET
    if name.startswith("vit_"):
        return tuple(module for module, _ in model.named_modules() if _BLOCK.fullmatch(module))
    if name.startswith(("swin_", "convnext_")):
        return _FEATURES
    features = getattr(model.get_submodule("model"), "features", None)
    if not isinstance(features, nn.Sequential):
        return ()
    inner = list(features.named_children())
    if name.startswith(("efficientnet_", "mobilenet_v3")):
        inner = inner[1:-1]
    elif name.startswith("densenet"):
        inner = [one for one in inner if one[0].startswith("denseblock")]
    else:
        inner = [one for one in inner if isinstance(one[1], nn.MaxPool2d)]
    return tuple(f"model.features.{module}" for module, _ in inner) if len(inner) > 2 else ()


def unstated(id: str) -> str:
    """The normalisation, which torchvision's weights need and a file of other weights may not, and the images' side."""
    name, side = _parts(id)
    transformed = f"; torchvision's own weights, and what was fine-tuned from them, need normalised:0.5/0.5:{id}"
    size = f"images of {side}" + (" only" if name.startswith("vit_") else f" (another: torchvision:{name}@<side>)")
    usual = f"input normalised with ImageNet's mean {MEAN} and deviation {STD}"
    another = f"(another: --network normalised:<mean>/<std>:{id})"
    if name in TRANSFORMS_INPUT:
        return f"{usual} {another}{transformed}; {size}"
    return f"{usual}, as torchvision's own weights {another}; {size}"
