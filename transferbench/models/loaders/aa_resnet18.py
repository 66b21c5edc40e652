"""The CIFAR-10 ResNet-18 of the reference AutoAttack package: standard training, not robust, no download."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from transferbench.base.atomic_files import sha256_of
from transferbench.base.errors import InputError
from transferbench.models import weights
from transferbench.models.cards import ModelCard
from transferbench.models.catalogue import classes
from transferbench.models.victim import Victim

ID = "AA_ResNet18"
IDS = {"AA_ResNet18": "CIFAR-10 ResNet-18 of the reference AutoAttack package, standard training; comes with it"}


def card(id: str) -> ModelCard:
    """The card, with the sha256 of the weights that pyautoattack contains."""
    return ModelCard(
        id=ID,
        network="aa-resnet18",
        dataset="cifar10",
        classes=classes.of("cifar10"),
        input_shape=(3, 32, 32),
        method="natural",
        threats=classes.radii_of("cifar10"),
        weights="model_test.pt",
        sha256="399f52da9f914c323fa5a6096d60f460a3449a59b64a6405200c1e629f8425a7",
        text=f"# {ID}\n\nThe standard-trained ResNet-18 in the reference AutoAttack package's examples.",
    )


def load(id: str, model_dir: Path | None, download: bool = False) -> Victim:
    """The network with the weights in pyautoattack's examples. InputError when that file has another sha256."""
    spec, expected = find_spec("pyautoattack"), card(id)
    if spec is None or spec.origin is None:
        raise InputError("AA_ResNet18 comes with the package pyautoattack, which is not installed")
    file = Path(spec.origin).parent / "examples" / expected.weights
    state = weights.read(file)
    digest = sha256_of(file)
    victim = Victim.from_state(expected, state, file, digest)
    if digest != expected.sha256:
        raise InputError(f"model {id}: {file} has sha256 {digest[:12]}..., its card says {expected.sha256[:12]}...")
    return victim
