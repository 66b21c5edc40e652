"""Victim id -> Victim: a card, and an eval-mode network that maps [0,1] pixels to logits.

A file of this folder lists its models in a literal `IDS` and has
`load(id: str, model_dir: Path | None, download: bool) -> Victim`; a family lists the word before the colon
(`torchvision:resnet18`). What is known of public models without loading them is in catalogue/. A folder or card
that training wrote is an id of its own. How a victim was trained is of no interest here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from transferbench.base import registry
from transferbench.base.errors import InputError
from transferbench.models import catalogue
from transferbench.models.cards import ModelCard
from transferbench.models.features import Layers, Penultimate


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

    def check_fits(self, dataset: str, shape: tuple[int, ...], classes: Sequence[str]) -> None:
        """InputError unless images of this shape with these classes, in this order, are what the victim knows.

        Two names contradict each other when they differ by more than case and separators; a name that is no more
        than its own number (`0`, `1`, ...) says nothing and contradicts nothing.
        """
        if tuple(shape) != tuple(self.card.input_shape):
            raise InputError(
                f"{self.id} takes images of shape {tuple(self.card.input_shape)}, {dataset} has {tuple(shape)}"
            )
        if len(classes) != self.num_classes:
            raise InputError(f"{self.id} has {self.num_classes} classes, {dataset} has {len(classes)}")
        for label, (mine, theirs) in enumerate(zip(self.card.classes, classes, strict=True)):
            if str(label) not in (mine, theirs) and _plain(mine) != _plain(theirs):
                raise InputError(
                    f"class {label} of {dataset} is {theirs!r}, {self.id} knows it as {mine!r}: labels would be wrong; "
                    "bring the names (of the folders) into the victim's order"
                )

    def to(self, device: torch.device | str) -> Victim:
        return Victim(self.card, self.model.to(device), self.layers, self.sha256)


def fitted(victim: Victim, shape: tuple[int, ...]) -> Victim:
    """The victim for square images of this shape: itself, or behind a resizing (networks/resized.py).

    InputError when the channels differ, or an image is not square.
    """
    own = tuple(victim.card.input_shape)
    if own == tuple(shape):
        return victim
    if len(own) != 3 or len(shape) != 3 or own[0] != shape[0] or own[1] != own[2] or shape[1] != shape[2]:
        raise InputError(
            f"{victim.id} takes images of shape {own}, not {tuple(shape)}: no resizing makes these of those"
        )
    from transferbench.models.networks import resized

    model, layers = resized.wrap(victim.model, victim.layers, own[1])
    network = f"resized:{shape[1]}-{own[1]}:{victim.card.network}"
    card = victim.card.model_copy(update={"network": network, "input_shape": tuple(shape), "preprocessing": ""})
    return Victim(card, model.eval(), layers, victim.sha256)


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


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", " ", name.casefold()).strip()


def load(id: str, model_dir: Path | None = None, download: bool = False) -> Victim:
    """The victim of an id, a folder or a card.

    `model_dir` is where weights are looked for (`models` in the current folder by default); `download` lets a
    loader fetch what is missing there. InputError for an unknown name, or files that are not there.
    """
    from transferbench.models import trained

    known = registry.entries("models")
    family = id if id in known else "RB" if id.startswith("RB_") else id.partition(":")[0]
    if family in known:
        victim: Victim = known[family].load().load(id, model_dir, download)
        return victim
    path = Path(id)
    if path.exists():
        return trained.load(path)
    if "/" in id or id.endswith(".md"):
        raise InputError(f"model {id!r}: there is no such folder or card")
    raise InputError(registry.unknown("model", id, known) + "; or give the folder or card of a trained one")
