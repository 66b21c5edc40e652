"""A worker process of backends/processes.py: it reads tasks from a socket, and answers on it.

Started as a module, so that the user's script is not imported again (base/child_process.py).
"""

from __future__ import annotations

import pickle
import sys
import time
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from transferbench.base import child_process

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

    def serve(self) -> None:
        """Answer until the driver closes the socket, which ends the process."""
        start: Start = pickle.loads(self.connection.recv_bytes())
        sys.path[:] = start.path
        # Imported before the first task is there.
        from transferbench.scheduling.backends import task_run

        assert task_run
        # Ready: a process that ends before has died of its start, not of a task.
        self.connection.send_bytes(b"")
        messages = child_process.received(self.connection)
        while True:
            self._answer(messages.get())

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
            message = cloudpickle.dumps(Answer(name, self._run(request)))
        except Exception as error:
            # Not swallowed: the driver raises it.
            message = cloudpickle.dumps(Answer(name, None, child_process.portable(error)))
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


if __name__ == "__main__":
    Worker(child_process.connected()).serve()
