"""torchvision's ImageNet classifiers: `torchvision:<name>[@<weights>]`, normalisation included.

Any classifier of torchvision can be named; the ones listed are Renofeation's. The facts of their weights (file,
normalisation, resizing) are torchvision's own and read when the model is loaded (victims/torchvision_models.py).
"""

from __future__ import annotations

from transferbench.models.cards import ModelCard

LISTED = {
    "torchvision:resnet18@IMAGENET1K_V1": "ImageNet ResNet-18",
    "torchvision:resnet50@IMAGENET1K_V1": "ImageNet ResNet-50",
    "torchvision:resnet50@IMAGENET1K_V2": "ImageNet ResNet-50, newer recipe",
    "torchvision:resnet101@IMAGENET1K_V1": "ImageNet ResNet-101",
    "torchvision:mobilenet_v2@IMAGENET1K_V1": "ImageNet MobileNetV2",
}


def lines() -> dict[str, str]:
    return {
        **{id: f"{line} of torchvision, standard training" for id, line in LISTED.items()},
        "torchvision:<name>[@<weights>]": "any other classifier of torchvision",
    }


def card(id: str) -> ModelCard | None:
    """Never: torchvision's facts need torchvision, and with it torch."""
    return None
