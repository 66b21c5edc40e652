"""`evaluate(store=)`: chains against a model that is a Python object, through the jobs, scheduler and store of a run.

A victim has a file whose hash names it. A Python object is named by its tensors and plain attributes and by its answers
(logits and input gradients on the first images, predictions of those that a job is about), so that another architecture
or normalisation around the same weights is another model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch

from transferbench.base.progress import Progress
from transferbench.base.results import AttackResult, Cost
from transferbench.base.settings import RunSettings
from transferbench.base.specifications import Chain, Keep
from transferbench.data import Dataset
from transferbench.engine.chain import Target
from transferbench.engine.gradients import outputs
from transferbench.engine.preflight import plain_attributes
from transferbench.engine.verdicts import ChainResult, Examples
from transferbench.jobs.attack import AttackJob, EngineName
from transferbench.jobs.inputs import ImagesInput
from transferbench.jobs.job import Job, Results
from transferbench.jobs.networks import PublicNetwork
from transferbench.jobs.resources import Resources
from transferbench.models.cards import ModelCard
from transferbench.models.features import find_layers
from transferbench.models.victim import Victim
from transferbench.models.weights import digest_of
from transferbench.results import assemble
from transferbench.scheduling.plan import Images, attack_jobs, distinct
from transferbench.scheduling.scheduler import Scheduler
from transferbench.store.store import Store

GIVEN = "given"
"""The id of the model and of the data set: the caller gives both."""
_ANSWERS = 16


def as_dataset(examples: Examples, num_classes: int) -> Dataset:
    """The examples as a data set whose classes are numbers."""
    return Dataset(GIVEN, "test", *examples, tuple(map(str, range(num_classes))))


class ChainProgress(Protocol):
    """Makes the function that is called with (examples settled, examples not fooled) of a chain of n examples; None
    where nobody looks."""

    def of(self, name: str, n: int) -> Callable[[int, int], None] | None: ...


def run_stored(
    settings: RunSettings,
    target: Target,
    chains: dict[str, Chain],
    examples: Examples,
    seed: int,
    backend: EngineName,
    progress: ChainProgress,
) -> dict[str, ChainResult]:
    """Each chain's result by its name. Finished shards of 256 examples are taken from the store in `settings.root`.

    A model whose answers depend on its batch is attacked in one job per chain, whose key holds the batch size; one that
    is randomised or keeps state is another model at every call, and is attacked again. InputError where the folder
    cannot be used.
    """
    dataset = as_dataset(examples, target.num_classes)
    # Torch's own number of threads; each worker process has one.
    settings = replace(settings, batch_size=target.batch_size, keep=Keep("fooled"), threads=None)
    resources = _resources(settings, target, dataset)
    images = Images(GIVEN, "", len(dataset))
    jobs = {name: attack_jobs(PublicNetwork(GIVEN), chain, images, seed, backend) for name, chain in chains.items()}
    predictions = target.clean_logits(examples.x, examples.ids).argmax(1).cpu()
    for job in {job for shards in jobs.values() for job in shards}:
        for part in (job.images, job.whole):
            if part is not None:
                _name_by_predictions(resources, part, predictions)
    with Store(settings.root) as store, Scheduler(store, settings, resources) as scheduler:
        reporter = _ChainReporter(progress, len(dataset), scheduler.results)
        scheduler.run([job for shards in jobs.values() for job in shards], reporter)
        scheduler.raise_failures()
        return {name: _joined(store, shards, scheduler, dataset) for name, shards in jobs.items()}


def _resources(settings: RunSettings, target: Target, dataset: Dataset) -> Resources:
    model = target.judge.model
    sha256 = _fingerprint(target, dataset)
    card = ModelCard(
        id=GIVEN,
        network=type(model).__name__,
        dataset=GIVEN,
        classes=dataset.classes,
        input_shape=dataset.shape,
        method="unknown",
        sha256=sha256,
    )
    resources = Resources(settings)
    resources.provide_network(GIVEN, Victim(card, model, find_layers(model), sha256))
    resources.provide_data(dataset)
    resources.provide_target(GIVEN, sha256, resources.sample(GIVEN, ""), target)
    return resources


def _name_by_predictions(resources: Resources, images: ImagesInput, predictions: torch.Tensor) -> None:
    """Put the model's predictions of the images into the keys of the jobs that are about them."""
    answers = predictions[images.start : images.stop].numpy().tobytes()
    name = hashlib.sha256(images.read(resources).fingerprint.encode() + answers).hexdigest()[:32]
    resources.provide_fingerprint(images, name)


def _fingerprint(target: Target, dataset: Dataset) -> str:
    """A name for a model: its tensors and plain attributes, its answers to the first images."""
    model = target.judge.model
    digest = hashlib.sha256(digest_of(model).encode())
    digest.update(repr(plain_attributes(model)).encode())
    for part in outputs(model, dataset.pixels[:_ANSWERS]):
        digest.update(part.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _joined(store: Store, jobs: list[AttackJob], scheduler: Scheduler, dataset: Dataset) -> ChainResult:
    """One chain over its shards: verdicts in order, and the end points [n, ...]."""
    shards = distinct([scheduler.results.of(job) for job in jobs])
    points = dataset.pixels.clone()
    position = {int(id): at for at, id in enumerate(dataset.ids)}
    for shard in shards:
        assert shard.examples is not None
        tensors = store.read_examples(shard.examples)
        at = torch.tensor([position[int(id)] for id in tensors["ids"]], dtype=torch.int64, device=points.device)
        points[at] = tensors["points"].to(points.device)
    cost = Cost()
    for shard in shards:
        cost.add(shard.cost)
    verdicts = [verdict for shard in shards for verdict in shard.verdicts]
    flags = tuple(sorted({flag for shard in shards for flag in shard.flags}))
    counted = {name: sum(shard.flag_rows.get(name, 0) for shard in shards) for name in flags}
    flag_rows = {name: count for name, count in counted.items() if count}
    return ChainResult(
        verdicts, points, cost, assemble.summed(shards), flags, flag_rows, shards[0].batch, draws=shards[0].draws
    )


class _ChainReporter:
    """Passes on how far each chain is, over all of its shards."""

    def __init__(self, progress: ChainProgress, n: int, results: Results) -> None:
        self.progress, self.n, self.results = progress, n, results
        self._parts: dict[str, dict[str, tuple[int, int]]] = {}
        """(settled, not fooled) by chain and job."""

    def plan(self, jobs: Sequence[Job[Any]], workers: int) -> None: ...
    def begin(self, job: Job[Any], number: int, total: int) -> None: ...
    def start(self, job: Job[Any]) -> None: ...

    def update(self, job: Job[Any], progress: Progress) -> None:
        self._report(job, progress.done, progress.robust or 0)

    def end(self, job: Job[Any], seconds: float | None) -> None:
        result = self.results.find(job)
        assert isinstance(result, AttackResult)
        if result.batch is not None:
            # One job has attacked all examples.
            self._parts.pop(job.label, None)
        self._report(job, len(result.verdicts), sum(not verdict.fooled for verdict in result.verdicts))

    def _report(self, job: Job[Any], settled: int, robust: int) -> None:
        parts = self._parts.setdefault(job.label, {})
        parts[job.name] = (settled, robust)
        show = self.progress.of(job.label.removeprefix(f"{GIVEN}: "), self.n)
        if show is not None:
            show(*map(sum, zip(*parts.values(), strict=True)))

    def failed(self, job: Job[Any], reason: str) -> None: ...
    def note(self, text: str) -> None: ...
