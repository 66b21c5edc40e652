"""Which architectures have the names and shapes of a file's tensors, by an index that `make index` writes.

The index has a line for every network of the families, with hashes of its names and of its names with shapes, but for
those parameters that depend on the number of classes. A hit is a proposal: the network is built, and compared, before
anybody is told.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from transferbench.models.weights import names

INDEX = Path(__file__).parent / "catalogue" / "architectures.json"

_CLOSE = 2
"""Tensors more or less that a network near a file has, at most; of large ones a tenth."""

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Architecture:
    """A network of the index. `count`: of its tensors; `names` and `shapes`: 16 hex digits of hashes; `first` and
    `width`: the first name of the alphabet, and its shape; `classified`: the names of the parameters that depend on the
    number of classes."""

    id: str
    count: int
    first: str
    width: tuple[int, ...]
    names: str
    shapes: str
    classified: tuple[str, ...]


@cache
def index() -> tuple[Architecture, ...]:
    """All networks of the index."""
    rows = json.loads(INDEX.read_text(encoding="utf-8"))
    return tuple(
        Architecture(id, count, first, tuple(width), names, shapes, tuple(classified))
        for id, count, first, width, names, shapes, classified in rows
    )


def described(id: str, shapes: Shapes, other: Shapes) -> Architecture:
    """The line of a network, from its tensors' shapes with two numbers of classes."""
    own, others = _plain(shapes), _plain(other)
    classified = tuple(name for name in own if own[name] != others.get(name))
    first = min(own)
    return Architecture(id, len(own), first, own[first], _of_names(own), _of_shapes(own, classified), classified)


def exact(shapes: Shapes) -> list[str]:
    """The ids of the networks with exactly these names and shapes, for some number of classes."""
    own = _plain(shapes)
    digest = _of_names(own)
    return [one.id for one in index() if one.names == digest and one.shapes == _of_shapes(own, one.classified)]


def near(shapes: Shapes, most: int) -> list[str]:
    """The ids of networks with the same names, then of those that begin alike and have about as many tensors; in both
    parts first those of the same width."""
    own = _plain(shapes)
    if not own:
        return []
    digest, first = _of_names(own), min(own)
    same = [one for one in index() if one.names == digest]
    close = max(_CLOSE, len(own) // 10)
    alike = [one for one in index() if one.first == first and abs(one.count - len(own)) <= close]
    alike = [one for one in alike if one.names != digest]
    same.sort(key=lambda one: one.width != own[first])
    alike.sort(key=lambda one: (abs(one.count - len(own)), one.width != own[first]))
    return [one.id for one in (*same, *alike)][:most]


def _plain(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """Without batch counters, and without the part that all names begin with."""
    kept = {name: tuple(shape) for name, shape in shapes.items() if not name.endswith(names.COUNTER)}
    prefix = names.common_prefix(kept)
    return {name.removeprefix(prefix): shape for name, shape in kept.items()}


def _of_names(shapes: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(shapes)).encode()).hexdigest()[:16]


def _of_shapes(shapes: Shapes, without: Iterable[str]) -> str:
    left_out = set(without)
    lines = [f"{name} {list(shape)}" for name, shape in sorted(shapes.items()) if name not in left_out]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
