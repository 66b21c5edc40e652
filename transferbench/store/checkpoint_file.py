"""Checkpoints on disk, so that a killed process loses a few seconds of work.

The file is replaced atomically and begins with the sha256 of its body: a damaged file is not a checkpoint.
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

from transferbench.base import atomic_files
from transferbench.base.checkpoint import State

_LOG = logging.getLogger(__name__)
EVERY = 4.0
"""Seconds of work between two checkpoints..."""
_SHARE = 50
"""...or this many times what the last one took, so that big states cost no more than 2 %."""
_FORMAT = 5
"""Raised when the saved states change their shape: an older file would not fit."""


class CheckpointFile:
    """A `base.checkpoint.Checkpoint` in one file."""

    def __init__(self, path: Path, every: float = EVERY) -> None:
        self.path, self.every = path, every
        self._wait = every
        self._last = time.monotonic()

    def exists(self) -> bool:
        """Whether unfinished work was saved."""
        return self.path.is_file()

    def load(self) -> State | None:
        """The state saved last, or None. A damaged file, or one of another version, is ignored with a warning."""
        import torch

        if not self.exists():
            return None
        content = self.path.read_bytes()
        digest, body = content[:32], content[32:]
        try:
            if hashlib.sha256(body).digest() != digest:
                raise ValueError("its hash is another")
            saved = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
        except (ValueError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            _LOG.warning("checkpoint %s is damaged (%s): the work starts again", self.path, error)
            return None
        if saved["by"] != _by():
            # Another version may continue to other bits, or not at all.
            _LOG.warning("checkpoint %s is of %s: the work starts again", self.path, saved["by"])
            return None
        state: State = saved["state"]
        return state

    def offer(self, state: Callable[[], State]) -> None:
        """Save `state()` if the interval has passed."""
        if time.monotonic() - self._last >= self._wait:
            self.save(state())

    def save(self, state: State) -> None:
        """Save now."""
        import torch

        began, stream = time.monotonic(), io.BytesIO()
        torch.save({"by": _by(), "state": state}, stream)
        body = stream.getvalue()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            atomic_files.write_bytes(self.path, hashlib.sha256(body).digest() + body)
        except OSError as error:
            # Not fatal yet: storing the result at the end will tell whether the disk is really full.
            _LOG.warning(
                "checkpoint %s cannot be written (%s): if this process is killed, the work starts again",
                self.path,
                error,
            )
        self._last = time.monotonic()
        self._wait = max(self.every, _SHARE * (self._last - began))

    def remove(self) -> None:
        """Delete the file: the work is finished and stored."""
        self.path.unlink(missing_ok=True)


def _by() -> str:
    return f"transferbench {version('transferbench')} (checkpoint format {_FORMAT}) with torch {version('torch')}"
