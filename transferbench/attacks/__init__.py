"""Attacks, one file each: recurrences over independent rows.

A *row* is one (example, try). An attack starts rows, turns a network's output into a loss per row, and steps them. The
loop around it is the pool (engine/pool.py) or the naive one (attacks/lockstep.py). An attack does not decide whether it
succeeded: the judge does.

A file of this folder lists its attacks in a literal `IDS`, their parameters with defaults in a literal `PARAMETERS`,
has an integer `VERSION`, and `build(spec: AttackSpec, threat: Threat, num_classes: int) -> RowAttack`. Labelled
paragraphs of its docstring (`Paper:`, `Threats:`, `Holds:`, `Counts:`, `Deviations:`) and what `build`'s docstring says
about the parameters are its line in docs/protocol.md.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from transferbench import threats
from transferbench.base import attack_parameters, registry
from transferbench.base.errors import InputError
from transferbench.base.specifications import AttackSpec, Chain, ThreatModel
from transferbench.threats import Threat

RowState = dict[str, Tensor]
"""An attack's state: tensors whose first dimension is the row, among them `x`, the point to evaluate next."""

T = TypeVar("T", bound=Threat)


class Keys(NamedTuple):
    """`noise` int64 [B]: the key of each row's random numbers; `tries` int64 [B]: the number of its try (0, 1, ...)."""

    noise: Tensor
    tries: Tensor


class RowAttack(Protocol):
    """The interface of an attack. The first dimension of every tensor is the row.

    A try is `passes` evaluations of the network: one at the start and one after each step. The rows of one call may be
    at different iterations, so every counter is part of the state, row by row. `tries` is the number of tries,
    `needs_grad` whether the attack uses input gradients.
    """

    id: str
    tries: int
    passes: int
    needs_grad: bool

    @property
    def counts(self) -> Literal["any", "last"]:
        """`any`: every candidate iterate counts (APGD); `last`: only the end point (PGD as in the papers)."""

    @property
    def sees(self) -> Literal["victim"]:
        """The network that `output` is of. Attacks that hold the source alone are attacks/source_attack.py's."""

    def start(self, x: Tensor, y: Tensor, clean_logits: Tensor, keys: Keys) -> RowState:
        """New rows for the images x [B, ...] in [0,1] with labels y [B]; `state["x"]` is the starting point."""

    def loss(self, output: Tensor, y: Tensor, state: RowState) -> Tensor:
        """[B]: the loss that the attack maximises, from the network's output at `state["x"]`."""

    def step(self, state: RowState, output: Tensor, loss: Tensor, gradient: Tensor) -> Tensor:
        """[B, ...]: the next points. Updates the state except for its `x`, and may overwrite `gradient`."""

    def candidate(self, state: RowState) -> Tensor:
        """bool [B]: rows whose `x` is admissible under the threat and may count."""

    def best(self, state: RowState) -> Tensor:
        """[B, ...]: each row's admissible point of highest loss so far, which is judged when the try has failed."""


def build(spec: AttackSpec, threat: ThreatModel, num_classes: int) -> Any:
    """The attack of a specification: a RowAttack, or one that holds the source alone (`sees`).

    InputError for an unknown id or parameter, or an unsupported threat.
    """
    if int(parameters(spec).get("eot", 0)) < 0:
        raise InputError(f"attack {spec.id}: eot must be at least 1, or 0 for the default")
    return registry.find("attacks", spec.id).load().build(spec, threats.build(threat), num_classes)


def build_chain(chain: Chain, num_classes: int) -> list[RowAttack]:
    """The attacks of a chain. InputError for an attack that does not use the victim's gradients: in a chain it would
    be run with them, which is another attack."""
    built: list[RowAttack] = [build(spec, chain.threat, num_classes) for spec in chain.attacks]
    for attack in built:
        if getattr(attack, "scope", "") == "query":
            raise InputError(
                f"chain {chain.name}: {attack.id} holds a source and queries the victim: no part of a chain"
            )
        if attack.sees != "victim":
            raise InputError(
                f"chain {chain.name}: {attack.id} attacks the source alone and is no part of a chain: name the source "
                "instead (--source, source=, or the suite's source_only)"
            )
    return built


def require(spec: AttackSpec, threat: Threat, *classes: type[T]) -> T:
    """The threat, as one of the classes that the attack supports. InputError for a threat of another class."""
    if isinstance(threat, classes):
        return threat
    *others, last = (supported.name for supported in classes)
    names = f"{', '.join(others)} and {last}" if others else last
    raise InputError(f"attack {spec.id} is defined in {names} only, not in {threat.name}")


def parameters(spec: AttackSpec) -> dict[str, Any]:
    """The attack's parameters: the defaults of its file's `PARAMETERS`, overridden by the specification.

    InputError for an unknown name or another type.
    """
    return attack_parameters.complete(spec)


def select(state: RowState, rows: Tensor) -> RowState:
    """A copy of the rows at the given indices."""
    return {name: tensor.index_select(0, rows) for name, tensor in state.items()}


def replace(state: RowState | None, gone: Tensor, fresh: RowState | None) -> RowState | None:
    """The state without the rows at the indices `gone` and with the rows of `fresh`; None when no row remains.

    Fresh rows overwrite removed ones in place, so that in a full pool nothing is copied. The order of rows has no
    meaning.
    """
    if state is None:
        return fresh
    arriving = 0 if fresh is None else _rows(fresh)
    leaving = len(gone)
    overlap = min(arriving, leaving)
    if fresh is not None and overlap:
        for name, tensor in state.items():
            tensor[gone[:overlap]] = fresh[name][:overlap]
    if leaving > overlap:
        staying = torch.ones(_rows(state), dtype=torch.bool, device=gone.device)
        staying[gone[overlap:]] = False
        if not bool(staying.any()):
            return None
        return {name: tensor[staying] for name, tensor in state.items()}
    if fresh is not None and arriving > overlap:
        return {name: torch.cat([tensor, fresh[name][overlap:]]) for name, tensor in state.items()}
    return state


def _rows(state: RowState) -> int:
    return len(next(iter(state.values())))
