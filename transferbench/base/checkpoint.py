"""The checkpoint protocol: unfinished work saves its state from time to time and continues from it.

The engine and the training loop depend on this protocol alone; store/checkpoint_file.py writes it to disk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

State = dict[str, Any]
"""Tensors, numbers, text, lists and dictionaries of them: what `torch.load(weights_only=True)` reads."""


class Checkpoint(Protocol):
    """The state of one piece of unfinished work."""

    def load(self) -> State | None:
        """The state saved last, or None."""

    def offer(self, state: Callable[[], State]) -> None:
        """Save `state()` if enough time has passed since the last save. Cheap: may be called every iteration."""

    def save(self, state: State) -> None:
        """Save now."""


class NoCheckpoint:
    """Keeps nothing: for work that is cheap to repeat."""

    def load(self) -> State | None:
        return None

    def offer(self, state: Callable[[], State]) -> None:
        pass

    def save(self, state: State) -> None:
        pass


NO_CHECKPOINT = NoCheckpoint()
