"""`evaluate(store=)`: chains against a model that is a Python object, through the jobs, scheduler and store of a run.

A victim has a file whose hash names it. A Python object is named by its tensors and by its answers (logits and input
gradients on the first images), so that another architecture or normalisation around the same weights is another model.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import nn

from transferbench.base.errors import InputError
from transferbench.base.progress import Progress
from transferbench.base.results import AttackResult, Cost
from transferbench.base.settings import RunSettings
from transferbench.base.specifications import Chain, Keep
from transferbench.data import Dataset
from transferbench.engine.chain import Target
from transferbench.engine.search_model import outputs
from transferbench.engine.verdicts import ChainResult, Examples
from transferbench.jobs.attack import AttackJob, EngineName
from transferbench.jobs.job import Job
from transferbench.jobs.networks import PublicNetwork
from transferbench.jobs.resources import Resources
from transferbench.models.cards import ModelCard
from transferbench.models.features import find_layers
from transferbench.models.victim import Victim
from transferbench.models.weights import digest_of
from transferbench.results import assemble
from transferbench.scheduling.plan import Images, attack_jobs
from transferbench.scheduling.scheduler import Scheduler
from transferbench.store.store import Store

GIVEN = "given"
"""The id of the model and of the data set: the caller gives both."""
_ANSWERS = 16
_UNREPEATABLE = {"randomised", "state-between-calls"}


def as_dataset(examples: Examples, num_classes: int) -> Dataset:
    """The examples as a data set whose classes are numbers."""
    return Dataset(GIVEN, "test", *examples, tuple(map(str, range(num_classes))))


def run_stored(
    root: Path, target: Target, chains: dict[str, Chain], examples: Examples, seed: int, backend: EngineName
) -> dict[str, ChainResult]:
    """Each chain's result by its name. Finished shards of 256 examples are taken from the store in `root`.

    InputError where the folder cannot be used, or where the model is randomised or keeps state between calls: then
    stored and new verdicts would not belong together.
    """
    flags = _UNREPEATABLE & set(target.flags)
    if flags:
        raise InputError(
            f"store={str(root)!r}: the model is {flags.pop()}, its verdicts cannot be resumed: leave it out"
        )
    dataset = as_dataset(examples, target.num_classes)
    settings = RunSettings(
        device=str(examples.x.device), batch_size=target.batch_size, keep=Keep("fooled"), threads=None
    )
    resources = _resources(settings, target, dataset)
    images = Images(GIVEN, "", len(dataset))
    jobs = {name: attack_jobs(PublicNetwork(GIVEN), chain, images, seed, backend) for name, chain in chains.items()}
    with Store(root) as store:
        scheduler = Scheduler(store, settings, resources)
        scheduler.run([job for shards in jobs.values() for job in shards], _Silent())
        scheduler.raise_failures()
        return {name: _joined(store, shards, scheduler, dataset) for name, shards in jobs.items()}


def _resources(settings: RunSettings, target: Target, dataset: Dataset) -> Resources:
    model = target.judge.model
    sha256 = _fingerprint(model, dataset)
    card = ModelCard(
        id=GIVEN,
        network=type(model).__name__,
        dataset=GIVEN,
        classes=dataset.classes,
        input_shape=dataset.shape,
        method="unknown",
    )
    resources = Resources(settings)
    resources.provide_network(GIVEN, Victim(card, model, find_layers(model), sha256))
    resources.provide_data(dataset)
    resources.provide_target(GIVEN, sha256, resources.sample(GIVEN, ""), target)
    return resources


def _fingerprint(model: nn.Module, dataset: Dataset) -> str:
    digest = hashlib.sha256(digest_of(model).encode())
    for part in outputs(model, dataset.pixels[:_ANSWERS]):
        digest.update(part.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _joined(store: Store, jobs: list[AttackJob], scheduler: Scheduler, dataset: Dataset) -> ChainResult:
    """One chain over its shards: verdicts in order, and the end points [n, ...]."""
    shards: list[AttackResult] = [scheduler.results.of(job) for job in jobs]
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
    return ChainResult(verdicts, points, cost, assemble.summed(shards))


class _Silent:
    """A reporter that displays nothing."""

    def begin(self, job: Job[Any], number: int, total: int) -> None: ...
    def update(self, job: Job[Any], progress: Progress) -> None: ...
    def end(self, job: Job[Any], reused: bool) -> None: ...
    def failed(self, job: Job[Any], reason: str) -> None: ...
    def note(self, text: str) -> None: ...
