"""dask.distributed workers: one process, one job, one thread, one GPU.

Workers are started here (`local:4`) or found by address (`tcp://host:port`, `tls://...`; dask's own tools start them).
Lost ones are replaced or waited for, and a task is retried on another worker.
"""

from __future__ import annotations

import logging
import os
import queue
import socket
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import torch

from transferbench.base.errors import FaultError, InputError
from transferbench.base.progress import Progress
from transferbench.jobs.inputs import Input
from transferbench.scheduling.backends import Answer, Backend, Task
from transferbench.scheduling.backends.dask_worker import message, run_task

_CONNECT = 15
"""Seconds to wait for a scheduler's answer."""
_IGNORE_SIGINT = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
"""Run in every worker: Ctrl-C reaches a terminal's whole process group, but the driver ends its workers itself."""
ATTEMPTS = 3
"""A task is given up after this many workers died on it."""


def check(address: str, device: str) -> None:
    """InputError, before anything is created, for a malformed address or one where no scheduler answers."""
    kind, _, rest = address.partition(":")
    if kind == "local":
        if not rest.isdigit() or int(rest) < 1:
            raise InputError(f"--cluster {address}: write local:4 for four workers on this machine")
        if torch.device(device).type == "cuda" and int(rest) > len(_gpus()):
            raise InputError(f"--cluster {address}: {len(_gpus())} GPUs are visible, one for each worker is needed")
        return
    host, _, port = rest.removeprefix("//").rpartition(":")
    if kind not in ("tcp", "tls") or not host or not port.isdigit():
        raise InputError(f"--cluster {address}: write local:N, or the scheduler's tcp://host:port or tls://host:port")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"--cluster {address}: no scheduler answers there ({error})") from None


def _gpus() -> list[str]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return visible.split(",") if visible else [str(gpu) for gpu in range(torch.cuda.device_count())]


class DaskBackend(Backend):
    """Workers behind an address; those that were started here end with the context, whatever happens.

    `on_progress` gets the workers' progress, in a thread of its own.
    """

    def __init__(self, address: str, device: str, on_progress: Callable[[str, Progress], None]) -> None:
        import dask
        import distributed

        check(address, device)
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        dask.config.set({"distributed.scheduler.allowed-failures": ATTEMPTS - 1})
        self.address, self._workers = address, None
        if address.startswith("local:"):
            self._workers = _start(int(address.removeprefix("local:")), device)
        try:
            self._client = distributed.Client(self._workers or address, timeout=_CONNECT, set_as_default=False)
        except (OSError, ValueError, TimeoutError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(f"--cluster {address}: no scheduler answers there ({reason})") from None
        self.topic = f"transferbench-{uuid.uuid4().hex}"
        self._client.subscribe_topic(self.topic, lambda event: on_progress(*message(event[1])))
        self._futures: dict[str, Any] = {}
        self._done: queue.SimpleQueue[Any] = queue.SimpleQueue()

    @property
    def workers(self) -> int:
        """How many there are now; they may come and go."""
        return len(self._client.scheduler_info(n_workers=-1)["workers"])

    @property
    def capacity(self) -> int:
        # Two for each worker, so that none waits for its next task.
        return 2 * max(1, self.workers) - len(self._futures)

    def share(self, value: Any) -> Any:
        # In a list: a mapping's entries would be shared by their own keys, and be taken for the next mapping's.
        (future,) = self._client.scatter([value], hash=False)
        return future

    def submit(self, task: Task, shared: Mapping[Input, Any]) -> None:
        key = f"{task.job.name}-{uuid.uuid4().hex[:8]}"
        future = self._client.submit(run_task, task, shared, self.topic, key=key, pure=False)
        self._futures[str(future.key)] = (task.job.name, future)
        future.add_done_callback(self._done.put)

    def next(self) -> Answer:
        from distributed.scheduler import KilledWorker

        future = self._done.get()
        while future.status in ("lost", "pending"):
            # Its worker died with the finished result before it was fetched: dask runs it again.
            future.add_done_callback(self._done.put)
            future = self._done.get()
        name, _ = self._futures.pop(str(future.key))
        error = future.exception() if future.status == "error" else None
        if isinstance(error, KilledWorker):
            died = error.allowed_failures + 1
            reason = f"{died} workers died on it, one after the other (out of memory, or killed from outside?)"
            return Answer(name, None, lost=reason)
        if future.status == "cancelled":
            raise FaultError(
                f"--cluster {self.address}: the scheduler has gone; what is finished is kept, the same command goes on"
            )
        return Answer(name, None if error is not None else future.result(), error)

    @property
    def ready(self) -> bool:
        return not self._done.empty()

    def __exit__(self, *_: object) -> None:
        for _name, future in self._futures.values():
            future.cancel(force=True)
        self._client.close(timeout=5)
        if self._workers is not None:
            self._workers.close(timeout=10)


def _start(count: int, device: str) -> Any:
    """`count` worker processes on this machine; on cuda each sees one GPU."""
    import distributed

    pinned: list[dict[str, str]] = [{} for _ in range(count)]
    if torch.device(device).type == "cuda":
        # Set before the process starts: CUDA reads it once.
        pinned = [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in _gpus()[:count]]
    workers = {
        number: {
            "cls": distributed.Nanny,
            # Without a memory limit: dask would kill a worker whose images fill the machine it was made for.
            "options": {
                "nthreads": 1,
                "memory_limit": 0,
                "env": env,
                "dashboard": False,
                "host": "127.0.0.1",
                "silence_logs": logging.CRITICAL,
                "preload": [_IGNORE_SIGINT],
            },
        }
        for number, env in enumerate(pinned)
    }
    options = {"host": "127.0.0.1", "port": 0, "dashboard": False, "dashboard_address": "127.0.0.1:0"}
    scheduler = {"cls": distributed.Scheduler, "options": options}
    return distributed.SpecCluster(scheduler=scheduler, workers=workers, silence_logs=logging.CRITICAL)
