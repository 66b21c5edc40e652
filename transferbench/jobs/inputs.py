"""What jobs read: networks, images, training splits, crafted sets.

A worker on another machine looks for each under the driver's path. Where it is missing there, or is another one, the
worker raises `MissingInputError` and the driver sends the content.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from transferbench import data
from transferbench.base import keyed_random
from transferbench.base.results import StoredFile
from transferbench.data import Dataset
from transferbench.data.few_shot import Rule
from transferbench.engine.universal import POOL
from transferbench.models import trained, victims
from transferbench.models.victim import Victim
from transferbench.store.reader import read_examples
from transferbench.training.splits import Splits, Validation, load_splits

if TYPE_CHECKING:
    from transferbench.jobs.resources import Resources


class MissingInputError(Exception):
    """A worker cannot read an input, or reads another one; `args[0]` is the input."""


@dataclass(frozen=True)
class NetworkInput:
    """A network by its name; `folder` (relative to the run's) holds it when the run trained it."""

    name: str
    folder: str = ""

    def read(self, resources: Resources) -> Victim:
        settings = resources.settings
        if self.folder:
            return trained.load(settings.root / self.folder)
        return victims.load(self.name, settings.model_dir, synthetic=settings.synthetic_data)

    def share(self, resources: Resources) -> Victim:
        return resources.network(self).to("cpu")

    def fingerprint(self, resources: Resources) -> str:
        """The network's identity: its weights, and what its card says is computed with them."""
        if self.folder and not resources.remote and not resources.has_network(self):
            # A trained network is named by its card alone: a finished run loads no weights.
            return trained.card(resources.settings.root / self.folder).identity
        return resources.network(self).card.identity


@dataclass(frozen=True)
class ImagesInput:
    """Test images by position; `stop` None: to the end. `attacked`: only the data set's first `attackable` images.
    `stratified`: positions are those of Dataset.first's order of the classes in turn."""

    dataset: str
    preprocessing: str
    start: int = 0
    stop: int | None = None
    stratified: bool = False

    def read(self, resources: Resources) -> Dataset:
        whole = resources.test(self.dataset, self.preprocessing)
        if self.stop is None:
            return whole
        first = whole.first(self.stop, self.stratified)
        return first if self.start == 0 else first.select(range(self.start, self.stop))

    def following(self, n: int) -> ImagesInput | None:
        """The as many images after these, of n; None where there are none."""
        if self.stop is None or self.stop >= n:
            return None
        return replace(self, start=self.stop, stop=min(n, 2 * self.stop - self.start))

    def share(self, resources: Resources) -> Dataset:
        return resources.images(self).on("cpu")

    def fingerprint(self, resources: Resources) -> str:
        return resources.fingerprint(self)


@dataclass(frozen=True)
class SampleInput:
    """The first test images of a data set: what a network is prepared on, whatever the job."""

    dataset: str
    preprocessing: str
    count: int

    def read(self, resources: Resources) -> Dataset:
        test = resources.test(self.dataset, self.preprocessing)
        return test.select(range(min(self.count, len(test))))

    def share(self, resources: Resources) -> Dataset:
        return resources.images(self).on("cpu")

    def fingerprint(self, resources: Resources) -> str:
        return resources.images(self).fingerprint


@dataclass(frozen=True)
class SplitsInput:
    """The training and validation splits; with `shots`, so many training images per class, drawn by the seed.

    `validation` and `shots_rule` are those of load_splits.
    """

    dataset: str
    preprocessing: str
    shots: int | None
    seed: int | None
    validation: Validation = "tenth"
    shots_rule: Rule = "keyed"

    def read(self, resources: Resources) -> Splits:
        settings = resources.settings
        view = resources.view(self.preprocessing)
        seed = self.seed or 0
        return load_splits(self.dataset, settings.data_dir, view, self.shots, seed, self.validation, self.shots_rule)

    def share(self, resources: Resources) -> Splits:
        train, val = resources.splits(self)
        return train.on("cpu"), None if val is None else val.on("cpu")

    def fingerprint(self, resources: Resources) -> list[str]:
        return [split.fingerprint for split in resources.splits(self) if split is not None]


@dataclass(frozen=True)
class AttackerImagesInput:
    """Training images of a data set, at most universal.POOL of them, drawn by the seed: what an attacker crafts on."""

    dataset: str
    preprocessing: str
    seed: int

    def read(self, resources: Resources) -> Dataset:
        train = data.load(self.dataset, "train", resources.settings.data_dir, resources.view(self.preprocessing))
        key = keyed_random.stream("attacker images", self.seed, self.dataset)
        return train.select(keyed_random.permutation(key, len(train))[:POOL].sort().values)

    def share(self, resources: Resources) -> Dataset:
        return resources.attacker_images(self).on("cpu")

    def fingerprint(self, resources: Resources) -> str:
        return resources.attacker_images(self).fingerprint


@dataclass(frozen=True)
class ExamplesInput:
    """The tensors of a crafted set: `points` with their `ids`, or `deltas`."""

    file: StoredFile

    def read(self, resources: Resources) -> Any:
        return read_examples(resources.settings.root, self.file)

    def share(self, resources: Resources) -> Any:
        return self.read(resources)

    def fingerprint(self, resources: Resources) -> str:
        return self.file.sha256


Input = NetworkInput | ImagesInput | SampleInput | SplitsInput | AttackerImagesInput | ExamplesInput
