"""Indexes of families of public models, RobustBench's and torchvision's, readable without torch.

A module of this package is a family: `lines() -> {id: one line}` and `card(id) -> ModelCard | None` (None for an id of
another family). Their weights are loaded in models/loaders/. A single public model is one file of models/loaders/.
"""

from __future__ import annotations

from transferbench.models.cards import ModelCard
from transferbench.models.catalogue import robustbench, torchvision

FAMILIES = (torchvision, robustbench)


def lines() -> dict[str, str]:
    """The models of all families: full id -> one-line description."""
    return {id: line for family in FAMILIES for id, line in family.lines().items()}


def card(id: str) -> ModelCard | None:
    """The card of a model of a family, or None. InputError for an ambiguous or wrong id of RobustBench."""
    return next((card for family in FAMILIES if (card := family.card(id)) is not None), None)
