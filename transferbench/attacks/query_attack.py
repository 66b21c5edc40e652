"""Attacks that hold the public network and ask the victim a few times: recurrences over independent rows.

A row is one example. It proposes a point, the victim scores it, and the row learns the margin: the best wrong logit
minus the label's, above 0 where the victim is fooled. The attacker is told the label, as in the papers, and of the
victim nothing else. The first query is the point where the row starts, so that the success of one query is that of the
start alone. The loop is engine/querying.py's; a row's points depend on its image, its start, its key and its answers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from transferbench.attacks import Keys, RowState
from transferbench.attacks.source_attack import SourceNetwork
from transferbench.base import keyed_random
from transferbench.base.errors import InputError
from transferbench.threats import BoundedThreat

Begin = Literal["image", "crafted"]
"""Where rows start: at the clean image, or at a point that was crafted with the source."""


class QueryAttack(Protocol):
    """The interface of an attack with queries. The first dimension of every tensor is the row.

    A row asks `queries` times unless it fools the victim before. `begins` says which points `start` expects, `passes`
    how many gradient passes through the source an example takes at most. Methods replace the tensors of a state and do
    not write into them.
    """

    id: str
    queries: int
    passes: int
    begins: Begin
    control: tuple[str, str]
    """The parameter, and its value, that make the attack's control: the same search without the source."""
    reads: tuple[str, ...]
    sees: Literal["source"]
    scope: Literal["query"]

    def start(self, x: Tensor, y: Tensor, source: SourceNetwork, keys: Keys, begin: Tensor) -> RowState:
        """New rows for the images x [B, ...] in [0,1] with labels y int64 [B].

        `begin` [B, ...] are admissible points, the images themselves or crafted ones (`begins`). `state["x"]` is the
        row's best point so far, `state["query"]` int64 [B] the number of its answers.
        """

    def propose(self, state: RowState, source: SourceNetwork) -> Tensor:
        """[B, ...]: the admissible points that are to be scored next. May update the state."""

    def learn(self, state: RowState, points: Tensor, margins: Tensor) -> None:
        """Take the victim's answers at the proposed points: margins float [B]."""


class MarginAscent(ABC):
    """Keeps the point of the highest margin; what is proposed around it is the subclass's.

    `state["margin"]` float32 [B] is the margin at `state["x"]`, `state["key"]` int64 [B] keys the row's draws.
    """

    id: str
    passes = 0
    begins: Begin = "image"
    control: tuple[str, str]
    reads: tuple[str, ...] = ("logits",)
    sees: Literal["source"] = "source"
    scope: Literal["query"] = "query"

    def __init__(self, threat: BoundedThreat, queries: int) -> None:
        self.threat, self.queries = threat, queries

    def start(self, x: Tensor, y: Tensor, source: SourceNetwork, keys: Keys, begin: Tensor) -> RowState:
        return {
            "x": self.threat.project(x, begin),
            "clean": x,
            "key": keys.noise,
            "query": torch.zeros_like(keys.noise),
            "margin": torch.full_like(keys.noise, -float("inf"), dtype=torch.float32),
        }

    @abstractmethod
    def propose(self, state: RowState, source: SourceNetwork) -> Tensor:
        """As of QueryAttack."""

    def learn(self, state: RowState, points: Tensor, margins: Tensor) -> None:
        better = rises(state, margins)
        state["x"] = torch.where(per_image(better, points), points, state["x"])
        state["margin"] = torch.where(better, margins, state["margin"])
        state["query"] = state["query"] + 1


def rises(state: RowState, margins: Tensor) -> Tensor:
    """bool [B]: the margins are above the best ones so far; true for a row's first answer."""
    return margins > state["margin"]


def per_image(rows: Tensor, images: Tensor) -> Tensor:
    """[B] as [B, 1, ...], to broadcast against images."""
    return rows.view(-1, *[1] * (images.dim() - 1))


def query_keys(state: RowState) -> Tensor:
    """int64 [B]: a key for each row at its next query."""
    return keyed_random.row_keys(keyed_random.stream("query"), state["key"], state["query"])


def budget(id: str, params: Mapping[str, Any]) -> int:
    """The parameter `queries`. InputError for a number below 1."""
    queries = int(params["queries"])
    if queries < 1:
        raise InputError(f"attack {id}: queries={queries} must be at least 1: the first query is the start itself")
    return queries


def chosen(id: str, params: Mapping[str, Any], name: str, *choices: str) -> str:
    """A parameter that is a word. InputError for one that is not among the choices."""
    word = str(params[name])
    if word not in choices:
        raise InputError(f"attack {id}: {name}={word!r} is not one of {', '.join(choices)}")
    return word
