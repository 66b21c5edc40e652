"""dask.distributed: the same jobs on many processes. One process, one job, one thread, one GPU.

Who is asked to do what, and what becomes of the answers, is the pipeline's business; here are the workers: started
(`local:4`) or found (`tcp://host:port`, `tls://...`, brought up by dask's own tools), lost, retried, and let go.
"""

from __future__ import annotations

import logging
import os
import queue
import socket
import uuid
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from transferbench.base.errors import FaultError, InputError

_CONNECT = 15
"""Seconds to wait for a scheduler's answer."""
_UNBOTHERED = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
"""Run in every worker: Ctrl-C reaches a terminal's whole group, but it is the driver who ends them."""
ATTEMPTS = 3
"""A job is given up after so many workers died on it."""


def check(address: str, device: str) -> None:
    """InputError, before anything is made, for an address that is none or where nobody answers."""
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


class Answer(NamedTuple):
    """What became of a call: its value, or the exception it raised, or the reason why no worker survived it."""

    name: str
    value: Any
    error: BaseException | None
    lost: str


class Cluster:
    """Workers behind an address. Use as a context: what was started here is gone afterwards, whatever happened.

    `told(message)` gets what workers say while they work, in a thread of its own.
    """

    def __init__(self, address: str, device: str = "cpu", told: Callable[[Any], None] = lambda _: None) -> None:
        import dask
        import distributed

        check(address, device)
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        dask.config.set({"distributed.scheduler.allowed-failures": ATTEMPTS - 1})
        self.address, self._started = address, None
        if address.startswith("local:"):
            self._started = _start(int(address.removeprefix("local:")), device)
        try:
            self._client = distributed.Client(self._started or address, timeout=_CONNECT, set_as_default=False)
        except (OSError, ValueError, TimeoutError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(f"--cluster {address}: no scheduler answers there ({reason})") from None
        self.topic = f"transferbench-{uuid.uuid4().hex}"
        self._client.subscribe_topic(self.topic, lambda event: told(event[1]))
        self._futures: dict[str, Any] = {}
        self._done: queue.SimpleQueue[Any] = queue.SimpleQueue()

    @property
    def workers(self) -> int:
        """How many there are now; more may come, and some may go."""
        return len(self._client.scheduler_info(n_workers=-1)["workers"])

    @property
    def room(self) -> int:
        """How many more calls are worth giving: two for each worker, so that none waits for the next."""
        return 2 * max(1, self.workers) - len(self._futures)

    def share(self, thing: Any) -> Any:
        """A handle to something big, to be given to calls in its place: it travels to a worker once."""
        return self._client.scatter(thing, hash=False)

    def submit(self, name: str, function: Callable[..., Any], *arguments: Any) -> None:
        """Call the function on some worker, once: what it returns or raises is an answer of `next`."""
        future = self._client.submit(function, *arguments, key=f"{name}-{uuid.uuid4().hex[:8]}", pure=False)
        self._futures[str(future.key)] = (name, future)
        future.add_done_callback(self._done.put)

    def next(self) -> Answer:
        """The answer to the call that is finished first."""
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
            return Answer(name, None, None, reason)
        if future.status == "cancelled":
            raise FaultError(
                f"--cluster {self.address}: the scheduler has gone; what is finished is kept, the same command goes on"
            )
        return Answer(name, None if error is not None else future.result(), error, "")

    @property
    def finished(self) -> bool:
        """Whether `next` has an answer without waiting."""
        return not self._done.empty()

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        for _name, future in self._futures.values():
            future.cancel(force=True)
        self._client.close(timeout=5)
        if self._started is not None:
            self._started.close(timeout=10)


def _start(count: int, device: str) -> Any:
    """`count` workers on this machine as processes of their own, each with a GPU of its own on cuda."""
    import distributed

    pinned: list[dict[str, str]] = [{} for _ in range(count)]
    if torch.device(device).type == "cuda":
        # Set before the process starts: afterwards CUDA has looked already.
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
                "preload": [_UNBOTHERED],
            },
        }
        for number, env in enumerate(pinned)
    }
    options = {"host": "127.0.0.1", "port": 0, "dashboard": False, "dashboard_address": "127.0.0.1:0"}
    scheduler = {"cls": distributed.Scheduler, "options": options}
    return distributed.SpecCluster(scheduler=scheduler, workers=workers, silence_logs=logging.CRITICAL)
