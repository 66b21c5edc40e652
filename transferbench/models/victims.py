"""Loads a victim, or its card, by its id.

A module of models/loaders/ lists its models in a literal `IDS` and has
`load(id: str, model_dir: Path | None, download: bool) -> Victim`, and `card(id: str) -> ModelCard` where a card can be
written without the weights. A family of models lists the word before the colon (`torchvision:resnet18`). The path of a
folder or card that training wrote is an id as well.
"""

from __future__ import annotations

import os
from pathlib import Path

from transferbench.base import registry
from transferbench.base.errors import InputError
from transferbench.models import catalogue, trained
from transferbench.models.cards import ModelCard
from transferbench.models.victim import Victim


def canonical(id: str, victim: Victim) -> str:
    """The full id of a public model, whichever short form `id` is (`RB_Carmon2019`): finished jobs are found by it."""
    is_repository = id.startswith("hf:") and "@" in victim.id
    return victim.id if id.startswith(("RB_", "torchvision:", "timm:")) or is_repository else id


def card(id: str) -> ModelCard:
    """The card of a model, without loading its weights where its loader has a `card` function."""
    indexed = catalogue.card(id)
    if indexed is not None:
        return indexed
    family = _family(id)
    if family is not None and hasattr(module := registry.find("models", family).load(), "card"):
        card: ModelCard = module.card(id)
        return card
    return load(id).card


def _family(id: str) -> str | None:
    """The id of the plugin that loads a model; None for a folder, a card or an unknown word."""
    loaders = registry.entries("models")
    if id in loaders:
        return id
    if id.startswith("RB_"):
        return "RB"
    word = id.partition(":")[0]
    return word if word in loaders and loaders[word].is_family else None


def path_id(path: Path) -> str:
    """A folder as the id that `load` takes for it: with `./` in front where its name is a model's id as well."""
    return f"./{path}" if not path.is_absolute() and _family(str(path)) is not None else str(path)


def load(id: str, model_dir: Path | None = None, download: bool = False, synthetic: bool = False) -> Victim:
    """The victim of an id, a folder or a card.

    `model_dir` is the folder of weights (None: `models` in the current folder); with `download` a loader fetches files
    that are missing from it; `synthetic` accepts the random weights of a smoke run. InputError for an unknown id, or
    for missing files.
    """
    loaders = registry.entries("models")
    family = _family(id)
    if family is not None:
        loader = registry.find("models", family).load()
        if synthetic and hasattr(loader, "load_synthetic"):
            victim: Victim = loader.load_synthetic(id, model_dir)
        else:
            victim = loader.load(id, model_dir, download)
        return victim
    path = Path(id)
    if os.path.exists(path):
        return trained.load(path)
    if "/" in id or id.endswith(".md"):
        raise InputError(f"model {id!r}: there is no such folder or card")
    raise InputError(registry.unknown("model", id, loaders) + "; or give the folder or card of a trained one")
