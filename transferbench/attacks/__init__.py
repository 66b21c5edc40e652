"""Attacks, one file each: recurrences over independent rows.

A *row* is one (example, try). An attack starts rows, turns a network's output into a loss per row, and steps them. The
loop around it is the pool (engine/pool.py) or the naive one (attacks/lockstep.py). An attack does not decide whether it
succeeded: the judge does.

A file of this folder lists its attacks in a literal `IDS`, has an integer `VERSION`, and
`build(spec: AttackSpec, threat: Threat, num_classes: int) -> RowAttack`.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from transferbench import threats
from transferbench.base import registry
from transferbench.base.errors import InputError
from transferbench.base.specifications import AttackSpec, Scalar, ThreatModel
from transferbench.threats import Threat

State = dict[str, Tensor]
"""An attack's memory: tensors whose first dimension is the row, among them `x`, the point to evaluate next."""

KnownThreat = TypeVar("KnownThreat", bound=Threat)


class Keys(NamedTuple):
    """Per row: `noise` int64 [B] keys every random draw of the try, `tries` int64 [B] is its number (0..)."""

    noise: Tensor
    tries: Tensor


class RowAttack(Protocol):
    """The interface of an attack. All tensors have the rows first.

    A try of an attack is `passes` evaluations of the network: the start, then one after each step. Rows may
    stand at different iterations in one call, so every count lives in the state, row by row.
    """

    id: str
    tries: int
    passes: int
    needs_grad: bool

    @property
    def counts(self) -> Literal["any", "last"]:
        """`any`: every iterate that is a candidate counts (APGD); `last`: only the end point (the seeds' PGD)."""

    @property
    def sees(self) -> Literal["victim", "source", "source-features"]:
        """`source`: the attacker holds the public network alone, and `output` is its logits; `source-features`: its
        penultimate feature."""

    def start(self, x: Tensor, y: Tensor, clean_logits: Tensor, keys: Keys) -> State:
        """Fresh rows around the images x [B, ...] in [0,1] with labels y [B]; `state["x"]` is the start."""

    def loss(self, output: Tensor, y: Tensor, state: State) -> Tensor:
        """[B]: what the attack maximises, at the network's output for `state["x"]`."""

    def step(self, state: State, output: Tensor, loss: Tensor, gradient: Tensor) -> Tensor:
        """The next point [B, ...] of every row; the state is updated, all but its `x`. May write over `gradient`."""

    def candidate(self, state: State) -> Tensor:
        """bool [B]: rows whose `x` is admissible under the threat and may count."""

    def best(self, state: State) -> Tensor:
        """[B, ...]: the row's strongest admissible point so far, which is confirmed when no point fooled."""


def build(spec: AttackSpec, threat: ThreatModel, num_classes: int) -> RowAttack:
    """The attack of a specification. InputError for an unknown id or parameter, or a threat it is not defined in."""
    attack: RowAttack = registry.find("attacks", spec.id).load().build(spec, threats.build(threat), num_classes)
    return attack


def require(spec: AttackSpec, threat: Threat, *kinds: type[KnownThreat]) -> KnownThreat:
    """The threat, which is of one of the classes that the attack is defined in. InputError otherwise."""
    if isinstance(threat, kinds):
        return threat
    *others, last = (kind.name for kind in kinds)
    known = f"{', '.join(others)} and {last}" if others else last
    raise InputError(f"attack {spec.id} is defined in {known} only, not in {threat.name}")


def parameters(spec: AttackSpec, **defaults: Scalar) -> dict[str, Scalar]:
    """The specification's parameters over the attack's defaults. InputError for one it does not have."""
    given = dict(spec.params)
    for name, value in given.items():
        if name not in defaults:
            raise InputError(registry.unknown(f"parameter of attack {spec.id}:", name, defaults))
        default = defaults[name]
        wrong = isinstance(value, bool) != isinstance(default, bool) or (
            not isinstance(value, type(default)) and not (isinstance(default, float) and isinstance(value, int))
        )
        if wrong:
            raise InputError(
                f"attack {spec.id}: {name}={value!r} is not of type {type(default).__name__} (default {default!r})"
            )
    return {**defaults, **given}


def select(state: State, rows: Tensor) -> State:
    """The named rows of a state, copied."""
    return {name: tensor.index_select(0, rows) for name, tensor in state.items()}


def replace(state: State | None, gone: Tensor, fresh: State | None) -> State | None:
    """The state without the rows `gone` and with the rows of `fresh`; None when no row is left.

    Fresh rows are written into the places of the gone ones where they can be: in a full pool nothing else
    moves. The order of rows carries no meaning.
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
        kept = torch.ones(_rows(state), dtype=torch.bool, device=gone.device)
        kept[gone[overlap:]] = False
        if not bool(kept.any()):
            return None
        return {name: tensor[kept] for name, tensor in state.items()}
    if fresh is not None and arriving > overlap:
        return {name: torch.cat([tensor, fresh[name][overlap:]]) for name, tensor in state.items()}
    return state


def _rows(state: State) -> int:
    return len(next(iter(state.values())))
