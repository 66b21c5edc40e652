"""One training method, one file: what differs between papers and nothing else.

A file of this folder is a method: its id is the file's stem with `_` written `-`, its first docstring line the
description; it has a class `Method` and a frozen dataclass `Params` of hyper-parameters whose defaults are the
paper's code's. The loop that drives them is train.py.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar

import torch.nn.functional as F
from pydantic import Field, TypeAdapter, ValidationError
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from transferbench.base import registry
from transferbench.base.errors import InputError
from transferbench.base.schedules import Schedule
from transferbench.models import heads
from transferbench.models.cards import first_problem
from transferbench.models.features import Layers

Positive = Annotated[int, Field(ge=1)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class BaseParams:
    """The keys every plugin has. `steps` is the whole training; phases take fixed shares of it.

    `head_lr` multiplies the rate of a newly initialised head. `schedule` is restarted in every phase. `augment` auto
    is the data set's own pipeline: crop and flip for small colour images, resized crop and flip for photographs.
    `freeze_bn` keeps batch norm as the source has it: `stats` its running statistics (batch norm then runs on them),
    `affine` its scales and shifts, `both`; freezing it is said to inherit more robustness (CARTL, arXiv:2106.06667).
    `from_scratch` takes nothing of a source but its architecture; for methods that can do without one.
    """

    steps: Positive = 30_000
    batch_size: Positive = 64
    lr: NotNegative = 1e-2
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: NotNegative = 1e-4
    schedule: Schedule = "cosine"
    seed: int = 0
    head_lr: NotNegative = 1.0
    augment: Literal["auto", "none", "crop-flip", "resized-crop-flip"] = "auto"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    freeze_bn: Literal["none", "stats", "affine", "both"] = "none"
    from_scratch: bool = False


P = TypeVar("P", bound=BaseParams)


class Batch(NamedTuple):
    """x [B, C, H, W] in [0,1], y int64 [B]; `noise` int64 [B] keys every random draw of this step; `step`."""

    x: Tensor
    y: Tensor
    noise: Tensor
    step: int


class Network(NamedTuple):
    """A network in training, with where its features are."""

    model: nn.Module
    layers: Layers


@dataclass(frozen=True)
class Phase:
    """A stretch of training with an optimiser of its own (momentum starts afresh).

    `trains` says by parameter name what is updated; `average_every` n steps a snapshot enters the stochastic weight
    average, which replaces the weights at the end of the phase.
    """

    name: str
    steps: int
    lr: float
    schedule: Schedule
    trains: Callable[[str], bool] = field(default=lambda _: True)
    average_every: int = 0


class BaseMethod(Generic[P]):
    """Defaults of a method: a source copy with a new head, one phase that trains everything, cross-entropy."""

    needs_source = True
    """False: it also trains a network from scratch."""

    def __init__(self, params: P) -> None:
        self.params = params
        self.state: dict[str, float] = {}
        """Statistics that a method carries from step to step (E-AT's running accuracies)."""
        self.replays = 1
        """How many steps in a row are taken on each batch (free adversarial training)."""

    def network(self, source: str, given: str) -> str:
        """The id of the student's architecture: the source's, else the one that was given."""
        return source or given

    def student(self, source: Network | None, fresh: Callable[[], Network], num_classes: int) -> Network:
        """The network to train. `fresh()` makes a randomly initialised one of the architecture `network` names."""
        if source is None or self.params.from_scratch:
            return fresh()
        model = copy.deepcopy(source.model).requires_grad_(True)
        heads.linear(model, source.layers, num_classes)
        return Network(model, source.layers)

    def in_head(self, student: Network, name: str) -> bool:
        """Whether a parameter of the student belongs to its new head."""
        return name.startswith(f"{student.layers.head}.")

    def prepare(self, student: Network, source: Network | None, batches: Callable[[], Iterator[Batch]]) -> None:
        """What is done before the first step; `batches()` is one epoch. A resumed training does not repeat it: what
        it finds out belongs into `memory`."""

    def phases(self) -> list[Phase]:
        params = self.params
        return [Phase("all", params.steps, params.lr, params.schedule)]

    def loss(self, student: Network, source: Network | None, batch: Batch) -> dict[str, Tensor]:
        """The loss by its parts; their sum is minimised."""
        return {"ce": self.cross_entropy(student.model(batch.x), batch.y)}

    def cross_entropy(self, logits: Tensor, y: Tensor) -> Tensor:
        """The mean over the batch, with the label smoothing of the parameters."""
        return F.cross_entropy(logits, y, label_smoothing=self.params.label_smoothing)

    def memory(self) -> dict[str, Any]:
        """What the method carries from step to step beside the student's weights: tensors, numbers, lists, dicts.

        An interrupted training gives it to `recall` of a new method whose `student` was made again.
        """
        return {"state": self.state}

    def recall(self, memory: dict[str, Any]) -> None:
        self.state = memory["state"]

    def finish(self, student: Network, batches: Callable[[], Iterator[Batch]]) -> None:
        """What is done after the last step (re-estimating batch norm, say). `batches()` is one epoch."""


def reinitialise(model: nn.Module) -> None:
    """PyTorch's default initialisation on every layer that has one, running statistics included."""
    for module in model.modules():
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()


def build(id: str, settings: dict[str, Any]) -> BaseMethod[Any]:
    """The method of an id with its hyper-parameters from text or numbers, each typed and checked.

    InputError for an unknown method or name (with what exists) or a bad value (with what is allowed).
    """
    module = registry.find("methods", id).load()
    params: Any = module.Params
    known = {item.name: item.default for item in fields(params)}
    for name, value in settings.items():
        if name not in known:
            raise InputError(registry.unknown(f"hyper-parameter of {id}:", name, known))
        if isinstance(value, bool) and not isinstance(known[name], bool):
            # YAML reads `no` and `off` as False, which would count as 0.
            raise InputError(f"method {id}: {name}={value} is a yes or no, expected a value like {known[name]!r}")
    try:
        checked = TypeAdapter(params).validate_python(settings)
    except ValidationError as error:
        raise InputError(f"method {id}: {first_problem(error)}") from None
    method: BaseMethod[Any] = module.Method(checked)
    if checked.from_scratch and method.needs_source:
        raise InputError(f"method {id}: from_scratch=True, but it takes its features or weights from a source")
    return method


def batch_norms(model: nn.Module) -> dict[str, nn.Module]:
    """The batch norm layers by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, _BatchNorm)}


def frozen_copy(network: Network) -> Network:
    """The network in eval mode without parameter gradients: a teacher."""
    return Network(copy.deepcopy(network.model).eval().requires_grad_(False), network.layers)
