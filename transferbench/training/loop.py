"""The training loop: plain torch on one device, with keyed random numbers, so that the seed determines the result.

Batches are a function of their number (batches.py), dropout is keyed by (seed, step). Test examples are not used.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from transferbench.base import keyed_random, schedules
from transferbench.base.checkpoint import NO_CHECKPOINT, Checkpoint, State
from transferbench.base.errors import FaultError, InputError
from transferbench.base.progress import OnProgress, Progress, ignore
from transferbench.base.results import TrainingPasses
from transferbench.data import Dataset
from transferbench.methods import BaseMethod, Batch, Network, Phase, batch_norms, decay_of, frozen_copy
from transferbench.training.batches import Loader
from transferbench.training.monitor import RobustnessMonitor
from transferbench.training.passes import PassCounter

LogRow = dict[str, int | float | str]
"""step, phase, lr, and either the loss by its parts or the monitor's accuracies."""
LOG_EVERY = 10


@dataclass(frozen=True)
class FitOptions:
    """How a training is run; none of the options changes a weight.

    `on_progress` is called with the steps done, their total and the terms of the loss. `loader_workers` processes
    decode images in advance. The measurements of `monitor` are rows of the log. The training continues from the state
    of `checkpoint`, if it has one.
    """

    device: torch.device | str = "cpu"
    on_progress: OnProgress = ignore
    checkpoint: Checkpoint = NO_CHECKPOINT
    loader_workers: int = 0
    monitor: RobustnessMonitor | None = None


FIT_OPTIONS = FitOptions()


@dataclass(frozen=True)
class Trained:
    """The network in eval mode, its validation accuracy in [0, 1] (None without validation images), the log (a row
    every 10 steps), wall time in s, and the passes (None where it continued from a checkpoint that did not count)."""

    network: Network
    validation_accuracy: float | None
    log: list[LogRow]
    seconds: float
    passes: TrainingPasses | None = None


def fit(
    method: BaseMethod[Any],
    source: Network | None,
    fresh: Callable[[], Network],
    train: Dataset,
    val: Dataset | None,
    options: FitOptions = FIT_OPTIONS,
) -> Trained:
    """Train the method's student on `train`. `fresh()` returns a random network of the student's architecture.

    The source is not changed: the method uses a frozen copy. A resumed training has the same result, bit for bit,
    because random numbers are keyed by the step: weights, optimiser, averages and the method's memory are the whole
    state. `val` only measures the result; None leaves that out. InputError when the data do not fill a batch,
    FaultError when the loss is not finite.
    """
    began, params = time.perf_counter(), method.params
    check(method, source is not None, train)
    teacher = None if source is None else frozen_copy(source)
    saved = options.checkpoint.load() or {"phase": 0, "log": [], "seconds": 0.0}
    loader = Loader(train, params, options.device, options.loader_workers)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(keyed_random.stream("init", params.seed))
        student = method.student(teacher, fresh, len(train.classes))
        student.model.to(options.device)
        counter = PassCounter(TrainingPasses(**saved["passes"]) if "passes" in saved else None)
        for network in (student, *([] if teacher is None else [teacher]), *method.further_networks):
            counter.count(network)
        is_counted = "passes" in saved or "model" not in saved
        if "model" in saved:
            student.model.load_state_dict(saved["model"])
            method.recall(saved["method"])
        else:
            method.prepare(student, teacher, loader.epoch)
        phases = method.phases()
        training = _Training(method, student, teacher, loader, options, sum(phase.steps for phase in phases))
        training.log, training.counter = saved["log"], counter

        def state(phase: int) -> State:
            seconds = saved["seconds"] + time.perf_counter() - began
            weights = {"model": student.model.state_dict(), "method": method.memory()}
            passes = {"passes": asdict(counter.passes)} if is_counted else {}
            return {**weights, **passes, "phase": phase, "log": training.log, "seconds": seconds}

        for number, phase in enumerate(phases):
            if number < saved["phase"]:
                continue
            steps = _PhaseSteps(training, phase, sum(earlier.steps for earlier in phases[:number]))
            if number == saved["phase"] and "optimiser" in saved:
                steps.restore(saved)
            for _ in steps.run():
                options.checkpoint.offer(_phase_state(state, number, steps))
            options.checkpoint.save(state(number + 1))
        torch.manual_seed(keyed_random.stream("finish", params.seed))
        method.finish(student, loader.epoch)
        method.strip(student)
    counter.remove()
    student.model.eval().requires_grad_(False)
    accuracy = None if val is None else _accuracy(student.model, val, options.device)
    seconds = saved["seconds"] + time.perf_counter() - began
    return Trained(student, accuracy, training.log, seconds, counter.passes if is_counted else None)


def check(method: BaseMethod[Any], has_source: bool, train: Dataset) -> None:
    """InputError when the method lacks its source, or the data have one class or do not fill a batch."""
    if method.needs_source and not has_source:
        raise InputError(f"{method.id} needs a source: give one with --source")
    augment = train.augment if method.params.augment == "auto" else method.params.augment
    if augment != "crop-flip" and method.params.crop_padding != method.defaults.crop_padding:
        raise InputError(
            f"crop_padding={method.params.crop_padding}: nothing is padded with augmentation {augment}; leave it out"
        )
    if len(train.classes) < 2:
        raise InputError(f"{train.id} has one class ({train.classes[0]!r}): there is nothing to tell apart")
    if len(train) < method.params.batch_size:
        raise InputError(
            f"{train.id} has {len(train)} training images, fewer than a batch of {method.params.batch_size}: "
            "set batch_size lower"
        )


def _accuracy(model: nn.Module, dataset: Dataset, device: torch.device | str) -> float:
    """The share of correctly classified examples."""
    correct = 0
    with torch.no_grad():
        for part in dataset.batches(256):
            correct += int((model(part.pixels.to(device)).argmax(1).cpu() == part.labels).sum())
    return correct / len(dataset)


def _phase_state(state: Callable[[int], State], phase: int, steps: _PhaseSteps) -> Callable[[], State]:
    """A function that returns the state of the training within a phase."""
    return lambda: {**state(phase), **steps.state()}


@dataclass
class _Training:
    """The objects that all phases of a training share."""

    method: BaseMethod[Any]
    student: Network
    teacher: Network | None
    loader: Loader
    options: FitOptions
    total: int
    log: list[LogRow] = field(default_factory=list)
    counter: PassCounter = field(default_factory=PassCounter)

    def record(self, step: int, phase: Phase, lr: float, values: dict[str, float]) -> None:
        """Append a row to the log and report progress."""
        self.log.append({"step": step, "phase": phase.name, "lr": lr, **values})
        self.options.on_progress(Progress(step + 1, self.total, values=values))

    def monitor_due(self, step: int) -> bool:
        """Whether the monitor measures after this step."""
        monitor = self.options.monitor
        return monitor is not None and (step + 1) % (monitor.every * self.loader.per_epoch * self.method.replays) == 0


class _PhaseSteps:
    """One phase with a new optimiser, which begins at step `start` of the training."""

    def __init__(self, training: _Training, phase: Phase, start: int) -> None:
        self.training, self.phase, self.start, self.done = training, phase, start, 0
        method, student = training.method, training.student
        params = method.params
        # Only the source's batch norms are frozen, not those of a new head.
        norms = {
            name: norm for name, norm in batch_norms(student.model).items() if not method.in_head(student, f"{name}.")
        }
        self.frozen_statistics = list(norms.values()) if params.freeze_bn in ("stats", "both") else []
        affine = {f"{name}.{part}" for name in norms for part in ("weight", "bias")}
        frozen = affine if params.freeze_bn in ("affine", "both") else set()
        head_lr = phase.lr * (params.head_lr if training.teacher is not None else 1.0)
        # (learning rate, weight decay): parameters. The first group's rate is the one in the log.
        weight_decay = params.weight_decay if phase.weight_decay is None else phase.weight_decay
        head_decay = params.head_decay if training.teacher is not None else 1.0
        groups: dict[tuple[float, float], list[nn.Parameter]] = {
            (rate, decay): [] for rate in (phase.lr, head_lr) for decay in (weight_decay, 0.0)
        }
        for name, parameter in student.model.named_parameters():
            parameter.requires_grad_(phase.trains(name) and name not in frozen)
            if parameter.requires_grad:
                is_head = method.in_head(student, name)
                rate = head_lr if is_head else phase.lr
                decay = decay_of(parameter, params, phase.weight_decay) * (head_decay if is_head else 1.0)
                groups.setdefault((rate, decay), []).append(parameter)
        options = [
            {"params": group, "lr": rate, "base": rate, "weight_decay": decay}
            for (rate, decay), group in groups.items()
            if group
        ]
        self.optimiser: torch.optim.Optimizer
        if (phase.optimiser or params.optimiser) == "adamw":
            self.optimiser = torch.optim.AdamW(options, lr=phase.lr, betas=(params.momentum, params.beta2))
        else:
            self.optimiser = torch.optim.SGD(options, lr=phase.lr, momentum=params.momentum)
        if phase.average_every and params.ema:
            raise InputError(f"ema={params.ema}: this method averages the weights of phase {phase.name} already")
        self.average = AveragedModel(student.model) if phase.average_every else None
        if params.ema:
            self.average = AveragedModel(student.model, multi_avg_fn=get_ema_multi_avg_fn(params.ema))

    def state(self) -> State:
        """The state for `restore`: steps done, optimiser and weight average."""
        average = None if self.average is None else self.average.state_dict()
        return {"done": self.done, "optimiser": self.optimiser.state_dict(), "average": average}

    def restore(self, saved: State) -> None:
        """Continue from a checkpoint."""
        self.done = saved["done"]
        self.optimiser.load_state_dict(saved["optimiser"])
        if self.average is not None:
            self.average.load_state_dict(saved["average"])

    def run(self) -> Iterator[int]:
        """Run the remaining steps; yields the number of steps done after each but the last.

        FaultError when the loss is not finite.
        """
        training = self.training
        with closing(training.loader.from_step(self.start + self.done, training.method.replays)) as batches:
            for local, batch in zip(range(self.done, self.phase.steps), batches, strict=False):
                self._step(local, batch)
                self.done = local + 1
                if local < self.phase.steps - 1:
                    yield self.done
        if self.average is not None:
            with torch.no_grad():
                averages = self.average.module.parameters()
                for parameter, average in zip(training.student.model.parameters(), averages, strict=True):
                    parameter.copy_(average)

    def _step(self, local: int, batch: Batch) -> None:
        """One optimiser step; `local` is its number within the phase, `batch.step` within the training."""
        training, phase, model = self.training, self.phase, self.training.student.model
        params = training.method.params
        for group in self.optimiser.param_groups:
            group["lr"] = group["base"] * schedules.warmed(phase.schedule, local, phase.steps, params.warm_up)
        torch.manual_seed(keyed_random.stream("dropout", params.seed, batch.step))
        model.train(phase.mode == "train")
        for norm in self.frozen_statistics:
            norm.eval()
        is_mixed = params.precision == "bf16"
        with torch.autocast(batch.x.device.type, torch.bfloat16, enabled=is_mixed):
            parts: dict[str, Tensor] = training.method.loss(training.student, training.teacher, batch)
        loss = torch.stack([part.float() for part in parts.values()]).sum()
        if not bool(torch.isfinite(loss)):
            raise FaultError(f"the loss is {float(loss.detach())} at step {batch.step} of phase {phase.name}: lower lr")
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if params.clip:
            nn.utils.clip_grad_norm_(model.parameters(), params.clip)
        self.optimiser.step()
        training.method.after_step(training.student, batch)
        done = local + 1
        if self.average is not None and done > phase.average_after and done % (phase.average_every or 1) == 0:
            self.average.update_parameters(model)
        lr = self.optimiser.param_groups[0]["lr"]
        if local % LOG_EVERY == 0 or local == phase.steps - 1:
            training.record(batch.step, phase, lr, {name: float(part.detach()) for name, part in parts.items()})
        monitor = training.options.monitor
        if monitor is not None and training.monitor_due(batch.step):
            passes = training.counter.passes
            training.record(batch.step, phase, lr, monitor.measure(model, training.options.device))
            # Measuring is no part of the training.
            training.counter.passes = passes
