"""Unfinished work on disk, so that whoever is killed has lost a few seconds.

A training, the pool, a crafted set: each says from time to time what it would need to go on exactly where it is.
The file is written beside and renamed, and begins with the hash of the rest: half a file is no checkpoint.
"""

from __future__ import annotations

import hashlib
import io
import logging
import pickle
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transferbench.base import atomic_files

_LOG = logging.getLogger(__name__)
EVERY = 4.0
"""Seconds of work between two checkpoints..."""
_SHARE = 50
"""...or this many times what the last one took, so that big states cost no more than 2 %."""
_FORMAT = 2
"""Raised with the shape of what a training, the pool or a crafted set saves: an older file would not fit."""

State = dict[str, Any]
"""Tensors, numbers, text, lists and dictionaries of them: what `torch.load(weights_only=True)` reads."""


class Checkpoint:
    """The unfinished state of one piece of work in one file. Without a path nothing is ever kept."""

    def __init__(self, path: Path | None = None, every: float = EVERY) -> None:
        self.path, self.every = path, every
        self._wait = every
        self._last = time.monotonic()

    def load(self) -> State | None:
        """What was saved last; None where nothing was, or where it is damaged (that is said)."""
        import torch

        if self.path is None or not self.path.is_file():
            return None
        content = self.path.read_bytes()
        digest, body = content[:32], content[32:]
        try:
            if hashlib.sha256(body).digest() != digest:
                raise ValueError("its hash is another")
            saved = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
        except (ValueError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            _LOG.warning("checkpoint %s is damaged (%s): this piece of work begins anew", self.path, error)
            return None
        if saved["by"] != _by():
            # Another version may continue to other bits, or not at all.
            _LOG.warning("checkpoint %s is of %s: this piece of work begins anew", self.path, saved["by"])
            return None
        state: State = saved["state"]
        return state

    def offer(self, state: Callable[[], State]) -> None:
        """Save `state()` if it is time to; called as often as one likes."""
        if self.path is not None and time.monotonic() - self._last >= self._wait:
            self.save(state())

    def save(self, state: State) -> None:
        """Save now."""
        import torch

        if self.path is None:
            return
        began, stream = time.monotonic(), io.BytesIO()
        torch.save({"by": _by(), "state": state}, stream)
        body = stream.getvalue()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            atomic_files.write_bytes(self.path, hashlib.sha256(body).digest() + body)
        except OSError as error:
            # The work itself is not in danger yet: its end will tell whether its result can be kept.
            _LOG.warning("checkpoint %s cannot be written (%s): if this is killed, it begins anew", self.path, error)
        self._last = time.monotonic()
        self._wait = max(self.every, _SHARE * (self._last - began))

    def remove(self) -> None:
        """The work is done and kept elsewhere."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def _by() -> str:
    return f"transferbench {version('transferbench')} (checkpoint format {_FORMAT}) with torch {version('torch')}"


NOTHING = Checkpoint()
"""For work whose beginning is cheap enough to do again."""
