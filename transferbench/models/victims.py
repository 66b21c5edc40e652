"""Victim id -> Victim, and id -> card.

A file of models/loaders/ lists its models in a literal `IDS` and has
`load(id: str, model_dir: Path | None, download: bool) -> Victim`; a family lists the word before the colon
(`torchvision:resnet18`). What is known of public models without loading them is in catalogue/. A folder or card that
training wrote is an id of its own.
"""

from __future__ import annotations

from pathlib import Path

from transferbench.base import registry
from transferbench.base.errors import InputError
from transferbench.models import catalogue, trained
from transferbench.models.cards import ModelCard
from transferbench.models.victim import Victim


def canonical(id: str, victim: Victim) -> str:
    """One id for all spellings of a public model (`RB_Carmon2019`), so that its finished work is found by any."""
    return victim.id if id.startswith(("RB_", "torchvision:")) else id


def card(id: str) -> ModelCard:
    """The card of a public model, without its weights where its family can say it without them."""
    known = catalogue.card(id)
    if known is not None:
        return known
    entry = registry.entries("models").get(id.partition(":")[0])
    if entry is not None and hasattr(module := entry.load(), "card"):
        found: ModelCard = module.card(id)
        return found
    return load(id).card


def load(id: str, model_dir: Path | None = None, download: bool = False, made: bool = False) -> Victim:
    """The victim of an id, a folder or a card.

    `model_dir` is where weights are looked for (`models` in the current folder by default); `download` lets a
    loader fetch what is missing there; `made` is for the made weights of a smoke run. InputError for an unknown name,
    or files that are not there.
    """
    known = registry.entries("models")
    family = id if id in known else "RB" if id.startswith("RB_") else id.partition(":")[0]
    if family in known:
        loader = known[family].load()
        if made and hasattr(loader, "load_made"):
            victim: Victim = loader.load_made(id, model_dir)
        else:
            victim = loader.load(id, model_dir, download)
        return victim
    path = Path(id)
    if path.exists():
        return trained.load(path)
    if "/" in id or id.endswith(".md"):
        raise InputError(f"model {id!r}: there is no such folder or card")
    raise InputError(registry.unknown("model", id, known) + "; or give the folder or card of a trained one")
