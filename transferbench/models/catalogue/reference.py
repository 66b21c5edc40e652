"""The CIFAR-10 ResNet-18 that the reference AutoAttack package brings: standard training, not robust, no download."""

from __future__ import annotations

from transferbench.models.cards import ModelCard
from transferbench.models.catalogue import classes

ID = "AA_ResNet18"


def lines() -> dict[str, str]:
    return {ID: "CIFAR-10 ResNet-18 of the reference AutoAttack package, standard training; comes with it"}


def card(id: str) -> ModelCard | None:
    if id != ID:
        return None
    return ModelCard(
        id=ID,
        network="aa-resnet18",
        dataset="cifar10",
        classes=classes.of("cifar10"),
        input_shape=(3, 32, 32),
        method="natural",
        threats=classes.RADII["cifar10"],
        weights="model_test.pt",
        sha256="399f52da9f914c323fa5a6096d60f460a3449a59b64a6405200c1e629f8425a7",
        text=f"# {ID}\n\nThe standard-trained ResNet-18 in the reference AutoAttack package's examples.",
    )
