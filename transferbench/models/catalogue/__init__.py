"""Public models that are known by name: id -> card. No torch, so that listing and resolving them is instant.

A file of this folder is a family: `lines() -> {id: one line}` and `card(id) -> ModelCard | None` (None: not mine).
What loads their weights is in victims/.
"""

from __future__ import annotations

from transferbench.models.cards import ModelCard
from transferbench.models.catalogue import reference, robust_finetuning, robustbench, torchvision

FAMILIES = (reference, robust_finetuning, torchvision, robustbench)


def lines() -> dict[str, str]:
    """Every public model by its full id with one line about it."""
    return {id: line for family in FAMILIES for id, line in family.lines().items()}


def card(id: str) -> ModelCard | None:
    """The card of a public model, None for an id that belongs to none. InputError for an ambiguous or wrong one."""
    for family in FAMILIES:
        found = family.card(id)
        if found is not None:
            return found
    return None
