"""The CIFAR-10 networks that E-AT's repository fine-tunes: one adversarially trained from scratch per norm."""

from __future__ import annotations

from transferbench.models.cards import ModelCard
from transferbench.models.catalogue import classes

IDS = {f"pretr_{norm}": norm for norm in ("Linf", "L2", "L1")}


def lines() -> dict[str, str]:
    return {
        id: f"CIFAR-10 PreActResNet-18 of E-AT, adversarially trained in {norm}; needs {id}.pth below --model-dir"
        for id, norm in IDS.items()
    }


def card(id: str) -> ModelCard | None:
    if id not in IDS:
        return None
    return ModelCard(
        id=id,
        network="preact-resnet18",
        dataset="cifar10",
        classes=classes.of("cifar10"),
        input_shape=(3, 32, 32),
        method=f"apgd-at-{IDS[id]}",
        threats=classes.RADII["cifar10"],
        weights=f"{id}.pth",
        text=f"# {id}\n\nPreActResNet-18 with softplus, adversarially trained in {IDS[id]} on CIFAR-10: the starting "
        "point of E-AT fine-tuning (Croce and Hein 2022, arXiv:2105.12508).",
    )
