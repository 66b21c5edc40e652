"""Victims trained here: a folder with README.md (the card) and model.safetensors."""

from __future__ import annotations

from pathlib import Path

from transferbench.base import atomic_files
from transferbench.base.atomic_files import sha256_of
from transferbench.base.errors import InputError
from transferbench.models import cards, networks, weights
from transferbench.models.cards import ModelCard
from transferbench.models.victim import Victim

CARD = "README.md"
WEIGHTS = "model.safetensors"


def save(folder: Path, state: weights.State, card: ModelCard) -> ModelCard:
    """Write weights, then card; the card returned holds the weights' hash."""
    digest = weights.write(state, folder / WEIGHTS)
    card = card.model_copy(update={"weights": WEIGHTS, "sha256": digest})
    save_card(folder, card)
    return card


def save_card(folder: Path, card: ModelCard) -> None:
    """Write the card alone, beside and renamed."""
    atomic_files.write_text(folder / CARD, cards.write(card))


def load(path: Path) -> Victim:
    """The victim in a folder (or named by its card). InputError when the weights are not those of the card."""
    card_path = path / CARD if path.is_dir() else path
    if not card_path.is_file():
        raise InputError(f"model {path}: the folder has no card ({CARD})")
    card = cards.read(card_path)
    file = card_path.parent / (card.weights or WEIGHTS)
    state = weights.read(file)
    digest = sha256_of(file)
    if card.sha256 != digest:
        raise InputError(f"model {path}: {file.name} has sha256 {digest[:12]}..., its card says {card.sha256[:12]}...")
    built = networks.build(card.network, len(card.classes))
    weights.load_strictly(built.model, state, file)
    return Victim(card, built.model.eval().requires_grad_(False), built.layers, digest)
