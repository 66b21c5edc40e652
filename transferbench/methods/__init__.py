"""Training methods, one per file: what differs between papers and nothing else.

A file of this folder is a method. Its id is the file's stem with `_` written `-`; the first line of its docstring is
its description, and labelled paragraphs (`Paper:`, `Loss:`, `Phases:`, `Options:`, `Deviations:`) are its line in
docs/methods.md. It has an integer `VERSION`, a frozen dataclass `Params` of hyper-parameters whose defaults are those
of the paper's code, and a class `Method`. training/loop.py runs it. Named settings of a method are literals in its
file: a literal `IDS = {"id": "one line"}` and `PRESETS = {"id": {name: value}}`; a change of one raises the `VERSION`.
A literal `NEEDS = {"id": "batch norm"}` says what a method needs of a network, for `list methods`; `student` refuses
others.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from fractions import Fraction
from functools import cache
from typing import Annotated, Any, Generic, Literal, NamedTuple, Protocol, TypeVar

import torch.nn.functional as F
from pydantic import Field, TypeAdapter, ValidationError
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from transferbench.base import registry, schedules
from transferbench.base.errors import InputError
from transferbench.base.schedules import RadiusSchedule, Schedule
from transferbench.base.specifications import Epsilon
from transferbench.base.strict_model import first_problem
from transferbench.models import adapters, heads, low_rank
from transferbench.models.features import Layers

Positive = Annotated[int, Field(ge=1)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Decay = Literal["all", "weights"]
Padding = Annotated[int, Field(ge=0)] | Literal["auto"]
Share = Annotated[float, Field(ge=0, le=1)]
Optimiser = Literal["sgd", "adamw"]
HeadInit = Literal["random", "zero", "focal"]

LATER = {"later": True}
"""Metadata of a hyper-parameter that came when trainings were already kept: `stated` leaves it out at its default."""


@dataclass(frozen=True)
class BaseParams:
    """The hyper-parameters of every method. `steps` is the number of optimiser steps over all phases.

    `head_lr` multiplies the learning rate of a newly initialised head. `schedule` restarts in every phase.
    `augment=auto` is the data set's own augmentation: crop and flip for small colour images, resized crop and flip for
    photographs. `freeze_bn` freezes the source's batch norm: `stats` its running statistics, which it then uses in
    training too, `affine` its scales and shifts, `both`; freezing may preserve more robustness (CARTL,
    arXiv:2106.06667). `from_scratch` uses only the source's architecture, for methods that do not need a source.
    `new_head=auto` keeps the source's classifier where the target's classes are the source's in the same order
    (training/victim.py), and starts from a random one elsewhere; `no` requires that, `yes` always starts anew.

    `decay=weights` leaves out what has one dimension, batch norm and biases; what has two or more (convolutions and
    linear layers) decays always. `crop_padding` is in pixels, for crop and flip; `auto` is an eighth of the side.
    `validation=none` trains on the training and validation images together; there is no validation accuracy then.
    Weights are those after the last step in any case. `partial_batches` keeps the images at an epoch's end that do not
    fill a batch, but for a single one, of which batch norm may have no variance; otherwise they are omitted.
    `precision=bf16` makes the passes of every step, inner attacks included, in mixed precision (torch.autocast); the
    weights and the optimiser stay in float32.

    `optimiser=adamw`: `momentum` is its first beta, `beta2` the second, and the decay is decoupled from the gradient.
    `warm_up` is the share of a phase's steps in which the rate grows to `lr`, by equal steps; the schedule runs over
    the rest. `clip` bounds the length of the whole gradient (0: no bound). `ema` is the decay of an exponential moving
    average of the weights, which replaces them at the end of a phase (0: none); batch norm's statistics are the last
    ones. `head_decay` multiplies the weight decay of a new head. `head_init`: the new linear head begins with PyTorch's
    random weights, or as `zero` or `focal` (models/heads.py).
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
    new_head: Literal["auto", "yes", "no"] = "auto"
    decay: Decay = "all"
    crop_padding: Padding = "auto"
    validation: Literal["tenth", "none"] = "tenth"
    partial_batches: bool = False
    precision: Literal["fp32", "bf16"] = "fp32"
    optimiser: Optimiser = field(default="sgd", metadata=LATER)
    beta2: Annotated[float, Field(ge=0, lt=1)] = field(default=0.999, metadata=LATER)
    warm_up: Annotated[float, Field(ge=0, lt=1)] = field(default=0.0, metadata=LATER)
    clip: NotNegative = field(default=0.0, metadata=LATER)
    ema: Annotated[float, Field(ge=0, lt=1)] = field(default=0.0, metadata=LATER)
    head_decay: NotNegative = field(default=1.0, metadata=LATER)
    head_init: HeadInit = field(default="random", metadata=LATER)


def stated(params: BaseParams) -> dict[str, Any]:
    """The hyper-parameters as cards and jobs state them.

    Those that came later are left out at their defaults, so that finished trainings keep their names.
    """
    pairs = ((item, getattr(params, item.name)) for item in fields(params))
    return {item.name: value for item, value in pairs if item.metadata != LATER or value != item.default}


@dataclass(frozen=True)
class AdversarialParams(BaseParams):
    """The hyper-parameters of every method that attacks while it trains.

    `eps_schedule` is the radius over the training (arXiv:2509.23325): `constant`, `linear` from 0 up to the radius at a
    share `eps_to` of all steps, or `hinge`, 0 until `eps_from` and then likewise. The paper's are epochs 12 and 37 of
    50. At radius 0 there is no attack, and the images are clean. Deviation: the radius changes from step to step, not
    from epoch to epoch.

    `tune` is what is trained beside the head: `all` weights, none (`head`), every `bias`, `lora` or `adapter`. In all
    but the first the network stays in eval mode. LoRA (models/low_rank.py) has rank `lora_rank` and scale `lora_alpha`
    over it, and is merged into the weights at the end. Adapters (models/adapters.py) have the width over
    `adapter_reduction`; the trained network is `adapter:<reduction>:<network>`.
    """

    eps_schedule: RadiusSchedule = field(default="constant", metadata=LATER)
    eps_from: Share = field(default=0.24, metadata=LATER)
    eps_to: Share = field(default=0.74, metadata=LATER)
    tune: Literal["all", "head", "bias", "lora", "adapter"] = field(default="all", metadata=LATER)
    lora_rank: Positive = field(default=16, metadata=LATER)
    lora_alpha: NotNegative = field(default=16.0, metadata=LATER)
    adapter_reduction: Positive = field(default=8, metadata=LATER)

    def __post_init__(self) -> None:
        """InputError where the radius would begin to grow after it has grown."""
        if (0 if self.eps_schedule == "linear" else self.eps_from) >= self.eps_to:
            raise InputError(f"eps_from={self.eps_from} is not below eps_to={self.eps_to}: the radius grows between")


P = TypeVar("P", bound=BaseParams)
A = TypeVar("A", bound=AdversarialParams)


class Batch(NamedTuple):
    """The images x [B, C, H, W] in [0,1] and labels y int64 [B] of a step.

    `noise` int64 [B] keys the step's random numbers; `step` is the number of the step over all phases.
    """

    x: Tensor
    y: Tensor
    noise: Tensor
    step: int


class Epochs(Protocol):
    """The batches of an epoch of the training images, by its number."""

    def __call__(self, number: int = 0, /) -> Iterator[Batch]: ...


class Network(NamedTuple):
    """A network and the names of its feature layers."""

    model: nn.Module
    layers: Layers


@dataclass(frozen=True)
class Phase:
    """A part of the training with a new optimiser (momentum starts at zero).

    `trains(name)`: whether a parameter is updated. With `average_every` n, every n-th step's weights enter a stochastic
    weight average, which replaces the weights at the end of the phase; the first `average_after` steps' do not. In
    `mode` eval batch norm uses its running statistics, and nothing is dropped. `optimiser` and `weight_decay` are for a
    phase whose own differ from the parameters'.
    """

    name: str
    steps: int
    lr: float
    schedule: Schedule
    trains: Callable[[str], bool] = field(default=lambda _: True)
    average_every: int = 0
    average_after: int = 0
    mode: Literal["train", "eval"] = "train"
    optimiser: Optimiser | None = None
    weight_decay: float | None = None


class BaseMethod(Generic[P]):
    """The defaults of a method: a copy of the source with a new head, one phase for all weights, cross-entropy."""

    needs_source = True
    """Whether the method cannot train a network from scratch."""
    uses_source = True
    """Whether the source's weights enter the training; otherwise nothing but its architecture does."""
    can_keep_head = True
    """Whether the student may start with the source's classifier."""
    extends = ""
    """The id of the method that this one adds to, by its paper; empty for a baseline. A preset's is its method."""
    variants: tuple[str, ...] = ()
    """Hyper-parameters of which a value other than the default is an extension of its own (`tune=lora`)."""

    def __init__(self, params: P) -> None:
        self.params = params
        self.id = ""
        """The name under which it was built, a preset's too."""
        self.defaults: BaseParams = type(params)()
        """The hyper-parameters where nothing is set, a preset's too."""
        self.state: dict[str, float] = {}
        """Statistics that the method updates from step to step (E-AT's running accuracies)."""
        self.replays = 1
        """The number of consecutive steps on each batch (free adversarial training)."""
        self.keeps_head = False
        """Whether `student` keeps the source's classifier; set before it is called."""
        self.further_networks: list[Network] = []
        """Networks beside student and source that `student` makes and the method runs: their passes are counted."""

    @property
    def variant(self) -> dict[str, str]:
        """The `variants` that are not at their defaults."""
        pairs = ((name, getattr(self.params, name)) for name in self.variants)
        return {name: str(value) for name, value in pairs if value != getattr(self.defaults, name)}

    @property
    def passes_per_step(self) -> float:
        """About how many gradient passes of an image a step takes, the attack's included: for estimates of time."""
        return 1.0

    def network(self, source: str, requested: str) -> str:
        """The id of the student's architecture: the source's, or without a source the requested one."""
        return source or requested

    def student(self, source: Network | None, fresh: Callable[[], Network], num_classes: int) -> Network:
        """The network to train. `fresh()` returns a randomly initialised network of the architecture `network()`."""
        if source is None or self.params.from_scratch:
            return fresh()
        model = copy.deepcopy(source.model).requires_grad_(True)
        if not self.keeps_head:
            heads.linear(model, source.layers, num_classes)
            if self.params.head_init != "random":
                heads.initialise(model, source.layers, self.params.head_init)
        return Network(model, source.layers)

    def in_head(self, student: Network, name: str) -> bool:
        """Whether the student's parameter of that name belongs to its new head."""
        return not self.keeps_head and name.startswith(f"{student.layers.head}.")

    def prepare(self, student: Network, source: Network | None, batches: Epochs) -> None:
        """Called before the first step; `batches()` is the first epoch, `batches(1)` the second. A resumed training
        does not call it again: results must be part of `memory`."""

    def phases(self) -> list[Phase]:
        """The phases of the training, in order."""
        params = self.params
        return [Phase("all", params.steps, params.lr, params.schedule)]

    def loss(self, student: Network, source: Network | None, batch: Batch) -> dict[str, Tensor]:
        """The terms of the loss by name; their sum is minimised."""
        return {"ce": self.cross_entropy(student.model(batch.x), batch.y)}

    def after_step(self, student: Network, batch: Batch) -> None:
        """Called after every step of the optimiser with its batch, to train other networks than the student."""

    def cross_entropy(self, logits: Tensor, y: Tensor) -> Tensor:
        """The mean cross-entropy of the batch, with the parameters' label smoothing."""
        return F.cross_entropy(logits, y, label_smoothing=self.params.label_smoothing)

    def memory(self) -> dict[str, Any]:
        """The method's state besides the student's weights, for checkpoints: tensors, numbers, lists, dictionaries."""
        return {"state": self.state}

    def recall(self, memory: dict[str, Any]) -> None:
        """Restore `memory`; called after `student` when a training is resumed."""
        self.state = memory["state"]

    def finish(self, student: Network, batches: Callable[[], Iterator[Batch]]) -> None:
        """Called after the last step (to re-estimate batch norm, for example). `batches()` is one epoch."""

    def strip(self, student: Network) -> None:
        """Bring the student into the form that the network of its id has, in place: called last, after `finish`."""


class AdversarialMethod(BaseMethod[A]):
    """A method that attacks while it trains. `radius` alone says how far, `main` what is trained."""

    needs_source = False
    variants: tuple[str, ...] = ("tune", "eps_schedule")

    def __init__(self, params: A) -> None:
        super().__init__(params)
        # A part of the weights can only be trained in a network whose others were.
        self.needs_source = type(self).needs_source or params.tune != "all"

    def network(self, source: str, requested: str) -> str:
        network = super().network(source, requested)
        return f"adapter:{self.params.adapter_reduction}:{network}" if self.params.tune == "adapter" else network

    def student(self, source: Network | None, fresh: Callable[[], Network], num_classes: int) -> Network:
        student, params = super().student(source, fresh, num_classes), self.params
        self.head = f"{student.layers.head}."
        if params.tune == "lora":
            low_rank.insert(student.model, student.layers, params.lora_rank, params.lora_alpha)
        if params.tune == "adapter":
            adapters.insert(student.model, params.adapter_reduction)
        return student

    def strip(self, student: Network) -> None:
        low_rank.merge(student.model)

    def phases(self) -> list[Phase]:
        return [self.main(self.params.steps)]

    def main(self, steps: int) -> Phase:
        """A phase of so many steps that trains what `tune` says."""
        params = self.params
        if params.tune == "all":
            return Phase("all", steps, params.lr, params.schedule)
        return Phase(params.tune, steps, params.lr, params.schedule, self._is_tuned, mode="eval")

    def _is_tuned(self, name: str) -> bool:
        tune = self.params.tune
        part = name.endswith("bias") if tune == "bias" else low_rank.is_part(name) or adapters.is_part(name)
        return name.startswith(self.head) or (tune != "head" and part)

    def radius(self, eps: Epsilon, step: int) -> Epsilon | None:
        """The radius of a step, of all phases' steps: `eps` or a part of it. None: the step's images are clean."""
        params = self.params
        start, end = (Fraction(repr(share)) for share in (params.eps_from, params.eps_to))
        share = schedules.radius_factor(params.eps_schedule, Fraction(step, params.steps), start, end)
        if share in (0, 1):
            return eps if share else None
        return Epsilon(str(eps.value * share), eps.value * share)


def reinitialise(model: nn.Module) -> None:
    """Apply PyTorch's default initialisation to every layer that has one, running statistics included."""
    for module in model.modules():
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()


@cache
def _adapter(params_class: type[Any]) -> TypeAdapter[Any]:
    """Making one takes 20 ms, and a plan has thousands of trainings to name."""
    return TypeAdapter(params_class)


def build(id: str, settings: dict[str, Any]) -> BaseMethod[Any]:
    """The method of an id, a preset's too, with hyper-parameters as text or numbers, converted to their types and
    checked.

    InputError for an unknown method, an unknown hyper-parameter or a bad value, with what is allowed.
    """
    module = registry.find("methods", id).load()
    preset = getattr(module, "PRESETS", {}).get(id, {})
    params_class: Any = module.Params
    defaults = {item.name: item.default for item in fields(params_class)}
    for name, value in settings.items():
        if name not in defaults:
            raise InputError(registry.unknown(f"hyper-parameter of {id}:", name, defaults))
        if isinstance(value, bool) and not isinstance(defaults[name], bool):
            # YAML reads `no` and `off` as False, which would be converted to 0.
            raise InputError(f"method {id}: {name}={value} is a yes or no, expected a value like {defaults[name]!r}")
    try:
        params = _adapter(params_class).validate_python({**preset, **settings})
    except ValidationError as error:
        raise InputError(f"method {id}: {first_problem(error)}") from None
    method: BaseMethod[Any] = module.Method(params)
    method.id, method.defaults = id, _adapter(params_class).validate_python(preset)
    method.extends = registry.preset_of(registry.find("methods", id)) or method.extends
    if params.from_scratch and method.needs_source:
        raise InputError(f"method {id}: from_scratch=True, but it takes its features or weights from a source")
    if params.head_init != "random" and (params.from_scratch or not method.can_keep_head):
        raise InputError(f"method {id}: head_init={params.head_init}, but its head is not the linear one of a source")
    if params.new_head == "no" and (params.from_scratch or not method.can_keep_head):
        raise InputError(f"method {id}: new_head=no, but the network starts without the source's classifier")
    return method


def lineage(method: BaseMethod[Any]) -> list[str]:
    """The ids of the methods that a method adds to: what it extends, what that extends, and so on to a baseline.

    InputError where one of them does not exist.
    """
    ids: list[str] = []
    following = method.extends
    while following and following not in ids:
        ids.append(following)
        entry = registry.find("methods", following)
        following = registry.preset_of(entry) or entry.load().Method.extends
    return ids


def batch_norms(model: nn.Module) -> dict[str, nn.Module]:
    """The batch norm layers by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, _BatchNorm)}


def decay_of(parameter: nn.Parameter, params: BaseParams, weight_decay: float | None = None) -> float:
    """The weight decay of a parameter, the parameters' unless another is given: with `decay=weights`, 0 for batch norm
    and biases, which have one dimension."""
    own = params.weight_decay if weight_decay is None else weight_decay
    return own if params.decay == "all" or parameter.dim() > 1 else 0.0


def frozen_copy(network: Network) -> Network:
    """A copy of the network in eval mode without parameter gradients."""
    return Network(copy.deepcopy(network.model).eval().requires_grad_(False), network.layers)
