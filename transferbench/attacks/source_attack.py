"""Attacks that hold the public network alone: recurrences over independent rows, as the attacks on the victim are, that
may look at any of its layers.

A row is one (example, try). The attacker knows neither labels nor the victim's classes, so none are passed. The loop is
`run_to_end`, whatever the batch: a row's points depend on its image and its keys.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from transferbench.attacks import Keys, RowState
from transferbench.base import keyed_random
from transferbench.base.errors import FaultError, InputError
from transferbench.threats import BoundedThreat

Change = Callable[[Tensor], Tensor]
"""Replaces a layer's output [B, ...] inside a pass."""


class SourceNetwork(Protocol):
    """The public network, differentiable with respect to its images [B, ...] in [0,1]."""

    def __call__(self, x: Tensor, *names: str, changes: Mapping[str, Change] = {}) -> dict[str, Tensor]:
        """The outputs of these names, by one pass that ends at the last of them.

        `logits` [B, C], `penultimate` [B, width] (the input of the classifying layer), or a layer's [B, C, ...], with
        the channels second: by its place (`stem`, `low`, `middle`, `late`) or by the name of its module. `changes`
        replace layers' outputs on the way. InputError for a name that the network does not have.
        """

    def layers(self, *names: str) -> tuple[str, ...]:
        """The layers' modules: places are resolved, `stages` and `convolutions` are all of these layers."""


class SourceAttack(Protocol):
    """The interface of an attack that holds the source alone. The first dimension of every tensor is the row.

    A try is `steps` steps of `copies` passes each, forward and backward; `start_forwards` and `start_backwards` are
    what `start` adds to them. An attack without gradients (`needs_grad`) makes no passes: its steps see zeros.
    """

    id: str
    tries: int
    steps: int
    copies: int
    needs_grad: bool
    start_forwards: int
    start_backwards: int
    sees: Literal["source"]
    scope: Literal["image"]

    @property
    def reads(self) -> tuple[str, ...]:
        """The names of the outputs that it asks of the source, so that a network without one is refused at once."""

    def start(self, x: Tensor, source: SourceNetwork, keys: Keys) -> RowState:
        """New rows for the images x [B, ...] in [0,1]; `state["x"]` is the starting point. Clean outputs that the loss
        compares with are computed here and kept in the state."""

    def loss(self, point: Tensor, source: SourceNetwork, state: RowState, copy: int) -> Tensor:
        """[B]: what the attack maximises at `point`, from one pass through the source; of `copies` passes the number
        `copy`, each on a transformed copy of the point."""

    def step(self, state: RowState, gradient: Tensor) -> Tensor:
        """[B, ...]: the next points, from the mean gradient of the copies. Updates the state except for its `x`, and
        may overwrite `gradient`."""


class SignAscent(ABC):
    """Steps of one size along the sign of the gradient, or of its running mean with `momentum`, inside the threat.

    The base of most attacks here: what they add is `begin`, what a row knows, and `loss`; some take another `direction`
    than the sign. With momentum m is
    momentum * m + gradient / mean |gradient|, as in MI-FGSM (arXiv:1710.06081). `random_start` is U(-eps, eps).
    `state["step"]` int64 [B] counts a row's steps, `state["key"]` int64 [B] keys its draws.
    """

    id: str
    needs_grad = True
    copies = 1
    start_forwards = 0
    start_backwards = 0
    sees: Literal["source"] = "source"
    scope: Literal["image"] = "image"

    @property
    def reads(self) -> tuple[str, ...]:
        return ("logits",)

    def __init__(
        self,
        threat: BoundedThreat,
        steps: int,
        step: float,
        tries: int = 1,
        momentum: float = 0.0,
        random_start: bool = True,
    ) -> None:
        """`step` is a share of eps."""
        self.threat, self.steps, self.tries = threat, steps, tries
        self.step_size, self.momentum, self.random_start = step * threat.radius, momentum, random_start

    def start(self, x: Tensor, source: SourceNetwork, keys: Keys) -> RowState:
        point = x.clone()
        if self.random_start:
            point = self.threat.displace(x, 2 * keyed_random.uniform(keys.noise, tuple(x.shape[1:])) - 1)
        state = {"x": point, "clean": x, "key": keys.noise, "step": torch.zeros_like(keys.noise)}
        if self.momentum:
            state["momentum"] = torch.zeros_like(x)
        with torch.no_grad():
            state.update(self.begin(x, source, keys))
        return state

    def begin(self, x: Tensor, source: SourceNetwork, keys: Keys) -> RowState:
        """What a row knows besides its points, from the clean images. Called without gradients."""
        return {}

    @abstractmethod
    def loss(self, point: Tensor, source: SourceNetwork, state: RowState, copy: int) -> Tensor:
        """As of SourceAttack."""

    def step(self, state: RowState, gradient: Tensor) -> Tensor:
        state["step"] += 1
        # The sign of the gradient is the same in pixels and in normalised space.
        scale = self.threat.unit(gradient)
        if self.momentum:
            state["momentum"] = self.momentum * state["momentum"] + gradient / mean_size(gradient)
            gradient = state["momentum"]
        return self.threat.project(state["clean"], state["x"] + self.step_size * scale * self.direction(gradient))

    def direction(self, gradient: Tensor) -> Tensor:
        """[B, ...]: the step in units of its size, from the gradient or its running mean."""
        return gradient.sign()


def mean_size(rows: Tensor) -> Tensor:
    """[B, 1, ...]: the mean of |entries| of each row, at least the smallest positive float: a gradient of zeros stays
    one."""
    flat = rows.abs().flatten(1).mean(1).clamp(min=torch.finfo(rows.dtype).tiny)
    return flat.view(-1, *[1] * (rows.dim() - 1))


def step_keys(state: RowState, copy: int = 0) -> Tensor:
    """int64 [B]: a key for each row at its step and copy."""
    return keyed_random.row_keys(
        keyed_random.stream("source attack"), state["key"], state["step"], torch.full_like(state["step"], copy)
    )


def gradient_at(attack: SourceAttack, source: SourceNetwork, state: RowState) -> Tensor:
    """[B, ...]: the mean gradient of the attack's copies at `state["x"]`. FaultError where one is not a number."""
    total: Tensor | None = None
    for copy in range(attack.copies):
        with torch.enable_grad():
            point = state["x"].detach().requires_grad_(True)
            loss = attack.loss(point, source, state, copy)
            gradient = torch.autograd.grad(loss.sum(), point)[0]
        # An infinite one, of a square that overflows, still has its sign.
        wrong = torch.isnan(loss) | torch.isnan(gradient.flatten(1)).any(1)
        if bool(wrong.any()):
            rows = wrong.nonzero().flatten().tolist()
            raise FaultError(
                f"attack {attack.id}: its loss or gradient is not a number for rows {rows[:8]} of the batch"
            )
        # A copy, because attacks overwrite it and a model may return a tensor that it still uses.
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        total = gradient if total is None else total.add_(gradient)
    assert total is not None
    return total if attack.copies == 1 else total.div_(attack.copies)


def run_to_end(
    attack: SourceAttack,
    source: SourceNetwork,
    state: RowState,
    done: int = 0,
    on_step: Callable[[int, RowState], None] | None = None,
) -> Tensor:
    """[B, ...]: the end points of a try from its state after `done` steps.

    `on_step` is called after every step with the number of steps and the state.
    """
    for step in range(done, attack.steps):
        gradient = gradient_at(attack, source, state) if attack.needs_grad else torch.zeros_like(state["x"])
        state["x"] = attack.step(state, gradient)
        if on_step is not None:
            on_step(step + 1, state)
    return state["x"]


class Passes(NamedTuple):
    """Passes through the source for one example."""

    forwards: int
    backwards: int


def passes_of(attack: SourceAttack) -> Passes:
    """All tries of an attack on one example."""
    steps = attack.steps * attack.copies if attack.needs_grad else 0
    return Passes(attack.tries * (steps + attack.start_forwards), attack.tries * (steps + attack.start_backwards))


def require_positive(id: str, params: Mapping[str, Any], *names: str) -> None:
    """InputError where a number is not above 0 and finite."""
    for name in names:
        value = params[name]
        if not 0 < value < math.inf:
            raise InputError(f"attack {id}: {name}={value} must be above 0")
