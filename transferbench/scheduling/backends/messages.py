"""The driver's messages to a worker process (backends/processes.py)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transferbench.jobs.inputs import Input
    from transferbench.scheduling.backends import Task


@dataclass(frozen=True)
class Start:
    """The first message: the driver's import path."""

    path: list[str]


@dataclass(frozen=True)
class Request:
    """A task: shared inputs by number, the pickled values that are new to the worker, the numbers it may drop."""

    task: Task
    shared: dict[Input, int]
    values: dict[int, bytes]
    released: tuple[int, ...]
