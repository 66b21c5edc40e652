"""RobustBench's models by id, from an index that `make index` writes and a test compares with the package.

`RB_<id>[@<data set>[/<threat>]]`: an exact id beats a unique prefix (`RB_Carmon2019` is Carmon2019Unlabeled); without
a data set the first of cifar10, cifar100, imagenet that has it, without a threat the first of Linf, L2, corruptions.
robust-finetuning's `RB_<id>_<threat>` is understood too.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from transferbench.base.errors import InputError
from transferbench.base.registry import unknown
from transferbench.models.cards import ModelCard
from transferbench.models.catalogue import classes

PREFIX = "RB_"
INDEX = Path(__file__).parent / "robustbench.json"
DATASETS = ("cifar10", "cifar100", "imagenet")
THREATS = ("Linf", "L2", "corruptions")
_SHAPES = {"cifar10": (3, 32, 32), "cifar100": (3, 32, 32), "imagenet": (3, 224, 224)}


@dataclass(frozen=True)
class Entry:
    """One model of RobustBench. `files` are Google Drive ids, one per network of an ensemble; none where timm or
    torchvision hold the weights (`elsewhere` says which). `preprocessing` is RobustBench's name, ImageNet only."""

    dataset: str
    threat: str
    id: str
    files: tuple[str, ...]
    ensemble: bool
    preprocessing: str
    elsewhere: str

    @property
    def name(self) -> str:
        """The full id: `RB_Carmon2019Unlabeled@cifar10/Linf`."""
        return f"{PREFIX}{self.id}@{self.dataset}/{self.threat}"

    @property
    def where(self) -> str:
        """Whose weights it needs, in a few words."""
        return f"weights of {self.elsewhere}" if self.elsewhere else "needs its file below --model-dir"

    @property
    def paths(self) -> tuple[str, ...]:
        """Where the weights lie below the folder of models, in RobustBench's own layout."""
        stem = f"{self.dataset}/{self.threat}/{self.id}.pt"
        return tuple(f"{stem}_m{k}.pt" for k in range(len(self.files))) if self.ensemble else (stem,)


@cache
def entries() -> tuple[Entry, ...]:
    """All of them, in RobustBench's order."""
    rows = json.loads(INDEX.read_text(encoding="utf-8"))
    return tuple(Entry(**{**row, "files": tuple(row["files"])}) for row in rows)


def lines() -> dict[str, str]:
    return {entry.name: f"RobustBench, {entry.dataset}, {entry.threat}; {entry.where}" for entry in entries()}


def resolve(id: str) -> Entry:
    """The one entry an id names. InputError for none (with the nearest), or several (with all of them)."""
    name, _, place = id.removeprefix(PREFIX).partition("@")
    dataset, _, threat = place.partition("/")
    if dataset and dataset not in DATASETS:
        raise InputError(f"model {id}: " + unknown("RobustBench data set", dataset, DATASETS))
    if threat and threat not in THREATS:
        raise InputError(f"model {id}: " + unknown("RobustBench threat", threat, THREATS))
    here = [entry for entry in entries() if dataset in ("", entry.dataset) and threat in ("", entry.threat)]
    found = _named(name, here)
    if not found and not threat:
        # robust-finetuning writes the threat behind the id.
        stem, _, last = name.rpartition("_")
        if stem and last in THREATS:
            found = _named(stem, [entry for entry in here if entry.threat == last])
    if not found:
        hint = unknown("RobustBench model", name, {entry.id for entry in here}).partition(" (there are")[0]
        raise InputError(f"{hint}; see all of them with: transferbench list models")
    if len({entry.id for entry in found}) > 1:
        raise InputError(f"model {id} is ambiguous: {', '.join(sorted(entry.name for entry in found))}")
    return found[0]


def _named(name: str, among: list[Entry]) -> list[Entry]:
    """Exact ids, else those that begin so, of the first data set that has any; ordered by threat."""
    found = [entry for entry in among if entry.id == name]
    found = found or [entry for entry in among if name and entry.id.startswith(name)]
    first = min((DATASETS.index(entry.dataset) for entry in found), default=0)
    mine = [entry for entry in found if DATASETS.index(entry.dataset) == first]
    return sorted(mine, key=lambda entry: THREATS.index(entry.threat))


def card(id: str) -> ModelCard | None:
    """The card of `RB_...`; None for other ids. `weights` names the first file in RobustBench's layout."""
    if not id.startswith(PREFIX):
        return None
    entry = resolve(id)
    return ModelCard(
        id=entry.name,
        network=f"robustbench:{entry.dataset}/{entry.threat}/{entry.id}",
        dataset=entry.dataset,
        classes=classes.of(entry.dataset),
        input_shape=_SHAPES[entry.dataset] if entry.preprocessing != "Crop288" else (3, 288, 288),
        method=f"robustbench-{entry.threat}",
        threats=classes.RADII[entry.dataset],
        weights=entry.paths[0],
        preprocessing=entry.preprocessing,
        text=f"# {entry.name}\n\nRobustBench's `{entry.id}`, trained on {entry.dataset} for the threat {entry.threat}: "
        "https://robustbench.github.io",
    )
