"""RobustBench's models by id, from an index file that `make index` writes and a test compares with the package.

`RB_<id>[@<data set>[/<threat>]]`: an exact id wins over a unique prefix (`RB_Carmon2019` is Carmon2019Unlabeled).
Without a data set the first of cifar10, cifar100, imagenet that has the model is taken, without a threat the first of
Linf, L2, corruptions. robust-finetuning's spelling `RB_<id>_<threat>` is accepted too.
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
class RobustBenchEntry:
    """One model of RobustBench.

    `files` are Google Drive ids, one per network of an ensemble, empty where `elsewhere` (timm or torchvision) holds
    the weights. `preprocessing` is RobustBench's name, for ImageNet only.
    """

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
    def weights_source(self) -> str:
        """Where the weights come from, in a few words."""
        if self.elsewhere:
            return f"weights of {self.elsewhere}"
        count = f"{len(self.files)} files" if self.ensemble else "file"
        return f"needs its {count} below --model-dir"

    @property
    def paths(self) -> tuple[str, ...]:
        """The files of weights relative to the folder of models, in RobustBench's own layout."""
        stem = f"{self.dataset}/{self.threat}/{self.id}.pt"
        return tuple(f"{stem}_m{k}.pt" for k in range(len(self.files))) if self.ensemble else (stem,)


@cache
def entries() -> tuple[RobustBenchEntry, ...]:
    """All models, in RobustBench's order."""
    rows = json.loads(INDEX.read_text(encoding="utf-8"))
    return tuple(RobustBenchEntry(**{**row, "files": tuple(row["files"])}) for row in rows)


def lines() -> dict[str, str]:
    """All models: full id -> one-line description."""
    return {entry.name: f"RobustBench, {entry.dataset}, {entry.threat}; {entry.weights_source}" for entry in entries()}


def resolve(id: str) -> RobustBenchEntry:
    """The entry of an id. InputError where no model matches (with the nearest id), or several do (with all of them)."""
    name, _, board = id.removeprefix(PREFIX).partition("@")
    dataset, _, threat = board.partition("/")
    if dataset and dataset not in DATASETS:
        raise InputError(f"model {id}: " + unknown("RobustBench data set", dataset, DATASETS))
    if threat and threat not in THREATS:
        raise InputError(f"model {id}: " + unknown("RobustBench threat", threat, THREATS))
    candidates = [entry for entry in entries() if dataset in ("", entry.dataset) and threat in ("", entry.threat)]
    matches = _matches(name, candidates)
    if not matches and not threat:
        # robust-finetuning appends the threat to the id.
        stem, _, last = name.rpartition("_")
        if stem and last in THREATS:
            matches = _matches(stem, [entry for entry in candidates if entry.threat == last])
    if not matches:
        hint = unknown("RobustBench model", name, {entry.id for entry in candidates}).partition(" (there are")[0]
        raise InputError(f"{hint}; see all of them with: transferbench list models")
    if len({entry.id for entry in matches}) > 1:
        raise InputError(f"model {id} is ambiguous: {', '.join(sorted(entry.name for entry in matches))}")
    return matches[0]


def _matches(name: str, entries: list[RobustBenchEntry]) -> list[RobustBenchEntry]:
    """The entries with that id, else with that prefix, of the first data set that has any; ordered by threat."""
    matches = [entry for entry in entries if entry.id == name]
    matches = matches or [entry for entry in entries if name and entry.id.startswith(name)]
    first = min((DATASETS.index(entry.dataset) for entry in matches), default=0)
    matches = [entry for entry in matches if DATASETS.index(entry.dataset) == first]
    return sorted(matches, key=lambda entry: THREATS.index(entry.threat))


def card(id: str) -> ModelCard | None:
    """The card of `RB_...`, or None for other ids. Its `weights` is the first file in RobustBench's layout."""
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
        threats=classes.radii_of(entry.dataset),
        weights=entry.paths[0],
        preprocessing=entry.preprocessing,
        text=f"# {entry.name}\n\nRobustBench's `{entry.id}`, trained on {entry.dataset} for the threat {entry.threat}: "
        "https://robustbench.github.io",
    )
