"""Jobs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from transferbench.base.specifications import content_hash

JobKind = Literal["train", "craft", "attack", "judge", "clean"]


@dataclass(frozen=True)
class Job:
    """One unit of work of a plan. `name` depends on the specification and the inputs' names alone.

    So a plan is a pure function of a suite; the *key* under which a finished job is stored also holds the
    content hashes of its inputs, which exist only once those have run (engine/store.py).
    """

    kind: JobKind
    label: str
    spec: Mapping[str, Any]
    inputs: tuple[str, ...] = ()
    name: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", content_hash(self.kind, dict(self.spec), list(self.inputs)))
