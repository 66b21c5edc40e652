"""Worker processes of this machine: one process, one job, one thread, one core or GPU.

A thread of the driver serves each worker: it gives it the next task as soon as the last one is answered. A worker that
dies is replaced, and its task tried again on another.
"""

from __future__ import annotations

import logging
import pickle
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import cloudpickle

from transferbench.base import child_process
from transferbench.base.errors import FaultError, InputError
from transferbench.base.progress import Progress
from transferbench.jobs.evaluation import EvaluationJob
from transferbench.jobs.inputs import Input
from transferbench.scheduling.backends import Answer, Backend, Task
from transferbench.scheduling.backends.messages import Request, Start

_LOG = logging.getLogger(__name__)
ATTEMPTS = 3
"""A task is given up after this many workers died on it, and a place after this many died before they were ready."""
_MODULE = "transferbench.scheduling.backends.process_worker"


@dataclass(frozen=True)
class Shared:
    """The handle of a shared value, pickled once."""

    number: int
    value: bytes = field(repr=False)


@dataclass
class _Work:
    """A submitted task. `network` is what it is about: a worker that has prepared it goes on with it."""

    task: Task
    shared: dict[Input, Shared]
    deaths: int = 0

    @property
    def network(self) -> str:
        job = self.task.job
        return job.network.name if isinstance(job, EvaluationJob) else ""


class _DiedError(Exception):
    """The worker at the other end of a socket is gone. Not an OSError: a closed terminal of the driver is one too."""


def _send(link: Connection, message: bytes) -> None:
    try:
        link.send_bytes(message)
    except OSError:
        raise _DiedError from None


def _receive(link: Connection) -> bytes:
    try:
        return link.recv_bytes()
    except (EOFError, OSError):
        raise _DiedError from None


class ProcessBackend(Backend):
    """`workers` processes, with the GPU of each where `gpus` are given. `on_progress` is called in other threads."""

    def __init__(self, workers: int, gpus: Sequence[str], on_progress: Callable[[str, Progress], None]) -> None:
        self._count, self.on_progress = workers, on_progress
        self._pending: list[_Work] = []
        self._changed = threading.Condition()
        self._answers: queue.SimpleQueue[Answer | BaseException] = queue.SimpleQueue()
        self._in_flight, self._numbers, self._closed = 0, 0, False
        self._left = workers
        """The places that have a worker, or will have one."""
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        for place in range(workers):
            gpu = gpus[place] if gpus else None
            link = self._start(place, gpu)
            threading.Thread(target=self._serve, args=(place, gpu, link), daemon=True).start()

    @property
    def workers(self) -> int:
        return self._count

    @property
    def capacity(self) -> int:
        # As many wait as run, so that no worker waits for its next task.
        return 2 * self._count - self._in_flight

    def submit(self, task: Task, shared: Mapping[Input, Any]) -> None:
        self._in_flight += 1
        with self._changed:
            self._pending.append(_Work(task, dict(shared)))
            self._changed.notify()

    def next(self) -> Answer:
        answer = self._answers.get()
        self._in_flight -= 1
        if isinstance(answer, BaseException):
            raise answer
        return answer

    @property
    def ready(self) -> bool:
        return not self._answers.empty()

    def share(self, value: Any) -> Shared:
        self._numbers += 1
        try:
            return Shared(self._numbers, cloudpickle.dumps(value))
        except (TypeError, AttributeError, ValueError, RuntimeError, pickle.PicklingError) as error:
            # A lock, an open file or a generator in a model that is a Python object.
            raise InputError(f"this model cannot be sent to worker processes ({error}): use workers=1") from error

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            processes = list(self._processes.values())
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()

    def _start(self, place: int, gpu: str | None) -> Connection:
        """A new worker process, and the driver's end of its socket."""
        self._processes[place], link = child_process.start(_MODULE, gpu)
        return link

    def _serve(self, place: int, gpu: str | None, link: Connection | None) -> None:
        """The thread of one worker, and of those that take its place when it dies."""
        failed = 0
        try:
            while link is not None:
                try:
                    _send(link, pickle.dumps(Start(sys.path)))
                    failed += 1
                    _receive(link)
                    failed = 0
                    self._give_tasks(link)
                    return
                except _DiedError:
                    link = self._replace(place, gpu, failed)
        except BaseException as error:
            # A fault of ours: the driver raises it.
            self._answers.put(error)

    def _replace(self, place: int, gpu: str | None, failed: int) -> Connection | None:
        """A new worker for one that died; `failed` of them in a row before they were ready. None: no more is wanted."""
        with self._changed:
            if self._closed:
                return None
            process = self._processes[place]
            process.kill()
            code = process.wait()
            if failed < ATTEMPTS:
                return self._start(place, gpu)
            self._left -= 1
            text = f"{failed} worker processes ended while they started, the last one with exit status {code}"
            if self._left == 0:
                raise FaultError(f"{text} (what it wrote is above): --workers 1 (workers=1) stays in this process")
            _LOG.warning("%s: going on with %d", text, self._left)
            return None

    def _give_tasks(self, link: Connection) -> None:
        """Ask a worker one task after the other until the backend is closed. _DiedError where the worker dies."""
        networks: list[str] = []
        known: set[int] = set()
        while (work := self._take(networks)) is not None:
            try:
                answer = self._ask(link, work, known)
            except _DiedError:
                self._put_back(work)
                raise
            self._answers.put(answer)
            if work.network:
                networks = [*(name for name in networks if name != work.network), work.network][-2:]

    def _take(self, networks: Sequence[str]) -> _Work | None:
        """The next task: the first one, or where that evaluates a network, the first about one of `networks`."""
        with self._changed:
            while not self._pending and not self._closed:
                self._changed.wait()
            if self._closed:
                return None
            place = 0
            if self._pending[0].network:
                place = next((at for at, work in enumerate(self._pending) if work.network in networks), 0)
            return self._pending.pop(place)

    def _put_back(self, work: _Work) -> None:
        """A task whose worker has died."""
        work.deaths += 1
        if work.deaths >= ATTEMPTS:
            reason = f"{ATTEMPTS} workers died on it, one after the other (out of memory, or killed from outside?)"
            self._answers.put(Answer(work.task.job.name, None, lost=reason))
            return
        with self._changed:
            self._pending.insert(0, work)
            self._changed.notify()

    def _ask(self, link: Connection, work: _Work, known: set[int]) -> Answer:
        """The worker's answer to a task. _DiedError where the worker dies on it."""
        numbers = {wanted: shared.number for wanted, shared in work.shared.items()}
        values = {shared.number: shared.value for shared in work.shared.values() if shared.number not in known}
        # What this task does not need is dropped: a worker keeps no more than one task's inputs.
        released = tuple(known - set(numbers.values()))
        known.clear()
        known.update(numbers.values())
        _send(link, cloudpickle.dumps(Request(work.task, numbers, values, released)))
        while True:
            message = pickle.loads(_receive(link))
            if isinstance(message, Answer):
                return message
            self.on_progress(*message)
