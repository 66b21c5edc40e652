"""Writes the log of a training as TensorBoard event files while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transferbench.base.errors import InputError
from transferbench.base.progress import OnProgress, Progress


@contextmanager
def event_writer(folder: Path) -> Iterator[OnProgress]:
    """A progress callback that writes each value to event files in `folder`. InputError without tensorboard.

    A resumed training discards the events of later steps that the interrupted one had written.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError("--tensorboard needs the package tensorboard: pip install tensorboard") from None
    writer: SummaryWriter | None = None

    def write(progress: Progress) -> None:
        nonlocal writer
        if writer is None:
            writer = SummaryWriter(str(folder), purge_step=progress.done)
        for name, value in progress.values.items():
            kind = "accuracy" if name.startswith(("train ", "val ")) else "loss"
            writer.add_scalar(f"{kind}/{name}", value, progress.done)

    try:
        yield write
    finally:
        if writer is not None:
            writer.close()
