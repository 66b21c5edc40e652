"""Folders of trained victims: README.md (the card) and model.safetensors."""

from __future__ import annotations

from pathlib import Path

from transferbench.base import atomic_files
from transferbench.base.atomic_files import sha256_of
from transferbench.base.errors import InputError
from transferbench.models import cards, weights
from transferbench.models.cards import ModelCard
from transferbench.models.victim import Victim

CARD = "README.md"
WEIGHTS = "model.safetensors"


def save(folder: Path, state: weights.StateDict, card: ModelCard) -> ModelCard:
    """Write the weights, then the card. Returns the card with the weights' sha256."""
    digest = weights.write(state, folder / WEIGHTS)
    card = card.model_copy(update={"weights": WEIGHTS, "sha256": digest})
    save_card(folder, card)
    return card


def save_card(folder: Path, card: ModelCard) -> None:
    """Write the card alone, atomically."""
    atomic_files.write_text(folder / CARD, cards.write(card))


def card(path: Path) -> ModelCard:
    """The card of a folder. InputError where there is none."""
    card_path = path / CARD if path.is_dir() else path
    if not card_path.is_file():
        raise InputError(f"model {path}: the folder has no card ({CARD})")
    return cards.read(card_path)


def load(path: Path) -> Victim:
    """The victim in a folder, or of a card's path. InputError when the weights' sha256 is not the card's."""
    card_path = path / CARD if path.is_dir() else path
    of = card(path)
    file = card_path.parent / (of.weights or WEIGHTS)
    state = weights.read(file)
    digest = sha256_of(file)
    if of.sha256 != digest:
        raise InputError(f"model {path}: {file.name} has sha256 {digest[:12]}..., its card says {of.sha256[:12]}...")
    return Victim.from_state(of, state, file, digest)
