"""Trains the networks of the built-in task into the package: the sources of the suite letters-to-digits, seed 0."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from transferbench import suites
from transferbench.cli.main import main
from transferbench.models import trained
from transferbench.models.loaders import embedded


def train(folder: Path) -> None:
    """Train every source into `folder`/letters-<name>."""
    (block,) = suites.load("letters-to-digits").training
    for source in block.sources:
        settings = [word for name, value in source.set.items() for word in ("--set", f"{name}={value}")]
        out = folder / f"letters-{source.name}"
        words = ["train", "--plugin", str(source.method), "--target", str(block.source_dataset), *settings]
        if main([*words, "--network", str(block.network), "--out", str(out)]):
            sys.exit(1)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        train(Path(temporary))
        for id in embedded.IDS:
            place = embedded._FOLDER / id
            place.mkdir(parents=True, exist_ok=True)
            for name in (trained.CARD, trained.WEIGHTS):
                shutil.copy(Path(temporary) / id / name, place / name)
