"""The one training loop: plain torch on one device, every random choice keyed, so that a seed is a result.

Batches are a function of their number (loader.py), dropout is keyed by (seed, step). Choices are made on the
validation split, never on test examples.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from transferbench import data
from transferbench.base import atomic_files, keyed_random, schedules
from transferbench.base.errors import FaultError, InputError
from transferbench.base.versions import versions
from transferbench.data import Dataset, View
from transferbench.data.overlap import without
from transferbench.methods import BaseMethod, Batch, Network, Phase, batch_norms, frozen_copy
from transferbench.models import networks
from transferbench.models.cards import ModelCard
from transferbench.models.victims import Victim, fitted
from transferbench.store.checkpoint_file import NOTHING, Checkpoint, State
from transferbench.training.batches import Loader
from transferbench.training.monitor import Watch

_LOG = logging.getLogger(__name__)

Progress = Callable[[int, int, dict[str, float]], None]
"""Called with (steps done, steps in all, the loss by its parts)."""


@dataclass(frozen=True)
class Trained:
    """The network in eval mode, its validation accuracy (a share), and the log: one row per 10 steps."""

    network: Network
    validation_accuracy: float
    log: list[dict[str, Any]]
    seconds: float


def fit(
    method: BaseMethod[Any],
    source: Network | None,
    fresh: Callable[[], Network],
    train: Dataset,
    val: Dataset,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
    checkpoint: Checkpoint = NOTHING,
    workers: int = 0,
    watch: Watch | None = None,
) -> Trained:
    """Train the method's student on `train`. InputError when the data cannot fill a batch.

    `workers` processes decode images ahead. What `watch` sees on the way goes into the log. FaultError when the loss is
    no longer finite. The source is never changed: the method sees a frozen copy.
    Goes on from the checkpoint where it holds one, to the weights of a training that was never stopped: every
    random choice is keyed by its step, so weights, optimiser, averages and the method's memory are all there is.
    """
    began, params = time.perf_counter(), method.params
    if method.needs_source and source is None:
        raise InputError(f"{type(method).__module__.rpartition('.')[2]} needs a source: give one with --source")
    if len(train.classes) < 2:
        raise InputError(f"{train.id} has one class ({train.classes[0]!r}): there is nothing to tell apart")
    if len(train) < params.batch_size:
        raise InputError(
            f"{train.id} has {len(train)} training images, fewer than a batch of {params.batch_size}: "
            "set batch_size lower"
        )
    teacher = None if source is None else frozen_copy(source)
    saved = checkpoint.load() or {"phase": 0, "log": [], "seconds": 0.0}
    log: list[dict[str, Any]] = saved["log"]
    loader = Loader(train, params, device, workers)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(keyed_random.stream("init", params.seed))
        student = method.student(teacher, fresh, len(train.classes))
        student.model.to(device)
        phases = method.phases()
        if "model" in saved:
            student.model.load_state_dict(saved["model"])
            method.recall(saved["method"])
        else:
            method.prepare(student, teacher, loader.epoch)
        total = sum(phase.steps for phase in phases)

        def state(phase: int) -> State:
            seconds = saved["seconds"] + time.perf_counter() - began
            whole = {"model": student.model.state_dict(), "method": method.memory()}
            return {**whole, "phase": phase, "log": log, "seconds": seconds}

        for number, phase in enumerate(phases):
            if number < saved["phase"]:
                continue
            step = sum(earlier.steps for earlier in phases[:number])
            steps = _Steps(method, phase, student, teacher, loader, step, total, log, watch)
            if number == saved["phase"] and "optimiser" in saved:
                steps.restore(saved)
            for _ in steps.run(progress):
                checkpoint.offer(partial(_with, state, number, steps))
            checkpoint.save(state(number + 1))
        torch.manual_seed(keyed_random.stream("finish", params.seed))
        method.finish(student, loader.epoch)
    student.model.eval().requires_grad_(False)
    correct = 0
    with torch.no_grad():
        for part in val.batches(256):
            correct += int((student.model(part.pixels.to(device)).argmax(1).cpu() == part.labels).sum())
    return Trained(student, correct / len(val), log, saved["seconds"] + time.perf_counter() - began)


def _with(state: Callable[[int], State], number: int, steps: _Steps) -> State:
    return {**state(number), **steps.state()}


class _Steps:
    """One phase with a fresh optimiser, from the global step `start` on."""

    def __init__(
        self,
        method: BaseMethod[Any],
        phase: Phase,
        student: Network,
        teacher: Network | None,
        loader: Loader,
        start: int,
        total: int,
        log: list[dict[str, Any]],
        watch: Watch | None = None,
    ) -> None:
        self.method, self.phase, self.student, self.teacher = method, phase, student, teacher
        self.loader, self.start, self.total, self.log, self.watch = loader, start, total, log, watch
        self.done = 0
        params = method.params
        # What the source brought is frozen; a new head's own batch norm is not.
        norms = {
            name: norm for name, norm in batch_norms(student.model).items() if not method.in_head(student, f"{name}.")
        }
        self.on_statistics = list(norms.values()) if params.freeze_bn in ("stats", "both") else []
        kept = {f"{name}.{part}" for name in norms for part in ("weight", "bias")}
        kept = kept if params.freeze_bn in ("affine", "both") else set()
        trunk: list[nn.Parameter] = []
        heads: list[nn.Parameter] = []
        for name, parameter in student.model.named_parameters():
            parameter.requires_grad_(phase.trains(name) and name not in kept)
            if parameter.requires_grad:
                (heads if method.in_head(student, name) else trunk).append(parameter)
        groups = [(trunk, phase.lr), (heads, phase.lr * (params.head_lr if teacher is not None else 1.0))]
        self.optimiser = torch.optim.SGD(
            [{"params": group, "lr": rate, "base": rate} for group, rate in groups if group],
            lr=phase.lr,
            momentum=params.momentum,
            weight_decay=params.weight_decay,
        )
        self.average = AveragedModel(student.model) if phase.average_every else None

    def state(self) -> State:
        """What `restore` takes, beside the weights and the method's memory."""
        average = None if self.average is None else self.average.state_dict()
        return {"done": self.done, "optimiser": self.optimiser.state_dict(), "average": average}

    def restore(self, saved: State) -> None:
        self.done = saved["done"]
        self.optimiser.load_state_dict(saved["optimiser"])
        if self.average is not None:
            self.average.load_state_dict(saved["average"])

    def run(self, progress: Progress | None = None) -> Iterator[int]:
        """The steps that are left, one by one. FaultError when the loss is no longer finite."""
        with closing(self.loader.from_step(self.start + self.done, self.method.replays)) as batches:
            yield from self._run(batches, progress)

    def _between_looks(self, watch: Watch) -> int:
        return watch.every * self.loader.per_epoch * self.method.replays

    def _run(self, batches: Iterator[Batch], progress: Progress | None) -> Iterator[int]:
        params, phase, model = self.method.params, self.phase, self.student.model
        for local, batch in zip(range(self.done, phase.steps), batches, strict=False):
            for group in self.optimiser.param_groups:
                group["lr"] = group["base"] * schedules.factor(phase.schedule, local, phase.steps)
            torch.manual_seed(keyed_random.stream("dropout", params.seed, batch.step))
            model.train()
            for norm in self.on_statistics:
                norm.eval()
            parts = self.method.loss(self.student, self.teacher, batch)
            loss = torch.stack(list(parts.values())).sum()
            if not bool(torch.isfinite(loss)):
                raise FaultError(
                    f"the loss is {float(loss.detach())} at step {batch.step} of phase {phase.name}: lower lr"
                )
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            self.optimiser.step()
            if self.average is not None and (local + 1) % phase.average_every == 0:
                self.average.update_parameters(model)
            if local % 10 == 0 or local == phase.steps - 1:
                values = {name: float(part.detach()) for name, part in parts.items()}
                self.log.append(
                    {"step": batch.step, "phase": phase.name, "lr": self.optimiser.param_groups[0]["lr"], **values}
                )
                if progress is not None:
                    progress(batch.step + 1, self.total, values)
            if self.watch is not None and (batch.step + 1) % self._between_looks(self.watch) == 0:
                seen = self.watch.look(model, self.loader.device)
                rate = self.optimiser.param_groups[0]["lr"]
                self.log.append({"step": batch.step, "phase": phase.name, "lr": rate, **seen})
                if progress is not None:
                    progress(batch.step + 1, self.total, seen)
            self.done = local + 1
            if local < phase.steps - 1:
                yield self.done
        if self.average is not None:
            with torch.no_grad():
                for mine, averaged in zip(model.parameters(), self.average.module.parameters(), strict=True):
                    mine.copy_(averaged)


@dataclass(frozen=True)
class Recipe:
    """What is trained: a method with its settings on a data set, from a source or from a network's fresh weights.

    `network` names the architecture where there is no source, or where the method trains another than the source's
    (empty: the source's). `untrained` marks a smoke run's. Radii are no part of it: they go onto the card
    afterwards, so that another radius trains nothing anew.
    """

    victim: str
    plugin: str
    settings: dict[str, Any]
    dataset: str
    network: str
    shots: int | None = None
    untrained: bool = False


def train_victim(
    recipe: Recipe,
    method: BaseMethod[Any],
    source: Victim | None,
    train: Dataset,
    val: Dataset,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
    checkpoint: Checkpoint = NOTHING,
    workers: int = 0,
    watch: Watch | None = None,
) -> tuple[nn.Module, ModelCard, Trained]:
    """Train a recipe and describe the result in a card (weights are not written yet). The rest is for `fit`.

    A source of another resolution is put behind a resizing. InputError when source and data do not fit (channels,
    or what `fit` refuses).
    """
    source = None if source is None else fitted(source, train.shape)
    theirs = source.card.network if source is not None else ""
    network = method.network(theirs, recipe.network)
    channels = train.shape[0] if network.endswith(theirs) and theirs else networks.build(network, 2).input_shape[0]
    if channels != train.shape[0]:
        raise InputError(f"network {network} takes {channels} channels, {train.id} has {train.shape[0]}")
    classes = len(train.classes)
    result = fit(
        method,
        None if source is None else Network(source.model, source.layers),
        lambda: Network(*networks.build(network, classes)[:2]),
        train,
        val,
        device,
        progress,
        checkpoint,
        workers,
        watch,
    )
    card = ModelCard(
        id=recipe.victim,
        network=network,
        dataset=recipe.dataset,
        classes=train.classes,
        input_shape=train.shape,
        preprocessing=train.preprocessing,
        shots=recipe.shots,
        untrained=recipe.untrained,
        method=recipe.plugin,
        source=source.id if source is not None else "",
        params=asdict(method.params),
        seed=method.params.seed,
        validation_accuracy=round(result.validation_accuracy, 6),
        versions=versions(),
        text=f"# {recipe.victim}\n\nTrained by transferbench with `{recipe.plugin}` on `{recipe.dataset}`"
        + (f", from `{source.id}`." if source is not None else ", from scratch."),
    )
    return result.network.model, card, result


def identity(
    recipe: Recipe, method: BaseMethod[Any], source: Victim | None, splits: tuple[Dataset, Dataset], device: str
) -> dict[str, Any]:
    """All that decides a training's weights, flat: what an unfinished one is recognised by."""
    return {
        "plugin": recipe.plugin,
        "version": sys.modules[type(method).__module__].VERSION,
        "network": method.network("" if source is None else source.card.network, recipe.network),
        "source": "" if source is None else source.sha256,
        "train": splits[0].fingerprint,
        "val": splits[1].fingerprint,
        "device": torch.device(device).type,
        **{f"set {name}": value for name, value in asdict(method.params).items()},
    }


@contextmanager
def resumable(folder: Path, what: dict[str, Any], fresh: bool = False) -> Iterator[Checkpoint]:
    """A training's unfinished work in its folder, which is locked meanwhile; `what` names all that decides it.

    InputError where the folder holds the unfinished work of something else, naming what differs; `fresh` drops it.
    """
    made = not folder.exists()
    named, checkpoint = folder / "unfinished.json", Checkpoint(folder / "unfinished")
    text = json.dumps(what, sort_keys=True)
    with atomic_files.locked(folder):
        if fresh or not named.is_file():
            checkpoint.remove()
        elif (changed := _changed(named.read_text(encoding="utf-8"), what)) is not None:
            raise InputError(
                f"--out {folder}: an unfinished training of something else is there ({changed}): --fresh drops it"
            )
        atomic_files.write_text(named, text)
        try:
            yield checkpoint
        except InputError:
            # Refused, not interrupted: nothing of it is left.
            if made:
                shutil.rmtree(folder)
            raise
        checkpoint.remove()
        named.unlink()


def _changed(text: str, what: dict[str, Any]) -> str | None:
    """What differs from an earlier `what`, in words; None where nothing does."""
    try:
        before = dict(json.loads(text))
    except (ValueError, TypeError):
        return "unfinished.json is damaged"
    names = sorted(name for name in before.keys() | what.keys() if before.get(name) != what.get(name))
    return "; ".join(f"{name}: {before.get(name)} -> {what.get(name)}" for name in names[:3]) if names else None


def load_splits(
    dataset: str, root: Path | None = None, view: View | None = None, shots: int | None = None, seed: int = 0
) -> tuple[Dataset, Dataset]:
    """The training split (`shots` examples per class of it) and the validation split, less what is also a test image.

    InputError when training and validation share an example.
    """
    train, val = data.load(dataset, "train", root, view), data.load(dataset, "val", root, view)
    if set(train.ids.tolist()) & set(val.ids.tolist()):
        raise InputError(f"data set {dataset}: training and validation splits share examples")
    try:
        test = data.load(dataset, "test", root, view)
    except InputError as error:
        # Who only trains needs no test images.
        _LOG.info("validation images are not compared with test images: %s", error)
    else:
        val = without(val, test)
    return (train if shots is None else train.shots(shots, seed)), val


def write_log(path: Path, log: list[dict[str, Any]]) -> None:
    """The log as CSV, a column for every part of the loss in any phase; empty where a phase has no such part."""
    columns = list(dict.fromkeys(name for row in log for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(log)
    atomic_files.write_text(path, text.getvalue())
