"""Small networks that ship with the package, with the cards that training wrote: `make sources` trains them.

The sources of the suite letters-to-digits, seed 0, and those of cifar-animals-to-vehicles: natural images and a robust
network without a download.
"""

from __future__ import annotations

from pathlib import Path

from transferbench.models import trained
from transferbench.models.cards import ModelCard
from transferbench.models.victim import Victim

IDS = {
    "animals-madry": "small residual network on the six animals of CIFAR-10 (JPEG copy), 32x32, PGD training at 8/255; "
    "comes with the package",
    "animals-natural": "small residual network on the six animals of CIFAR-10 (JPEG copy), 32x32, standard training; "
    "comes with the package",
    "letters-madry": "small residual network on drawn letters, 8x8 grey, PGD training; comes with the package",
    "letters-natural": "small residual network on drawn letters, 8x8 grey, standard training; comes with the package",
}
_FOLDER = Path(__file__).parent.parent / "embedded"


def card(id: str) -> ModelCard:
    """The card."""
    return trained.card(_FOLDER / id)


def load(id: str, model_dir: Path | None, download: bool = False) -> Victim:
    """The network. InputError when the file's sha256 is not the card's."""
    return trained.load(_FOLDER / id)
