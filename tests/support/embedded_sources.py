"""Trains the networks that come with the package: `make sources` (`letters`) or `make animals`.

`letters` are the sources of the suite letters-to-digits, seed 0. `animals` are those of cifar-animals-to-vehicles; they
are trained on the images of TRANSFERBENCH_DATA (docs/datasets.md, Copies), and their cards say how they were made.
"""

from __future__ import annotations

import os
import shlex
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
COMMON = {"batch_size": "128", "schedule": "onecycle", "weight_decay": "5e-4"}
SETTINGS = {
    "natural": {"steps": "2000", "lr": "0.1", **COMMON},
    "madry": {"steps": "1200", "lr": "0.03", **COMMON, "eps": "8/255", "k": "3", "step_size": "0.5"},
}


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
    """Likewise; the folder of images comes behind them. The robust one starts from the natural one."""
    natural = _words("natural", ANIMALS, "small-resnet-32", SETTINGS["natural"])
    words = ["train", "--plugin", "madry", "--source", "animals-natural", "--target", ANIMALS, *_set(SETTINGS["madry"])]
    return {"animals-natural": natural, "animals-madry": words}


def _words(method: str, target: str, network: str, settings: dict[str, str]) -> list[str]:
    return ["train", "--plugin", method, "--target", target, "--network", network, *_set(settings)]


def _set(settings: dict[str, str]) -> list[str]:
    return [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]


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
        for id, words in own.items():
            if main([*words, *given, "--out", str(Path(temporary) / id)]):
                sys.exit(1)
            keep(Path(temporary), id, shlex.join(["transferbench", *words]) if given else "")
