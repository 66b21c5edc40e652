"""Progress of one job, as the engine and the training loop report it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Progress:
    """`done` of `total` examples or steps.

    `robust` is the number of examples that are still robust (attacks); `values` holds the parts of the loss, or the
    accuracies of the robustness monitor, by name (training).
    """

    done: int
    total: int
    robust: int | None = None
    values: Mapping[str, float] = field(default_factory=dict)


OnProgress = Callable[[Progress], None]


def ignore(_: Progress) -> None:
    """Report nothing."""
