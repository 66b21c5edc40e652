"""The same function on many records, in processes of their own: verification is one record after the other, and most of
its time is numpy's on one core."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from transferbench.base.errors import FaultError

A = TypeVar("A")
R = TypeVar("R")
_function: Callable[[Any], Any]
"""Of a worker process: what its preparation returned."""


def in_processes(
    prepare: Callable[[], Callable[[A], R]], items: Sequence[A], workers: int, gpus: Sequence[str]
) -> Iterator[tuple[A, R]]:
    """(item, function(item)) of every item, in the order in which they are done.

    Each of `workers` new processes calls `prepare` once for the function; with `gpus` it sees the GPU of its place. All
    of it is pickled. FaultError where a process dies; what the function raises is raised.
    """
    context = multiprocessing.get_context("spawn")
    places: multiprocessing.SimpleQueue[str | None] = context.SimpleQueue()
    for place in range(workers):
        places.put(gpus[place] if gpus else None)
    with ProcessPoolExecutor(workers, context, _start, (prepare, places)) as pool:
        try:
            asked = {pool.submit(_call, item): item for item in items}
            for done in as_completed(asked):
                yield asked[done], done.result()
        except BrokenProcessPool:
            raise FaultError(
                "a worker process ended (out of memory, or killed from outside?): --workers 1 stays in this process"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def _start(prepare: Callable[[], Callable[[Any], Any]], places: multiprocessing.SimpleQueue[str | None]) -> None:
    """The first thing in a worker process."""
    global _function
    gpu = places.get()
    if gpu is not None:
        # Before CUDA is used, which reads it once.
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    import torch

    torch.set_num_threads(1)
    _function = prepare()


def _call(item: Any) -> Any:
    return _function(item)
