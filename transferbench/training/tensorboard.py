"""TensorBoard: the log of a training as event files, written while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transferbench.base.errors import InputError
from transferbench.training.loop import Progress


@contextmanager
def recorded(folder: Path, progress: Progress) -> Iterator[Progress]:
    """A progress callback that also writes each part to `folder`. InputError where tensorboard is not installed.

    A training that goes on from a checkpoint takes back what it had written of later steps.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError("--tensorboard needs the package tensorboard: pip install tensorboard") from None
    writer: SummaryWriter | None = None

    def both(done: int, total: int, parts: dict[str, float]) -> None:
        nonlocal writer
        progress(done, total, parts)
        if writer is None:
            writer = SummaryWriter(str(folder), purge_step=done)
        for name, value in parts.items():
            kind = "seen" if name.startswith(("train ", "val ")) else "loss"
            writer.add_scalar(f"{kind}/{name}", value, done)

    try:
        yield both
    finally:
        if writer is not None:
            writer.close()
