"""Any model behind a resizing of its input: `resized:<side>:<model>`, for images of another side than its own.

The resizing is a part of the network: an attack changes the pixels before it, as it must where the data are small
(CIFAR-10 for a ViT of 224). It is bilinear (models/networks/resized.py), whatever the model's own preprocessing is.
"""

from __future__ import annotations

import re
from pathlib import Path

from transferbench.base.errors import InputError
from transferbench.models import victims
from transferbench.models.victim import Victim, fitted

IDS = {"resized": "resized:<side>:<model>, any model for images of another side, which it resizes itself"}

_ID = re.compile(r"resized:([1-9]\d{0,3}):(.+)")


def load(id: str, model_dir: Path | None, download: bool = False) -> Victim:
    """The model with a resizing layer in front. InputError for an id of another form, or images that are not square."""
    match = _ID.fullmatch(id)
    if match is None:
        raise InputError(f"model {id}: write it as resized:<side of the images>:<model>")
    side, victim = int(match[1]), victims.load(match[2], model_dir, download)
    own = victim.card.preprocessing
    wrapped = fitted(victim, (victim.card.input_shape[0], side, side))
    if wrapped is victim:
        return victim
    said = f"images of {side} resized to {victim.card.input_shape[-1]} by the network, bilinear"
    note = f"{said} (its own preprocessing is {own})" if own else said
    update = {"id": f"resized:{side}:{victim.id}", "weights_notes": (*victim.card.weights_notes, note)}
    return Victim(wrapped.card.model_copy(update=update), wrapped.model, wrapped.layers, wrapped.sha256)
