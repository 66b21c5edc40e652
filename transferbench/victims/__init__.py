"""Victim id -> Victim: a card, and an eval-mode network that maps [0,1] pixels to logits.

A file of this folder lists its models in a literal `IDS` and has `load(id: str, model_dir: Path | None) -> Victim`.
A folder or card that training wrote is an id of its own. How a victim was trained is of no interest here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from transferbench import registry
from transferbench.cards import ModelCard
from transferbench.features import Layers, Penultimate
from transferbench.types import InputError


@dataclass(frozen=True)
class Victim:
    """`model` is in eval mode on `device`, normalisation included; `sha256` is of the weights as loaded."""

    card: ModelCard
    model: nn.Module
    layers: Layers
    sha256: str

    @property
    def id(self) -> str:
        return self.card.id

    @property
    def num_classes(self) -> int:
        return len(self.card.classes)

    @property
    def penultimate(self) -> Penultimate:
        """The network without its head: all that a source-only attack is given."""
        return Penultimate(self.model, self.layers)

    def to(self, device: torch.device | str) -> Victim:
        return Victim(self.card, self.model.to(device), self.layers, self.sha256)


def load(id: str, model_dir: Path | None = None) -> Victim:
    """The victim of an id, a folder or a card. InputError for an unknown name, or files that are not there."""
    from transferbench.victims import trained

    known = registry.entries("victims")
    if id in known:
        victim: Victim = known[id].load().load(id, model_dir)
        return victim
    path = Path(id)
    if path.exists():
        return trained.load(path)
    if "/" in id or id.endswith(".md"):
        raise InputError(f"model {id!r}: there is no such folder or card")
    raise InputError(registry.unknown("model", id, known) + "; or give the folder or card of a trained one")
