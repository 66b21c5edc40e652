"""A victim: a card, and an eval-mode network that maps [0,1] pixels to logits."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from transferbench.base.errors import InputError
from transferbench.models.cards import ModelCard
from transferbench.models.features import Layers, Penultimate
from transferbench.models.networks import resized


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
    model, layers = resized.wrap(victim.model, victim.layers, own[1])
    network = f"resized:{shape[1]}-{own[1]}:{victim.card.network}"
    card = victim.card.model_copy(update={"network": network, "input_shape": tuple(shape), "preprocessing": ""})
    return Victim(card, model.eval(), layers, victim.sha256)


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", " ", name.casefold()).strip()
