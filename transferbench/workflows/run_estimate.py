"""How long a run will take, said by `run --dry-run`: its passes by count, the time of a pass by measurement.

What an attack costs depends on the examples that it does not break, which nobody knows before: the estimate says what
it assumes. docs/suites.md compares it with a run.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from transferbench import data, methods
from transferbench.base.durations import duration
from transferbench.base.settings import RunSettings
from transferbench.data import View
from transferbench.engine import search_model
from transferbench.engine.gradients import outputs
from transferbench.jobs.attack import AttackJob
from transferbench.jobs.clean import CleanJob
from transferbench.jobs.job import Job
from transferbench.jobs.networks import NetworkReference
from transferbench.jobs.train import TrainJob
from transferbench.methods import AdversarialParams
from transferbench.models import networks, victims
from transferbench.scheduling.plan import Plan

_ATTACKED, _NATURAL = 0.5, 0.05
"""The assumed share of examples that stand through a chain: of networks that were attacked in training, and of others.
"""
_ROWS = 16
_CLASSES = 10
_TIMED = 3


class _Architecture(NamedTuple):
    """A network's architecture, and whether its training attacks."""

    id: str
    is_attacked: bool


def text(planned: Plan, settings: RunSettings) -> str:
    """One line: the time of all jobs on this machine's cores, by kind. Empty where jobs run on other devices. The data
    sets' files must be there."""
    if settings.gpus or settings.cluster is not None:
        return ""
    own = torch.get_num_threads()
    torch.set_num_threads(1 if settings.workers > 1 else settings.threads or own)
    try:
        seconds = _by_kind(planned, settings.data_dir)
    finally:
        torch.set_num_threads(own)
    whole = sum(seconds.values())
    workers = settings.workers
    shared = f", in {workers} processes about {duration(whole / workers)}" if workers > 1 else ""
    parts = ", ".join(f"{kind} {duration(spent)}" for kind, spent in _longest_first(seconds) if spent >= 1)
    return (
        f"time: about {duration(whole)} of one core{shared} ({parts}), if nothing was done before and through a chain "
        f"stand {_ATTACKED:.0%} of the examples where training attacks, {_NATURAL:.0%} elsewhere"
    )


def _by_kind(planned: Plan, data_dir: Path | None) -> dict[str, float]:
    """Seconds of one core by the kind of the jobs."""
    seconds: dict[str, float] = defaultdict(float)
    for job in planned.jobs:
        if isinstance(job, TrainJob):
            method = methods.build(job.method, dict(job.settings))
            spent = job.passes * _training_pass(_trained(job).id, method.params.batch_size)
        elif isinstance(job, AttackJob):
            architecture = _architecture(job.network)
            stand = _ATTACKED if architecture.is_attacked else _NATURAL
            spent = stand * job.passes * _attack_pass(architecture.id)
        elif isinstance(job, CleanJob):
            rows = _whole(job.images.dataset, job.images.preprocessing, data_dir)
            spent = job.passes * rows / job.rows * _attack_pass(_other(job))
        else:
            # Controls that are made of another set make no pass.
            spent = job.passes * _attack_pass(_other(job)) if job.passes else 0
        seconds[job.kind] += spent
    return seconds


def _longest_first(seconds: dict[str, float]) -> list[tuple[str, float]]:
    return sorted(seconds.items(), key=lambda item: -item[1])


def _architecture(network: NetworkReference) -> _Architecture:
    trained = next(iter(network.jobs), None)
    if trained is not None:
        return _trained(trained)
    assert network.public_id is not None
    card = victims.card(network.public_id)
    return _Architecture(card.network, card.method != "natural")


@cache
def _trained(job: TrainJob) -> _Architecture:
    method = methods.build(job.method, dict(job.settings))
    source = "" if job.source is None else _architecture(job.source).id
    return _Architecture(method.network(source, job.network), isinstance(method.params, AdversarialParams))


def _other(job: Job[Any]) -> str:
    """The architecture whose passes a job of another kind makes: the source's where it crafts, else the victim's."""
    network: NetworkReference = getattr(job, "source", None) or job.network  # type: ignore[attr-defined]
    return _architecture(network).id


@cache
def _whole(dataset: str, preprocessing: str, data_dir: Path | None) -> int:
    """The number of images of the test split."""
    return len(data.load(dataset, "test", data_dir, View.parse(preprocessing)))


@cache
def _attack_pass(network: str) -> float:
    """Seconds of a row forward and backward through the copy that attacks search on."""
    built = networks.build(network, _CLASSES)
    x = torch.rand(_ROWS, *built.input_shape)
    copy = search_model.copy_of(built.model.eval().requires_grad_(False), x)
    return _seconds(lambda: outputs(copy.network, x)) / _ROWS


@cache
def _training_pass(network: str, rows: int) -> float:
    """Seconds of a row forward and backward in training, which TrainJob.passes counts as one and a half."""
    built = networks.build(network, _CLASSES)
    x, y = torch.rand(rows, *built.input_shape), torch.zeros(rows, dtype=torch.int64)
    model = built.model.train()
    return _seconds(lambda: F.cross_entropy(model(x), y).backward()) / rows / 1.5


def _seconds(call: Callable[[], object]) -> float:
    """The shortest of a few calls; the first one also prepares what later ones reuse."""
    taken = []
    for _ in range(1 + _TIMED):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return min(taken)
