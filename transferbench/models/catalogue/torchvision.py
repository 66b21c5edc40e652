"""torchvision's ImageNet classifiers: `torchvision:<name>[@<weights>]`, normalisation included.

Every classifier of torchvision is accepted; those listed are Renofeation's. File, normalisation and resizing are
torchvision's own facts, read from torchvision when a card is asked for (models/loaders/torchvision_models.py).
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
    """Renofeation's models, and one line for all others."""
    return {
        **{id: f"{line} of torchvision, standard training" for id, line in LISTED.items()},
        "torchvision:<name>[@<weights>]": "any other classifier of torchvision",
    }


def card(id: str) -> ModelCard | None:
    """None: a card needs torchvision, and with it torch (models/loaders/torchvision_models.py)."""
    return None
