"""The CIFAR-10 ResNet-18 that the reference package brings: standard training, not robust, no download."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from transferbench.base.atomic_files import sha256_of
from transferbench.base.errors import InputError
from transferbench.models import networks, weights
from transferbench.models.catalogue import reference
from transferbench.models.victim import Victim

IDS = {"AA_ResNet18": "CIFAR-10 ResNet-18 of the reference AutoAttack package, standard training; comes with it"}


def load(id: str, model_dir: Path | None, download: bool = False) -> Victim:
    spec, card = find_spec("pyautoattack"), reference.card(id)
    if spec is None or spec.origin is None or card is None:
        raise InputError("AA_ResNet18 comes with the package pyautoattack, which is not installed")
    file = Path(spec.origin).parent / "examples" / card.weights
    built = networks.build(card.network, len(card.classes))
    weights.load_strictly(built.model, weights.read(file), file)
    digest = sha256_of(file)
    if digest != card.sha256:
        raise InputError(f"model {id}: {file} has sha256 {digest[:12]}..., its card says {card.sha256[:12]}...")
    return Victim(card, built.model.eval().requires_grad_(False), built.layers, digest)
