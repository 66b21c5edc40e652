"""Trains the networks that come with the package: `python -m support.embedded_sources letters` or `animals`.

`letters` are the sources of the suite letters-to-digits, seed 0. `animals` are those of cifar-animals-to-vehicles; they
are trained on the images of TRANSFERBENCH_DATA (docs/datasets.md, Copies), and their cards say how they were made.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from transferbench import suites
from transferbench.cli.main import main
from transferbench.models import trained
from transferbench.models.loaders import embedded

ANIMALS = "cifar10-jpeg[bird,cat,deer,dog,frog,horse]"
COMMON = {"steps": "2000", "batch_size": "128", "lr": "0.1", "schedule": "onecycle", "weight_decay": "5e-4"}
SETTINGS = {"natural": COMMON, "madry": {**COMMON, "steps": "1600", "eps": "8/255", "k": "3", "step_size": "0.5"}}


def letters() -> dict[str, list[str]]:
    """The words of `train` by the id of the network."""
    (block,) = suites.load("letters-to-digits").training
    return {
        f"letters-{source.name}": _words(
            str(source.method),
            str(block.source_dataset),
            str(block.network),
            {k: str(v) for k, v in source.set.items()},
        )
        for source in block.sources
    }


def animals() -> dict[str, list[str]]:
    """Likewise; the folder of images comes behind them."""
    return {f"animals-{name}": _words(name, ANIMALS, "small-resnet-32", own) for name, own in SETTINGS.items()}


def _words(method: str, target: str, network: str, settings: dict[str, str]) -> list[str]:
    set_ = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    return ["train", "--plugin", method, "--target", target, "--network", network, *set_]


def train(folder: Path, words_of: dict[str, list[str]], *further: str) -> None:
    """Train every network into a folder of its id."""
    for id, words in words_of.items():
        if main([*words, *further, "--out", str(folder / id)]):
            sys.exit(1)


def keep(folder: Path, id: str, command: str = "") -> None:
    """Copy a trained network's card and weights into the package; a card of images that are not in the package also
    gets the command and commit that made it."""
    place = embedded._FOLDER / id
    place.mkdir(parents=True, exist_ok=True)
    for name in (trained.CARD, trained.WEIGHTS):
        shutil.copy(folder / id / name, place / name)
    if command:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        card = trained.card(place)
        text = f"{card.text}\n\nMade by `{command}` at commit {commit}."
        trained.save_card(place, card.model_copy(update={"text": text}))


if __name__ == "__main__":
    own = {"letters": letters, "animals": animals}[sys.argv[1]]()
    given = ["--data-dir", os.environ["TRANSFERBENCH_DATA"]] if sys.argv[1] == "animals" else []
    with tempfile.TemporaryDirectory() as temporary:
        train(Path(temporary), own, *given)
        for id, words in own.items():
            keep(Path(temporary), id, " ".join(["transferbench", *words]) if given else "")
