"""Loads a victim, or its card, by its id.

A module of models/loaders/ lists its models in a literal `IDS` and has
`load(id: str, model_dir: Path | None, download: bool) -> Victim`, and `card(id: str) -> ModelCard` where a card can be
written without the weights. A family of models lists the word before the colon (`torchvision:resnet18`). The path of a
folder or card that training wrote is an id as well.
"""

from __future__ import annotations

from pathlib import Path

from transferbench.base import registry
from transferbench.base.errors import InputError
from transferbench.models import catalogue, trained
from transferbench.models.cards import ModelCard
from transferbench.models.victim import Victim


def canonical(id: str, victim: Victim) -> str:
    """The full id of a public model, whichever short form `id` is (`RB_Carmon2019`): finished jobs are found by it."""
    return victim.id if id.startswith(("RB_", "torchvision:")) else id


def card(id: str) -> ModelCard:
    """The card of a model, without loading its weights where its loader has a `card` function."""
    indexed = catalogue.card(id)
    if indexed is not None:
        return indexed
    entry = registry.entries("models").get(id.partition(":")[0])
    if entry is not None and hasattr(module := entry.load(), "card"):
        card: ModelCard = module.card(id)
        return card
    return load(id).card


def load(id: str, model_dir: Path | None = None, download: bool = False, synthetic: bool = False) -> Victim:
    """The victim of an id, a folder or a card.

    `model_dir` is the folder of weights (None: `models` in the current folder); with `download` a loader fetches files
    that are missing from it; `synthetic` accepts the random weights of a smoke run. InputError for an unknown id, or
    for missing files.
    """
    loaders = registry.entries("models")
    family = id if id in loaders else "RB" if id.startswith("RB_") else id.partition(":")[0]
    if family in loaders:
        loader = loaders[family].load()
        if synthetic and hasattr(loader, "load_synthetic"):
            victim: Victim = loader.load_synthetic(id, model_dir)
        else:
            victim = loader.load(id, model_dir, download)
        return victim
    path = Path(id)
    if path.exists():
        return trained.load(path)
    if "/" in id or id.endswith(".md"):
        raise InputError(f"model {id!r}: there is no such folder or card")
    raise InputError(registry.unknown("model", id, loaders) + "; or give the folder or card of a trained one")
