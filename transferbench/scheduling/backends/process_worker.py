"""A worker process of backends/processes.py: it reads tasks from a socket, and answers on it.

Started as a module with the socket's file descriptor, so that the user's script is not imported again. A second thread
reads the socket: when the driver is gone, however it ended, so is the worker.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import sys
import threading
import time
import traceback
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transferbench.jobs.job import Output
    from transferbench.jobs.resources import Resources
    from transferbench.scheduling.backends.messages import Request, Start

INTERVAL = 0.5
"""Seconds between two progress messages to the driver."""


class Worker:
    """Answers tasks one after the other. `values` are what the driver has shared, by number."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.values: dict[int, object] = {}
        self.resources: Resources | None = None
        self._messages: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def serve(self) -> None:
        """Answer until the driver closes the socket, which ends the process."""
        start: Start = pickle.loads(self.connection.recv_bytes())
        sys.path[:] = start.path
        # Imported before the first task is there.
        from transferbench.scheduling.backends import task_run

        assert task_run
        # Ready: a process that ends before has died of its start, not of a task.
        self.connection.send_bytes(b"")
        threading.Thread(target=self._read, daemon=True).start()
        while True:
            self._answer(self._messages.get())

    def _read(self) -> None:
        try:
            while True:
                self._messages.put(self.connection.recv_bytes())
        except (EOFError, OSError):
            os._exit(1)

    def _answer(self, message: bytes) -> None:
        import cloudpickle

        from transferbench.scheduling.backends import Answer

        request: Request = pickle.loads(message)
        for number in request.released:
            self.values.pop(number, None)
        for number, value in request.values.items():
            self.values[number] = pickle.loads(value)
        name = request.task.job.name
        try:
            answer = Answer(name, self._run(request))
        except Exception as error:
            # Where it arose, for --debug: the traceback itself does not travel.
            error.add_note("".join(traceback.format_exception(error)))
            answer = Answer(name, None, error)
        try:
            message = cloudpickle.dumps(answer)
            if answer.error is not None:
                # Some exceptions cannot be made again of what was pickled.
                pickle.loads(message)
        except Exception as problem:
            message = cloudpickle.dumps(Answer(name, None, _plain(answer.error or problem)))
        self.connection.send_bytes(message)

    def _run(self, request: Request) -> Output:
        import cloudpickle

        from transferbench.base.progress import Progress
        from transferbench.jobs.resources import Resources
        from transferbench.scheduling.backends import task_run
        from transferbench.store.checkpoint_file import CheckpointFile

        task, last = request.task, [time.monotonic()]
        if self.resources is None:
            self.resources = Resources(task.settings, remote=True)

        def report(progress: Progress) -> None:
            if time.monotonic() - last[0] >= INTERVAL:
                last[0] = time.monotonic()
                self.connection.send_bytes(cloudpickle.dumps((task.job.name, progress)))

        shared = {wanted: self.values[number] for wanted, number in request.shared.items()}
        checkpoint = CheckpointFile(task.settings.root / "unfinished" / task.key)
        return task_run.run(task, self.resources, shared, report, checkpoint)


def _plain(error: BaseException) -> RuntimeError:
    """An exception that cannot travel, as text."""
    plain = RuntimeError(f"{type(error).__name__}: {error}")
    for note in getattr(error, "__notes__", []):
        plain.add_note(note)
    return plain


if __name__ == "__main__":
    # Ctrl-C reaches the whole process group of a terminal, but the driver ends its workers itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Worker(Connection(int(sys.argv[1]))).serve()
