"""The CIFAR-10 ResNet-18 that the reference package brings: standard training, not robust, no download."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch

from transferbench.cards import ModelCard
from transferbench.features import Layers
from transferbench.types import InputError
from transferbench.victims import Victim, weights

IDS = {"AA_ResNet18": "CIFAR-10 ResNet-18 of the reference AutoAttack package, standard training; comes with it"}

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def load(id: str, model_dir: Path | None) -> Victim:
    spec = find_spec("pyautoattack")
    if spec is None or spec.origin is None:
        raise InputError("AA_ResNet18 comes with the package pyautoattack, which is not installed")
    from pyautoattack.examples import resnet

    file = Path(spec.origin).parent / "examples" / "model_test.pt"
    with torch.random.fork_rng(devices=[]):
        model = resnet.ResNet18()
    state = weights.read(file)
    weights.load_strictly(model, state, file)
    digest = weights.sha256_of(file)
    card = ModelCard(
        id=id,
        network="reference-resnet18",
        dataset="cifar10",
        classes=CIFAR10,
        input_shape=(3, 32, 32),
        method="natural",
        threats={"Linf": "8/255", "L2": "0.5", "L1": "12"},
        weights=file.name,
        sha256=digest,
        text=f"# {id}\n\nThe standard-trained ResNet-18 in the reference AutoAttack package's examples.",
    )
    return Victim(
        card,
        model.eval().requires_grad_(False),
        Layers(("layer1", "layer2", "layer3", "layer4"), "linear"),
        digest,
    )
