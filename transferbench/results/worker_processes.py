"""The same function on many items, in processes of their own: verification is one record after the other, and most of
its time is numpy's on one core."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from transferbench.base import child_process
from transferbench.base.errors import FaultError

A = TypeVar("A")
R = TypeVar("R")
_MODULE = "transferbench.results.worker_process"


def in_processes(
    prepare: Callable[[], Callable[[A], R]], items: Sequence[A], workers: int, gpus: Sequence[str]
) -> Iterator[tuple[int, R]]:
    """(position, function(item)) of every item, in the order in which they are done.

    Each of `workers` new processes calls `prepare` once for the function; with `gpus` it sees the GPU of its place. All
    of it is pickled. What `prepare` or the function raises is raised; FaultError where a process dies. The processes
    end with the iteration, however that ends, and with this process.
    """
    processes: list[subprocess.Popen[bytes]] = []
    waiting, asked = iter(range(len(items))), dict[Any, int]()

    def ask(link: Any) -> None:
        position = next(waiting, None)
        if position is not None:
            asked[link] = position
            _send(link, items[position])

    try:
        for place in range(workers):
            process, link = child_process.start(_MODULE, gpus[place] if gpus else None)
            processes.append(process)
            _send(link, (sys.path, prepare))
            ask(link)
        while asked:
            for ready in wait(list(asked)):
                is_done, value = _answer(ready)
                if not is_done:
                    raise value
                position = asked.pop(ready)
                ask(ready)
                yield position, value
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()


def _send(link: Connection, message: object) -> None:
    # A process that is gone gives no answer.
    with suppress(ConnectionError):
        link.send_bytes(pickle.dumps(message))


def _answer(link: Any) -> tuple[bool, Any]:
    try:
        answer: tuple[bool, Any] = pickle.loads(link.recv_bytes())
    except (EOFError, ConnectionError):
        raise FaultError(
            "a worker process ended (out of memory, or killed from outside?): --workers 1 stays in this process"
        ) from None
    return answer
