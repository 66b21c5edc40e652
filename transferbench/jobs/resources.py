"""What one process has loaded for its jobs: networks, prepared targets, images. The caches are bounded."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from transferbench import data
from transferbench.base import full_precision
from transferbench.base.errors import InputError
from transferbench.base.settings import RunSettings
from transferbench.data import Dataset, View
from transferbench.data.decoding import Ahead
from transferbench.engine.chain import VERSION, Target, default_slots
from transferbench.engine.memory import rows_that_fit
from transferbench.engine.preflight import check_model
from transferbench.engine.source_model import SourceModel
from transferbench.jobs.inputs import (
    AttackerImagesInput,
    ExamplesInput,
    ImagesInput,
    Input,
    MissingInputError,
    NetworkInput,
    SampleInput,
    SplitsInput,
)
from transferbench.jobs.recent import RecentlyUsed, size_of
from transferbench.models.victim import Victim, fitted
from transferbench.training.splits import Splits

_SPLITS = 2
_TESTS = 4
"""Maximum number of cached test splits: corrupted images are 75 data sets of their own."""


class PreparedNetwork(NamedTuple):
    """A network with the images on which it is prepared; `role`: as a target, or as a source that crafts."""

    role: str
    name: str
    fingerprint: str
    dataset: str
    preprocessing: str


class PreparedSource(NamedTuple):
    """A network for attacks that hold it alone; `batch`: the rows in flight that its points belong to, None where they
    do not depend on them; `rows`: the rows in flight."""

    model: SourceModel
    batch: int | None
    rows: int


class Resources:
    """Loads and caches what jobs read. `remote`: an input that cannot be read raises MissingInputError."""

    def __init__(self, settings: RunSettings, remote: bool = False, device: str | None = None) -> None:
        # One job, one thread: the sums inside a convolution are split by threads, so that another number of threads
        # would train other weights from the same seed.
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        full_precision.switch_on()
        self.settings, self.remote = settings, remote
        self.device = device or settings.device
        self.decoding = Ahead(self.device)
        self._given: dict[str, Victim] = {}
        self._networks: RecentlyUsed[NetworkInput, Victim] = RecentlyUsed()
        self._targets: RecentlyUsed[tuple[str, str, SampleInput], Target] = RecentlyUsed()
        self._sources: RecentlyUsed[tuple[str, str, SampleInput], PreparedSource] = RecentlyUsed()
        self._batch_forms: dict[PreparedNetwork, tuple[int, int]] = {}
        self._given_tests: dict[tuple[str, str], Dataset] = {}
        self._tests: OrderedDict[tuple[str, str], Dataset] = OrderedDict()
        self._splits: OrderedDict[SplitsInput, Splits] = OrderedDict()
        self._attacker_images: OrderedDict[AttackerImagesInput, Dataset] = OrderedDict()
        self._fingerprints: dict[ImagesInput, str] = {}
        self._notes: dict[str, bool] = {}
        self._shared: Mapping[Input, Any] = {}

    def provide_network(self, name: str, victim: Victim) -> None:
        """Use this network wherever a job names it, instead of loading it."""
        self._given[name] = victim.to(self.device)

    def provide_target(self, name: str, sha256: str, sample: SampleInput, target: Target) -> None:
        """Use this prepared target for a network on a data set."""
        self._targets.add((name, sha256, sample), target, size_of(target.judge.model))

    def provide_splits(self, wanted: SplitsInput, splits: Splits) -> None:
        """Use these training and validation splits."""
        self._splits[wanted] = splits
        self._note(*(split for split in splits if split is not None))

    def provide_data(self, dataset: Dataset) -> None:
        """Use this as the test split of its id."""
        self._given_tests[dataset.id, ""] = dataset

    def provide_fingerprint(self, wanted: ImagesInput, fingerprint: str) -> None:
        """Name these images so in keys."""
        self._fingerprints[wanted] = fingerprint

    @contextmanager
    def sharing(self, shared: Mapping[Input, Any]) -> Iterator[None]:
        """Within the block, take these inputs from the driver instead of this machine's files."""
        self._shared = shared
        try:
            yield
        finally:
            self._shared = {}

    def is_shared(self, wanted: Input) -> bool:
        """Whether the driver has sent the input."""
        return wanted in self._shared

    def _read(self, wanted: Input) -> Any:
        if wanted in self._shared:
            return self._shared[wanted]
        try:
            return wanted.read(self)
        except InputError as error:
            if self.remote:
                raise MissingInputError(wanted) from error
            raise

    def view(self, preprocessing: str) -> View:
        return View.parse(preprocessing, self.settings.synthetic_data)

    def circumstances(self) -> dict[str, Any]:
        """The part of every key that depends on the run's settings: what decides bits."""
        engine = {"fold": self.settings.engine.search_copy, "engine": VERSION}
        return {"device": self.settings.device_kind, "precision": "fp32", **engine}

    def sample(self, dataset: str, preprocessing: str) -> SampleInput:
        """The images on which networks are prepared."""
        return SampleInput(dataset, preprocessing, self.settings.engine.preflight_rows)

    def has_network(self, wanted: NetworkInput) -> bool:
        """Whether the network is loaded, or comes from the driver."""
        return wanted.name in self._given or wanted in self._networks or wanted in self._shared

    def network(self, wanted: NetworkInput) -> Victim:
        """A network, on the device."""
        if wanted.name in self._given:
            return self._given[wanted.name]
        if wanted in self._networks and wanted not in self._shared:
            return self._networks[wanted]
        victim: Victim = self._read(wanted).to(self.device)
        for note in victim.card.weights_notes:
            self._notes.setdefault(f"{victim.id}: {note}", False)
        self._networks.add(wanted, victim, size_of(victim.model))
        return victim

    def target(self, wanted: NetworkInput, dataset: str, preprocessing: str) -> Target:
        """A network prepared once (pre-flight, judge, search model) on the first images of a data set."""
        victim = self.network(wanted)
        sample = self.sample(dataset, preprocessing)
        # Also by content: other weights under the same name are another network.
        name = (wanted.name, victim.sha256, sample)
        if name not in self._targets:
            first = self.images(sample).on(self.device)
            victim.check_fits(first.id, first.shape, first.classes)
            target = Target.prepare(
                victim.model, first.pixels, first.labels, self.settings.batch_size, self.settings.engine
            )
            # The search has a copy of the network.
            self._targets.add(name, target, 2 * size_of(victim.model))
        return self._targets[name]

    def batch_form(self, prepared: PreparedNetwork) -> tuple[int, int] | None:
        """(rows in flight, draws) of jobs about a network whose answers are known to depend on its batch."""
        return self._batch_forms.get(prepared)

    def set_batch_form(self, prepared: PreparedNetwork, form: tuple[int, int]) -> None:
        """Remember that a network's answers depend on its batch: a job that ran on it has found out."""
        self._batch_forms[prepared] = form

    def source(self, wanted: NetworkInput, dataset: str, preprocessing: str) -> PreparedSource:
        """A network prepared once, on the first images of a data set, for attacks that hold it alone.

        The source's classes need not be the images'.
        """
        sample = self.sample(dataset, preprocessing)
        name = (wanted.name, self.network(wanted).sha256, sample)
        if name not in self._sources:
            first = self.images(sample).on(self.device)
            most = self.settings.batch_size or default_slots(first.pixels[0].numel())
            source = fitted(self.network(wanted), first.shape)
            engine = self.settings.engine
            report = check_model(source.model, first.pixels, None, most, engine.preflight_rows)
            copyable = engine.search_copy and not report.batch_dependent
            model = SourceModel.prepare(report.model, source.layers, first.pixels, copyable)
            rows = most
            if first.pixels.is_cuda and self.settings.batch_size is None and not report.batch_dependent:
                rows = rows_that_fit(lambda x: model(x, "logits")["logits"], first.pixels)
            prepared = PreparedSource(model, most if report.batch_dependent else None, rows)
            self._sources.add(name, prepared, size_of(source.model))
        return self._sources[name]

    def test(self, dataset: str, preprocessing: str) -> Dataset:
        """A test split of this machine's files; those used last stay loaded."""
        wanted = (dataset, preprocessing)
        if wanted in self._given_tests:
            return self._given_tests[wanted]
        if wanted not in self._tests:
            self._tests[wanted] = data.load(dataset, "test", self.settings.data_dir, self.view(preprocessing))
            self._note(self._tests[wanted])
            if len(self._tests) > _TESTS:
                self._tests.popitem(last=False)
        self._tests.move_to_end(wanted)
        return self._tests[wanted]

    def images(self, wanted: ImagesInput | SampleInput) -> Dataset:
        """Test images, not decoded."""
        images: Dataset = self._read(wanted)
        return images

    def examples(self, wanted: ImagesInput) -> Dataset:
        """Test images on the device; on a GPU those after them, which the next job asks for, are decoded meanwhile."""
        images = self.decoding.taken(wanted, self.images(wanted))
        if self.decoding.is_ahead and wanted not in self._shared:
            test = self.test(wanted.dataset, wanted.preprocessing)
            following = wanted.following(len(test) if test.attackable is None else test.attackable)
            if following is not None:
                self.decoding.begin(following, self.images(following))
        return images

    def fingerprint(self, wanted: ImagesInput) -> str:
        """The images' fingerprint, computed once: every chain of every victim asks for the same shards."""
        if wanted in self._shared:
            return self.images(wanted).fingerprint
        if wanted not in self._fingerprints:
            self._fingerprints[wanted] = self.images(wanted).fingerprint
        return self._fingerprints[wanted]

    def splits(self, wanted: SplitsInput) -> Splits:
        """The training and validation splits; the last two pairs stay loaded."""
        if wanted in self._shared:
            shared: Splits = self._shared[wanted]
            return shared
        if wanted not in self._splits:
            self._splits[wanted] = self._read(wanted)
            self._note(*(split for split in self._splits[wanted] if split is not None))
            if len(self._splits) > _SPLITS:
                self._splits.popitem(last=False)
        return self._splits[wanted]

    def new_notes(self) -> list[str]:
        """What the loaded data sets say about how they were read (Dataset.notes), each line once."""
        new = [note for note, reported in self._notes.items() if not reported]
        self._notes.update(dict.fromkeys(new, True))
        return new

    def _note(self, *datasets: Dataset) -> None:
        for dataset in datasets:
            for note in dataset.notes:
                self._notes.setdefault(f"{dataset.id} {dataset.split}: {note}", False)

    def attacker_images(self, wanted: AttackerImagesInput) -> Dataset:
        """The training images that an attacker crafts on; those asked for last stay loaded."""
        if wanted in self._shared:
            shared: Dataset = self._shared[wanted]
            return shared
        if wanted not in self._attacker_images:
            self._attacker_images[wanted] = self._read(wanted)
            self._note(self._attacker_images[wanted])
            if len(self._attacker_images) > _SPLITS:
                self._attacker_images.popitem(last=False)
        return self._attacker_images[wanted]

    def stored(self, wanted: ExamplesInput) -> dict[str, Tensor]:
        """The tensors of a crafted set: `points` [tries, n, ...] with their `ids`, or `deltas` [tries, C, H, W]."""
        tensors: dict[str, Tensor] = self._read(wanted)
        return tensors
