"""A model that your own code returns: `python:<module>:<function>` (models/python_function.py)."""

from __future__ import annotations

import hashlib
import uuid
from pathlib import Path

from torch import nn

from transferbench.models import python_function, weights
from transferbench.models.cards import ModelCard
from transferbench.models.features import find_layers
from transferbench.models.victim import Victim

IDS = {"python": "python:<module>:<function>, a model that your own code returns"}

UNREPEATABLE = "python-"
"""Prefix of the hash of a model without a fingerprint, a random number: no stored result is reused."""


def load(id: str, model_dir: Path | None, download: bool = False) -> Victim:
    """The function's model. InputError as `python_function.call`."""
    model, input_shape, classes, fingerprint = python_function.call(id)
    card = ModelCard(
        id=id,
        network=id,
        dataset="unknown",
        classes=classes,
        input_shape=input_shape,
        method="unknown",
        text=f"# {id}\n\nMade by a function of the user's own.",
    )
    # Not put into eval mode: pre-flight refuses a model in train mode.
    return Victim(card, model.requires_grad_(False), find_layers(model), _digest(model, fingerprint))


def _digest(model: nn.Module, fingerprint: object) -> str:
    """64 hex digits over fingerprint and weights, or without a fingerprint `python-` and a random number."""
    if fingerprint is None:
        return f"{UNREPEATABLE}{uuid.uuid4().hex}"
    return hashlib.sha256(f"{fingerprint} {weights.digest_of(model)}".encode()).hexdigest()
